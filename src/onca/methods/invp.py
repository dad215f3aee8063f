"""Invariance propagation (InvP, 2010.11694): images that walks along a neighbour graph reach are positives, and of
those the least similar count most.

A host keeps a bank with one row for each image and the k nearest images of each. The loss is L_ins + weight * L_inv:
the image's own row against the nearest rows, and, in later epochs, what was reached against them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from onca.bag import Bag
from onca.difficulty import need
from onca.identity import reached, walks
from onca.link import Test
from onca.objectives import Method, infonce, need_positives, negative_mass, positive_mass
from onca.pool import Pool
from onca.schedule import Number, Schedule, after, check_number
from onca.select import check_count, count_at, farthest, nearest

EPSILON = 1e-7  # of the official code, inside both logarithms


@dataclass(frozen=True, eq=False, repr=False)
class invp(Method, name="invp"):
    """L_ins + weight * L_inv, without L_inv up to and including the epoch `start` (2010.11694).

    k: neighbours of each image that the host keeps. steps: length of the walks. hardest: so many of the images that
    they reach are positives, the least similar ones. background: so many of the nearest rows are the denominator.
    mode "paper" works on sets, without the image itself; "official" does as the authors' code, see `listed`.
    """

    k: int = 4
    steps: Number = 3
    hardest: Number = 50
    background: Number = 4096
    weight: Number = 0.6
    start: float = 30
    mode: str = "paper"
    own_needs: ClassVar[frozenset[str]] = frozenset({"index", "neighbours"})

    def __post_init__(self) -> None:
        for name in ("k", "steps", "hardest", "background"):
            check_count(self, name)
        for name in ("weight", "start"):
            check_number(self, getattr(self, name), name)
        if isinstance(self.k, Schedule) or isinstance(self.start, Schedule):
            raise ValueError(f"{self}: k and start must be plain numbers; a schedule may be the weight")
        if 0 in (self.k, self.background):
            raise ValueError(f"{self}: k and background must be 1 or more")
        if self.mode not in ("paper", "official"):
            raise ValueError(f'{self}: mode must be "paper" or "official"; got {self.mode!r}')

    def __call__(self, pool: Pool) -> Tensor:
        """[B]. Raises ValueError when the pool has no graph of k neighbours or other negatives than a bank's."""
        pool = replace(pool, neighbours=self._graph(pool))
        instance, invariance = (listed_instance, listed) if self.mode == "official" else (set_instance, propagated)
        compared = everyone(pool) if self.mode == "official" else pool.negatives
        near = nearest(count_at(self, self.background, pool))(pool, compared)
        weight = pool.number(after(self.start, 1), self) * pool.number(self.weight, self)
        loss = instance(pool, near)
        if weight == 0:
            return loss
        steps, hardest = count_at(self, self.steps, pool), count_at(self, self.hardest, pool)
        return loss + weight * invariance(pool, steps, hardest, near)

    def _graph(self, pool: Pool) -> Tensor:
        """[I,k]. What is missing is said at once, not only in the epoch in which the second term sets in."""
        need(self, pool.index, "indices", "index= and negative_index=")
        graph = need(self, pool.neighbours, "pool.neighbours [I,k]", f"a bank with neighbours={self.k}")
        if graph.shape[1] < self.k:
            raise ValueError(f"{self} takes k={self.k} neighbours of each image; the bank keeps {graph.shape[1]}")
        need_positives(self, pool)
        links = pool.negatives.links
        if len(links) > 1 or links[0].per_query or links[0].rows is not None or links[0].length != len(graph):
            raise ValueError(
                f"{self} needs all rows of a bank, one for each image, as negatives: give its host draws=0"
            )
        return graph[:, : self.k]  # nearest first


def walk_ends(pool: Pool, steps: int, distinct: bool) -> Bag:
    """The rows of the images where walks end, each as often as walks do; distinct: once, and without the own one.

    Rules that acted before have no say in it.
    """
    link = pool.negatives.links[0]
    assert pool.neighbours is not None and pool.index is not None
    ends = walks(pool.neighbours, pool.index, steps)
    if distinct:
        ends = ends.sort(1).values
        again = torch.cat([ends[:, :1] < 0, ends[:, 1:] == ends[:, :-1]], 1)
        ends = torch.where(again | (ends == pool.index[:, None]), -1, ends)
    return Bag(pool.negatives.query, (replace(link, rows=ends, absent=None, tests=()),), factor=pool.negatives.factor)


