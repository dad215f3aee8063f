"""MoCHi: synthetic negatives between a query's hardest negatives, and between those and the query (2010.01028)."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from onca.bag import Bag
from onca.difficulty import noise
from onca.pool import Pool
from onca.rules import Rule
from onca.schedule import Number, Schedule, check_number
from onca.select import check_count, count_at, nearest


@dataclass(frozen=True, eq=False, repr=False)
class mochi(Rule, name="mochi"):
    """s points between two of a query's own n hardest negatives, and s2 between the query and one of them, are added
    as further negatives (2010.01028, section 3.2 and 3.3; the paper writes (N, s, s') for n, s, s2).

    alpha ~ U(0, 1) and beta ~ U(0, `beta`) are drawn for each point. Both points are constants; attached=True lets
    gradient into the query inside the second kind. Rules that follow do not see the points. s = after(10, 1024) is the
    paper's warm-up. Adds nothing when both numbers are 0.
    """

    n: Number = 1024
    s: Number = 1024
    s2: Number = 128
    beta: Number = 0.5
    attached: bool = False

    def __post_init__(self) -> None:
        for name in ("n", "s", "s2"):
            check_count(self, name)
        check_number(self, self.beta, "beta")
        if not isinstance(self.beta, Schedule):
            self._check_beta(self.beta)
        if not isinstance(self.attached, bool):
            raise ValueError(f"{self}: attached must be True or False; got {self.attached!r}")

    def _check_beta(self, beta: float) -> float:
        if not 0 <= beta <= 1:
            raise ValueError(f"{self}: beta is the query's largest share in a point, 0 to 1 (paper: 0.5); got {beta}")
        return beta

    def __call__(self, pool: Pool) -> Pool:
        n, s, s2 = (count_at(self, number, pool) for number in (self.n, self.s, self.s2))
        beta = self._check_beta(pool.number(self.beta, self))
        if s + s2 == 0 or n == 0 or not len(pool.negatives):
            return pool
        drawn = draw(pool.seed, hard_set(pool, n), s, s2, beta)
        return replace(pool, added=(*pool.added, points(pool.negatives, drawn, self.attached)))


@dataclass(frozen=True, eq=False)
class Draws:
    """What is random: first, second [B,s]: places of two hard negatives, alpha [B,s]: the first one's share;
    hard [B,s2]: the place of one, beta [B,s2]: the query's share. -1: the query has no negatives."""

    first: Tensor
    second: Tensor
    alpha: Tensor
    hard: Tensor
    beta: Tensor


def hard_set(pool: Pool, n: int) -> Tensor:
    """Places of each query's own n hardest present negatives [B,n], in the bag's order; -1 where there are fewer."""
    return pool.negatives.rows(nearest(n)(pool, pool.negatives), min(n, len(pool.negatives)))


def draw(seed: int, hard: Tensor, s: int, s2: int, beta: float) -> Draws:
    """Pairs with replacement (both may be the same entry) and coefficients for hard sets [B,n], by hashing (seed,
    query, point)."""
    query = torch.arange(len(hard), device=hard.device)[:, None]
    number = (hard >= 0).sum(1, keepdim=True)

    def uniform(kind: int, count: int) -> Tensor:
        place = (kind << 32) + torch.arange(count, device=hard.device)  # other numbers than those of `random`
        return noise(seed, query, place[None])

    def entry(kind: int, count: int) -> Tensor:
        rank = (uniform(kind, count) * number).long().clamp_max(hard.shape[1] - 1)
        return hard.gather(1, rank)

    return Draws(entry(1, s), entry(2, s), uniform(3, s), entry(4, s2), beta * uniform(5, s2))


def points(negatives: Bag, drawn: Draws, attached: bool = False) -> Bag:
    """normalise(alpha n_i + (1 - alpha) n_j), then normalise(beta q + (1 - beta) n_j), for what was drawn."""
    between = negatives.mixed(drawn.first, drawn.second, drawn.alpha)
    towards = negatives.mixed(drawn.hard, None, 1 - drawn.beta, attached)
    return between.plus(towards)
