"""Hierarchies of classes: how deep the lowest common ancestor (LCA) of two classes lies. C classes, V nodes.

WordNet is no tree: 75 of the 1,860 nodes above ImageNet's classes have several parents. So depth needs a convention:
"max" takes a node's longest path to the root, "min" its shortest; of all common ancestors, the two classes among them,
the deepest counts. The two differ on dogs, for instance; 2010.06682 does not say which it took.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from importlib import resources
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from onca.data.imageset import ImageSet
from onca.data.levels import depth_table

WNID = re.compile(r"n\d{8}")
ROOT = ""  # stands above a user's nodes without a parent where there are several

Parents = Mapping[str, tuple[str, ...]]  # of each node; () of a root


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """Depths of lowest common ancestors, the root at 0; -1 where a class is not in the hierarchy.

    depth_max   int64 [C,C]: a node's depth is its longest path to the root. The default of all analyses
    depth_min   int64 [C,C]: the same with shortest paths
    source      what it was made from
    """

    depth_max: Tensor
    depth_min: Tensor
    source: str

    @property
    def known(self) -> Tensor:
        """Which classes are in it, bool [C]."""
        return self.depth_max.diagonal() >= 0


def hierarchy_of(
    asked: str | None, names: Sequence[str], *, wnids: Sequence[str] = (), images: ImageSet | None = None
) -> Hierarchy | None:
    """The hierarchy of classes with these names.

    Args:
        asked: "wordnet", "levels" (those of `images`), "none", the path of a file of two columns, child and parent,
            separated by commas or tabs, whose leaves are class names; None takes WordNet where ids say which nodes the
            classes are, else levels, else nothing.
        wnids: WordNet id of each class; else those of `images`; else the names, where they are ids or the class names
            of CIFAR-10 or CIFAR-100.

    A class that a user's file does not name is -1 in the tables. Raises ValueError for what is asked for and cannot be:
    an id that the tables do not hold (they cover ImageNet-1k, CIFAR-10 and CIFAR-100), no level, a file without any of
    the classes, a cycle.
    """
    if asked == "none":
        return None
    ids = tuple(wnids) or (images.wnids if images is not None else ()) or _ids(names)
    if asked == "wordnet" or (asked is None and ids):
        if not ids:
            raise ValueError(
                f"WordNet needs an id for each class (wnids in a pack, or ids as names); {names[:3]} are none"
            )
        return wordnet(ids)
    if asked == "levels" or asked is None:
        if images is None or (asked is None and not any(len(n) < len(images.names) for _, n in images.levels.values())):
            if asked is None:
                return None
            raise ValueError('"levels" are those of a set of images; there are only embeddings: give a file of edges')
        depth = depth_table(images)
        return Hierarchy(depth, depth, f"levels of {images.source}")
    return from_edges(Path(asked), names)


def wordnet(wnids: Sequence[str]) -> Hierarchy:
    """The is-a graph of WordNet 3.0 over classes with these ids (licence beside the tables)."""
    parents = _wordnet()
    unknown = [wnid for wnid in wnids if wnid not in parents]
    if unknown:
        raise ValueError(
            f"{len(unknown)} WordNet ids are not in the tables, the first is {unknown[0]!r}: they cover the classes of "
            "ImageNet-1k, CIFAR-10 and CIFAR-100 and all above them; give a file of edges (child,parent) for others"
        )
    return _depths(parents, wnids, "WordNet 3.0")


def from_edges(path: Path, names: Sequence[str]) -> Hierarchy:
    """A user's own hierarchy: a line for each edge, child and parent; a first line `child,parent` is a heading."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise ValueError(
            f"{path} cannot be read as a hierarchy ({problem}): give a text file of child,parent"
        ) from None
    parents = _parents(lines, str(path))
    if not any(name in parents for name in names):
        raise ValueError(f"{path} names none of the {len(names)} classes; the first class is {names[0]!r}")
    return _depths(parents, names, str(path))