def _where_reached(pool: Pool, hard: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """loss(log sum over the positives [B]), and 0 for a query that reaches nothing; note `unreached`: their share."""
    none = torch.isneginf(hard.detach())
    pool.note("unreached", none.double().mean().item())
    return torch.where(none, 0, loss(torch.where(none, 0, hard)))


# The paper: sets.


def set_instance(pool: Pool, near: Test) -> Tensor:
    """L_ins [B]: InfoNCE of the own row against the nearest others."""
    return infonce(replace(pool, negatives=pool.negatives.only(near)))


def propagated(pool: Pool, steps: int, hardest: int, near: Test) -> Tensor:
    """L_inv [B] = -log(sum over N_h / sum over B), B = N_h and N_M without N.

    N: the images reached, N_h: the least similar of them, N_M: the nearest rows.
    """
    found = walk_ends(pool, steps, distinct=True)
    hard = found.only(farthest(hardest)(pool, found)).lse(pool.scale)
    inside = reached(steps)(pool, pool.negatives)
    rest = pool.negatives.only(lambda piece: near(piece) & ~inside(piece))
    mass = negative_mass(replace(pool, negatives=rest, notes={}))
    return _where_reached(pool, hard, lambda mine: torch.logaddexp(mass - mine, mass.new_zeros(())))


# The authors' code: lists.


def everyone(pool: Pool) -> Bag:
    """All rows of the bank, the own one too."""
    return replace(pool.negatives, query_index=None)


def listed_instance(pool: Pool, near: Test) -> Tensor:
    """L_ins [B] = -log(e_ii / D + 1e-7), D over the nearest rows of the whole bank."""
    return -torch.log((positive_mass(pool) - _denominator(pool, near, False)).exp() + EPSILON)


def listed(pool: Pool, steps: int, hardest: int, near: Test, exclusive: bool = True, hard_pos: bool = True) -> Tensor:
    """L_inv [B] = -log(sum over hard / (D - e_ii) + 1e-7); may be negative.

    hard: the least similar entries of the list of all walks, which holds an image as often as walks end in it, and the
    own one where walks lead back. D as above, what was reached included; e_ii is taken off whether it is in D or not.
    exclusive=False leaves it, hard_pos=False takes the most similar entries.
    """
    ends = walk_ends(pool, steps, distinct=False)
    chosen = (farthest if hard_pos else nearest)(hardest)(pool, ends)
    total = _denominator(pool, near, exclusive)
    return _where_reached(
        pool, ends.only(chosen).lse(pool.scale), lambda mine: -torch.log((mine - total).exp() + EPSILON)
    )


def _denominator(pool: Pool, near: Test, exclusive: bool) -> Tensor:
    """log D, or log(D - e_ii), where D is the sum over the nearest rows [B]."""
    total = everyone(pool).only(near).lse(pool.scale)
    if not exclusive:
        return total
    others = pool.negatives.only(near).lse(pool.scale)  # taking e_ii off the sum itself would lose its last digits
    outside = torch.where(total > others, -torch.inf, positive_mass(pool) - others)
    return others + torch.log1p(-outside.exp())


@dataclass(frozen=True, eq=False, repr=False)
class gaussian_ramp(Schedule, name="gaussian_ramp"):
    """value * exp(-sharpness * (1 - epoch / epochs)^2), and `value` from `epochs` on: InvP's other warm-up."""

    value: float
    epochs: float
    sharpness: float = 5.0

    def __post_init__(self) -> None:
        for name in ("value", "epochs", "sharpness"):
            check_number(self, getattr(self, name), name)
            if isinstance(getattr(self, name), Schedule):
                raise ValueError(f"{self}: {name} must be a plain number")
        if self.epochs <= 0:
            raise ValueError(f"{self}: epochs must be more than 0")

    def __call__(self, epoch: float, history: Sequence[float] = ()) -> float:
        return self.value * math.exp(-self.sharpness * max(1 - epoch / self.epochs, 0) ** 2)
