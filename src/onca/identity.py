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
    """Entries that the caller chose: pool.given [B,N]."""

    own_needs = frozenset({"given"})

    def __call__(self, pool: Pool, bag: Bag) -> Test:
        given = need(self, pool.given, "pool.given [B,N]", "given=")
        return lambda piece: given[piece.part][:, piece.place]


same_class = bare(_SameClass(), "same_class")
same_image = bare(_SameImage(), "same_image")
near_duplicate = bare(_NearDuplicate(), "near_duplicate")
given = bare(_Given(), "given")


@dataclass(frozen=True, eq=False, repr=False)
class reached(Selector, name="reached"):
    """Entries of images at most `steps` steps away in the neighbour graph, without the own (InvP, 2010.11694)."""

    steps: Number
    own_needs: ClassVar[frozenset[str]] = frozenset({"index", "neighbours"})

    def __post_init__(self) -> None:
        check_count(self, "steps")

    def __call__(self, pool: Pool, bag: Bag) -> Test:
        own = need(self, pool.index, "indices", "index= and negative_index=")
        graph = need(self, pool.neighbours, "pool.neighbours [I,k]", "a host with a neighbour graph")
        found = level = own.clamp_min(0)[:, None]
        for _ in range(count_at(self, self.steps, pool)):
            level = graph[level].flatten(1)  # [B, k^step]
            found = torch.cat([found, level], 1)

        def test(piece: Slice) -> Tensor:
            index = need(self, piece.entries("index"), "indices of the negatives", "negative_index=")
            index = index.expand(piece.score.shape)
            mine = own[piece.part, None]
            inside = torch.stack([torch.isin(row, near) for row, near in zip(index, found[piece.part], strict=True)])
            return inside & (index != mine) & (index >= 0) & (mine >= 0)

        return test