def _parents(lines: Sequence[str], where: str) -> Parents:
    """Parents of each node, in an order in which no node stands before one of its parents."""
    split = "\t" if lines and "\t" in lines[0] else ","
    parents: dict[str, list[str]] = {}
    for number, row in enumerate(csv.reader(lines, delimiter=split), start=1):
        cells = [cell.strip() for cell in row]
        if cells in ([], [""]) or (number == 1 and cells == ["child", "parent"]):
            continue
        if len(cells) != 2 or not all(cells):
            raise ValueError(f"{where}, line {number}: {split.join(row)!r} is not a child and its parent")
        parents.setdefault(cells[0], []).append(cells[1])
        parents.setdefault(cells[1], [])
    tops = [node for node, above in parents.items() if not above]
    if len(tops) > 1:
        parents |= {ROOT: []} | {top: [ROOT] for top in tops}
    try:
        order = tuple(TopologicalSorter(parents).static_order())
    except CycleError as found:
        raise ValueError(f"{where} goes round in a circle: {' -> '.join(reversed(found.args[1]))}") from None
    return {node: tuple(parents[node]) for node in order}


@cache
def _wordnet() -> Parents:
    return _parents(_table("is_a.tsv"), "WordNet")


def _table(name: str) -> list[str]:
    return (resources.files(__package__) / "wordnet" / name).read_text(encoding="utf-8").splitlines()


def _ids(names: Sequence[str]) -> tuple[str, ...]:
    """WordNet ids of classes by their names: they are ids, or all of CIFAR-10 or CIFAR-100."""
    if names and all(WNID.fullmatch(name) for name in names):
        return tuple(names)
    for dataset in ("cifar10", "cifar100"):
        known = {row[1]: row[2] for row in csv.reader(_table("cifar.tsv"), delimiter="\t") if row[0] == dataset}
        if names and all(name in known for name in names):
            return tuple(known[name] for name in names)
    return ()


def lowest_common(a: str, b: str, convention: Literal["max", "min"] = "max") -> tuple[int, tuple[str, ...]]:
    """Depth of the lowest common ancestor of two WordNet ids, and all that lie so deep, as ids in ascending order.

    Raises ValueError for an id that the tables do not hold.
    """
    wordnet((a, b))
    parents = _wordnet()
    nodes, choose = tuple(parents), max if convention == "max" else min
    depth: dict[str, int] = {}
    for node in nodes:
        depth[node] = choose((depth[parent] + 1 for parent in parents[node]), default=0)
    shared = _up(parents, a) & _up(parents, b)
    deepest = max(depth[node] for node in shared)
    return deepest, tuple(sorted(node for node in shared if depth[node] == deepest))


def synset(wnid: str) -> str:
    """The name of a WordNet id, `canine.n.02`; the id itself where the tables do not hold it."""
    return _synsets().get(wnid, wnid)


@cache
def _synsets() -> Mapping[str, str]:
    return {row[0]: row[1] for row in csv.reader(_table("synsets.tsv")[1:], delimiter="\t")}


def _up(parents: Parents, node: str) -> set[str]:
    """A node and all above it."""
    found, todo = set[str](), [node]
    while todo:
        if (node := todo.pop()) not in found:
            found.add(node)
            todo += parents[node]
    return found


def _depths(parents: Parents, classes: Sequence[str], source: str) -> Hierarchy:
    """Both tables, from depths and ancestors of every node; `parents` go down from the roots."""
    place = {node: number for number, node in enumerate(parents)}
    longest, shortest = [0] * len(parents), [0] * len(parents)
    above = torch.eye(len(parents), dtype=torch.bool)  # row: a node; column: an ancestor of it, or itself
    for node, number in place.items():
        own = [place[parent] for parent in parents[node]]
        if own:
            longest[number] = 1 + max(longest[parent] for parent in own)
            shortest[number] = 1 + min(shortest[parent] for parent in own)
            above[number] |= above[own].any(0)
    ancestors = torch.zeros(len(classes), len(parents))
    for row, name in enumerate(classes):
        if name in place:
            ancestors[row] = above[place[name]]
    return Hierarchy(_common(ancestors, longest), _common(ancestors, shortest), source)


def _common(ancestors: Tensor, depth: Sequence[int]) -> Tensor:
    """Depth of the deepest common ancestor, int64 [C,C], -1 where there is none; ancestors 0 or 1 [C,V], depth [V]."""
    depths = torch.tensor(depth)
    found = torch.full((len(ancestors), len(ancestors)), -1)
    for level in sorted(set(depth)):  # the deepest one stays
        at = ancestors[:, depths == level]
        found[at @ at.T > 0] = level
    return found
