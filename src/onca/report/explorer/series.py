"""What the page shows, as values: the images, and one or two series of spaces of them. N images, K entries shown."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from onca.analyse import Space
from onca.report.explorer.ages import Ages
from onca.report.explorer.entries import Entries, often_hard
from onca.report.explorer.layout import Layout
from onca.report.explorer.plane import Plane
from onca.report.explorer.views import Views

MOST_GROUPS = 42  # colours times shapes that can be told apart
FLAGS = ("same_class", "near_duplicate", "anti_correlated", "consistently_hard")


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """One space of a series, and all that is said of it. group: near-duplicates [N]; ages: None without a ledger."""

    space: Space
    entries: Entries
    plane: Plane
    layout: Layout
    group: Tensor | None = None
    ages: Ages | None = None

    @cached_property
    def often(self) -> Tensor:
        """Which images are consistently hard, bool [N]."""
        return often_hard(self.entries.hits, self.layout)

    @property
    def percentile(self) -> Tensor:
        """float64 [N,K]."""
        return self.layout.percentile(self.entries.rank)

    @property
    def depth(self) -> Tensor | None:
        """Depth of the lowest common ancestor int64 [N,K], -1 unknown; None without a hierarchy."""
        if self.space.hierarchy is None:
            return None
        own, other = self.space.label[:, None], self.space.label[self.entries.row]
        return torch.where((own >= 0) & (other >= 0), self.space.hierarchy.depth_max[own, other], -1)

    def flags(self) -> dict[str, Tensor]:
        """bool [N,K] each, in the order of FLAGS."""
        row, own = self.entries.row, self.space.label[:, None]
        alike = torch.zeros_like(row).bool() if self.group is None else self.group[:, None] == self.group[row]
        chosen = ((own == self.space.label[row]) & (own >= 0), alike, self.entries.similarity < 0, self.often[row])
        return {name: flag & self.entries.known for name, flag in zip(FLAGS, chosen, strict=True)}


@dataclass(frozen=True, eq=False)
class Series:
    """The checkpoints of one run, in order, under one name."""

    name: str
    checkpoints: list[Checkpoint] = field(default_factory=list)


def groups(space: Space) -> tuple[str, Tensor, tuple[str, ...]]:
    """What the map's colours mean: name, group of each image int64 [N] (-1 none) and the groups' names.

    The coarsest level of the labels that divides them; else the classes; nothing where those are too many.
    """
    levels = dict(space.images.levels) if space.images is not None else {}
    levels["class"] = (space.label, space.names)
    small = {name: level for name, level in levels.items() if 2 <= len(level[1]) <= MOST_GROUPS}
    if not small:
        return "", torch.full_like(space.label, -1), ()
    name = min(small, key=lambda key: len(small[key][1]))
    return name, *small[name]


def check(spaces: Sequence[Space], against: Sequence[Space], most: int) -> None:
    """Errors: ValueError for no space, too few or too many images, an index that repeats, spaces of other images."""
    if not spaces:
        raise ValueError("the explorer needs a space (onca.analyse.embed makes those of a run)")
    first = spaces[0]
    if not 4 <= len(first) <= most:
        raise ValueError(f"{first.source}: the explorer shows 4 to {most:,} images; got {len(first):,}: take a sample")
    if len(torch.unique(first.index)) < len(first):
        raise ValueError(f"{first.source}: an index stands for one image, and here some repeat")
    for space in (*spaces, *against):
        if not torch.equal(space.index, first.index):
            raise ValueError(
                f"{space.source} is of other images than {first.source}: embed the same ones, in one order"
            )


def short(source: str) -> str:
    """What a page calls a source: without the folders before it, which are the machine's own."""
    return source.rsplit("/", 1)[-1]


def each(series: Sequence[Series]) -> Iterator[tuple[str, Checkpoint]]:
    """All checkpoints, with the name of their series."""
    for one in series:
        for checkpoint in one.checkpoints:
            yield one.name, checkpoint


def groups_of(space: Space, duplicates: Tensor | None) -> Tensor | None:
    """Near-duplicates of the rows, a group each [N], from those by index [I]. Raises ValueError where one has none."""
    if duplicates is not None and int(space.index.max()) >= len(duplicates):
        most = int(space.index.max())
        raise ValueError(
            f"duplicates are given for {len(duplicates)} images by index, and {space.source} has image {most}"
        )
    return None if duplicates is None else duplicates[space.index]


def seen_in(views: Views | None, spaces: Sequence[Space], against: Sequence[Space]) -> list[Tensor | None]:
    """The rows of the views in each space, None where there are none. Raises ValueError for those that do not fit."""
    if views is None:
        return [None] * (len(spaces) + len(against))
    found: list[Tensor | None] = [*views.rows, *(views.against or [None] * len(against))]
    asked = [(*views.pixels.shape[:2], space.rows.shape[1]) for space in (*spaces, *against)]
    if len(found) != len(asked) or any(
        r is not None and r.shape != shape for r, shape in zip(found, asked, strict=True)
    ):
        raise ValueError(
            f"views are rows [N,V,D] for each of {len(spaces)} and {len(against)} spaces, like their pixels"
        )
    return found
