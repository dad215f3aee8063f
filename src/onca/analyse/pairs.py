"""Which queries are held against which negatives, and the negatives of each in order. B queries, N negatives."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from onca.analyse.space import Space

PAPER = 2000  # queries, and as many negatives, in 2010.06682
SLICE = 2**20  # pairs looked at together, of 8 bytes each
LAST = torch.iinfo(torch.int64).max

Preset = Literal["all", "paper"]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Rows of a space: queries int64 [B] and negatives int64 [N], and in words how they were chosen.

    A query and a negative of one image (the same index) are no pair.
    """

    space: Space
    query: Tensor
    negative: Tensor
    queries: str
    negatives: str

    @cached_property
    def own(self) -> Tensor:
        """How many negatives are of each query's own image, int64 [B]."""
        known, counts = torch.unique(self.space.index[self.negative], return_counts=True)
        asked = self.space.index[self.query]
        place = torch.searchsorted(known, asked).clamp_max(len(known) - 1)
        return torch.where(known[place] == asked, counts[place], 0)

    @cached_property
    def present(self) -> Tensor:
        """How many negatives each query has, int64 [B]."""
        return len(self.negative) - self.own

    def among(self, other: Space) -> Pairs:
        """The same pairs of rows in a space of the same images."""
        return Pairs(other, self.query, self.negative, self.queries, self.negatives)


@dataclass(frozen=True, eq=False)
class Ranked:
    """Negatives of b queries, each with n of them, hardest first; equal ones in their order.

    query  int64 [b], places among the queries
    place  int64 [b,n], places among the negatives
    score  float32 [b,n], dot products
    """

    query: Tensor
    place: Tensor
    score: Tensor


def choose(
    space: Space, queries: Tensor | int | None, negatives: Tensor | int | None, preset: Preset, seed: int
) -> Pairs:
    """The pairs that `analyse` is asked for; its arguments.

    Raises:
        ValueError: rows that the space does not have, more images than there are, nothing to look at.
    """
    if preset not in ("all", "paper"):
        raise ValueError(f"preset={preset!r}: there are 'all' and 'paper'")
    if preset == "paper":
        if queries is not None or negatives is not None:
            raise ValueError('preset="paper" draws its own queries and negatives: leave queries and negatives out')
        draw, count = np.random.default_rng(seed), min(PAPER, len(space))
        query, negative = (torch.from_numpy(np.sort(draw.choice(len(space), count, replace=False))) for _ in range(2))
        how = f"{count:,} at random (seed {seed})"
        return Pairs(space, query, negative, how, how)
    order = by_turns(space.label) if isinstance(queries, int) or isinstance(negatives, int) else torch.empty(0)
    query, asked = _rows(space, queries, order, 0, "queries")
    used = queries if isinstance(queries, int) else 0
    negative, held = _rows(space, negatives, order, used, "negatives")
    return Pairs(space, query, negative, asked, held)


def _rows(space: Space, asked: Tensor | int | None, order: Tensor, used: int, what: str) -> tuple[Tensor, str]:
    if asked is None:
        return torch.arange(len(space)), f"all {len(space):,}"
    if isinstance(asked, int):
        if not 1 <= asked <= len(space) - used:
            left = f" beside {used:,} queries" if used else ""
            raise ValueError(f"{asked:,} {what} of {len(space):,} images{left}: take 1 to {len(space) - used:,}")
        rows, classes = order[used : used + asked], len(torch.unique(space.label))
        share, which = asked / classes, "next" if used else "first"
        even = asked % classes == 0 and int(torch.bincount(space.label[rows] + 1).max()) == share
        text = (
            f"{which} {share:g} images of each class" if even else f"{which} {asked:,} images, class by class in turn"
        )
        return rows, f"{text}, in file order"
    rows = asked.long()
    if rows.dim() != 1 or not len(rows) or not 0 <= int(rows.min()) <= int(rows.max()) < len(space):
        raise ValueError(f"{what} are rows 0 to {len(space) - 1} of the space, at least one; got {list(asked.shape)}")
    return rows, f"{len(rows):,} given rows"


def by_turns(label: Tensor) -> Tensor:
    """The first image of each class, then the second of each, and so on; classes in order, images in theirs."""
    order = label.argsort(stable=True)
    counts = torch.unique(label, return_counts=True)[1]
    turn = torch.cat([torch.arange(int(count)) for count in counts])
    return order[turn.argsort(stable=True)]


def ranked(pairs: Pairs) -> Iterator[Ranked]:
    """All pairs, slice by slice: exact, in memory that does not grow with the queries.

    Score and place of a pair are packed into one whole number, so that one sort puts equal scores into their order.
    """
    space, keys = pairs.space, pairs.space.rows[pairs.negative]
    height, place = max(1, SLICE // len(keys)), torch.arange(len(keys))
    with ThreadPoolExecutor(torch.get_num_threads()) as workers:
        for own in torch.unique(pairs.own).tolist():
            for part in torch.split((pairs.own == own).nonzero().flatten(), height):
                rows = pairs.query[part]
                score = space.rows[rows] @ keys.T
                key = _packed(score, place)
                if own:
                    key[space.index[rows, None] == space.index[pairs.negative]] = LAST
                sorting = [workers.submit(some.sort, axis=1) for some in _shares(key.numpy())]
                for done in sorting:
                    done.result()
                found = key[:, : len(keys) - own] & 0xFFFFFFFF
                yield Ranked(part, found, score.gather(1, found))


def _packed(score: Tensor, place: Tensor) -> Tensor:
    """Whole numbers that ascend as scores descend, then as places ascend."""
    bits = (score + 0.0).view(torch.int32)  # + 0.0: no negative zero
    ascending = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ascending.bitwise_not().long() << 32) | place


def _shares(rows: np.ndarray) -> list[np.ndarray]:
    """Blocks of rows, one for each of the caller's threads; views, so that they can be sorted in place."""
    return [part for part in np.array_split(rows, torch.get_num_threads()) if len(part)]
