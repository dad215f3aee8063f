"""Selectors by identity: what is known about an entry and its query, apart from their scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from onca.bag import Bag
from onca.difficulty import need
from onca.link import Slice, Test
from onca.part import bare
from onca.pool import Pool
from onca.schedule import Number
from onca.select import Selector, check_count, count_at


class _SameClass(Selector):
    """Entries with the query's label, where both are known. Labels used so are an oracle."""

    own_needs = frozenset({"label"})

    def __call__(self, pool: Pool, bag: Bag) -> Test:
        own = need(self, pool.label, "labels", "label= and negative_label=")

        def test(piece: Slice) -> Tensor:
            label = need(self, piece.entries("label"), "labels of the negatives", "negative_label=")
            return (label == own[piece.part, None]) & (label >= 0)

        for link in bag.links:
            need(self, link.label, "labels of the negatives", "negative_label=")
        return test


class _SameImage(Selector):
    """Entries that are views of the query's own image (those that a host put in; memories mask theirs)."""

    own_needs = frozenset({"index"})

    def __call__(self, pool: Pool, bag: Bag) -> Test:
        own = need(self, pool.index, "indices", "index= and negative_index=")

        def test(piece: Slice) -> Tensor:
            index = need(self, piece.entries("index"), "indices of the negatives", "negative_index=")
            return (index == own[piece.part, None]) & (index >= 0)

        return test


class _NearDuplicate(Selector):
    """Entries of another image in the query's group of near-duplicates."""

    own_needs = frozenset({"index", "duplicates"})

    def __call__(self, pool: Pool, bag: Bag) -> Test:
        own = need(self, pool.index, "indices", "index= and negative_index=")
        group = need(self, pool.duplicates, "pool.duplicates [I], the group of each image", "groups of near-duplicates")

        def test(piece: Slice) -> Tensor:
            index = need(self, piece.entries("index"), "indices of the negatives", "negative_index=")
            mine = own[piece.part, None]
            same = group[index.clamp_min(0)] == group[mine.clamp_min(0)]
            return same & (index != mine) & (index >= 0) & (mine >= 0)

        return test


class _Given(Selector):
    """Entries that the caller chose: pool.given [B,N]. Entries that a rule put behind those N are not among them."""

    own_needs = frozenset({"given"})

    def __call__(self, pool: Pool, bag: Bag) -> Test:
        given = need(self, pool.given, "pool.given [B,N]", "given=")
        known = given.shape[1]

        def test(piece: Slice) -> Tensor:
            return given[piece.part][:, piece.place.clamp_max(known - 1)] & (piece.place < known)

        return test


same_class = bare(_SameClass(), "same_class")
same_image = bare(_SameImage(), "same_image")
near_duplicate = bare(_NearDuplicate(), "near_duplicate")
given = bare(_Given(), "given")


@dataclass(frozen=True, eq=False, repr=False)
class reached(Selector, name="reached"):
    """Entries of images at most `steps` steps away in the neighbour graph, without the own (InvP, 2010.11694).

    All walks along pool.neighbours [I,k] are followed; unknown neighbours (-1) lead nowhere.
    """

    steps: Number
    own_needs: ClassVar[frozenset[str]] = frozenset({"index", "neighbours"})

    def __post_init__(self) -> None:
        check_count(self, "steps")

    def __call__(self, pool: Pool, bag: Bag) -> Test:
        own = need(self, pool.index, "indices", "index= and negative_index=")
        graph = need(self, pool.neighbours, "pool.neighbours [I,k]", "a host with a neighbour graph")
        found = walks(graph, own, count_at(self, self.steps, pool))

        def test(piece: Slice) -> Tensor:
            index = need(self, piece.entries("index"), "indices of the negatives", "negative_index=")
            mine, near = own[piece.part, None], found[piece.part] + 1
            there = torch.zeros(len(near), len(graph) + 1, dtype=torch.bool, device=near.device)  # one for each image
            there.scatter_(1, near, True)
            there[:, 0] = False  # unknown
            place = torch.where((index >= 0) & (index < len(graph)), index + 1, 0)
            inside = there[:, place[0]] if len(place) == 1 else there.gather(1, place)
            return inside & (index != mine)

        return test


def walks(graph: Tensor, start: Tensor, steps: int) -> Tensor:
    """Where all walks of 1 to `steps` steps from `start` [B] end: [B, k + k^2 + ...], level by level.

    An image stands there once for each walk that ends in it, the start too where a walk leads back; -1 where a walk
    meets an unknown neighbour. graph: pool.neighbours [I,k], -1 unknown.

    Raises ValueError when a start has no row in the graph.
    """
    if len(start) and int(start.max()) >= len(graph):
        what = f"image {int(start.max())} has no row in pool.neighbours {list(graph.shape)}"
        raise ValueError(f"{what}: the graph needs one for each image, index counts them from 0")
    level, found = start[:, None], [start.new_empty(len(start), 0)]
    for _ in range(steps):
        level = torch.where(level[:, :, None] < 0, -1, graph[level.clamp_min(0)]).flatten(1)
        found.append(level)
    return torch.cat(found, 1)
