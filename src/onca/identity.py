"""Selectors by identity: what is known about an entry and its query, apart from their scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from onca.bag import Bag
from onca.difficulty import lacking, need
from onca.link import Test
from onca.part import bare
from onca.pool import Pool
from onca.predicate import Both, Equal, Given, Listed, Not
from onca.schedule import Number
from onca.select import check_count, count_at
from onca.selector import Selector


class _SameClass(Selector):
    """Entries with the query's label, where both are known. Labels used so are an oracle."""

    own_needs = frozenset({"label"})

    def __call__(self, pool: Pool, bag: Bag) -> Test:
        own = need(self, pool.label, "labels", "label= and negative_label=")

        for link in bag.links:
            need(self, link.label, "labels of the negatives", "negative_label=")
        return Equal(own, "label", lacking=lacking(self, "labels of the negatives", "negative_label="))


class _SameImage(Selector):
    """Entries that are views of the query's own image (those that a host put in; memories mask theirs)."""

    own_needs = frozenset({"index"})

    def __call__(self, pool: Pool, bag: Bag) -> Test:
        own = need(self, pool.index, "indices", "index= and negative_index=")

        return Equal(own, "index", lacking=lacking(self, "indices of the negatives", "negative_index="))


class _NearDuplicate(Selector):
    """Entries of another image in the query's group of near-duplicates."""

    own_needs = frozenset({"index", "duplicates"})

    def __call__(self, pool: Pool, bag: Bag) -> Test:
        own = need(self, pool.index, "indices", "index= and negative_index=")
        group = need(self, pool.duplicates, "pool.duplicates [I], the group of each image", "groups of near-duplicates")

        says = lacking(self, "indices of the negatives", "negative_index=")
        mine = torch.where(own >= 0, group[own.clamp_min(0)], -1)
        return Both(Equal(mine, "index", table=group, lacking=says), Not(Equal(own, "index", lacking=says)))


class _Given(Selector):
    """Entries that the caller chose: pool.given [B,N]. Entries that a rule put behind those N are not among them."""

    own_needs = frozenset({"given"})

    def __call__(self, pool: Pool, bag: Bag) -> Test:
        given = need(self, pool.given, "pool.given [B,N]", "given=")
        return Given(given)


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

        says = lacking(self, "indices of the negatives", "negative_index=")
        return Both(Listed(found, len(graph), says), Not(Equal(own, "index", lacking=says)))


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
