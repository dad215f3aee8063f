"""Selectors by rank and by value.

A selector is prepared on a whole bag, where a percentage becomes a threshold for each query, and is then a test that
can be put to any slice. Percent is 0-100 and 100 is the hardest (2010.06682). Of N present entries, rank r (0 the
hardest) lies in `window(low, high)` when n(100 - high) <= r < n(100 - low), n(p) = floor(N p / 100 + 1/2) in exact
decimals of the numbers as written. Ties go to the entry that stands first in the bag.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from onca.bag import Bag
from onca.difficulty import Difficulty, cosine, uniform
from onca.link import Slice, Test
from onca.part import Part, require
from onca.pool import Pool
from onca.predicate import Both, Not
from onca.ranking import Above
from onca.schedule import Number, Schedule, check_number
from onca.selector import Selector

if TYPE_CHECKING:
    from fractions import Fraction


# Selectors by rank.


class _Percentile(Selector):
    """Entries between two percentages of difficulty."""

    by: Difficulty

    def span(self, pool: Pool | None) -> tuple[Fraction | int, Fraction | int]:
        """Exact (low, high)."""
        raise NotImplementedError  # abstract

    def check(self, *names: str) -> None:
        for name in names:
            check_number(self, getattr(self, name), name)
        require(self, self.by, "difficulty", "by")
        if not any(isinstance(getattr(self, name), Schedule) for name in names):
            self.span(None)

    def exact(self, name: str, pool: Pool | None) -> Fraction:
        """A percentage as written, exactly: 0.1 is one tenth."""
        value = getattr(self, name) if pool is None else pool.number(getattr(self, name), self)
        if not 0 <= value <= 100:
            raise ValueError(f"{self}: {name} is in percent, 0 to 100; got {value}")
        return _written(str(value))

    def __call__(self, pool: Pool, bag: Bag) -> Test:
        low, high = self.span(pool)
        if high == 100:
            return bag.threshold(lambda n: ranks(n, 100 - low), self.by(pool)).test()
        found = bag.threshold(lambda n: torch.stack([ranks(n, 100 - low), ranks(n, 100 - high)], 1), self.by(pool))
        return Both(found.test(0), Not(found.test(1)))


@lru_cache(maxsize=256)
def _written(number: str) -> Fraction:
    from fractions import Fraction  # here, because importing onca loads nothing that torch has not loaded

    return Fraction(number)


def ranks(number: Tensor, percent: Fraction | int) -> Tensor:
    """n(p) = floor(N p / 100 + 1/2) for numbers of entries [b], exactly."""
    upper, lower = percent.numerator, percent.denominator * 100
    if max(upper, lower) < 1 << 30:  # of a few digits: int64 holds all products, since N is less than 2^31
        return (number * (2 * upper) + lower) // (2 * lower)
    rank = [(2 * n * upper + lower) // (2 * lower) for n in number.tolist()]
    return torch.tensor(rank, dtype=torch.int64, device=number.device)


@dataclass(frozen=True, eq=False, repr=False)
class window(_Percentile, name="window"):
    """Entries between two percentages of difficulty: `window(90, 95)` is the second hardest twentieth (2010.06682)."""

    low: Number
    high: Number
    by: Difficulty = cosine

    def __post_init__(self) -> None:
        self.check("low", "high")

    def span(self, pool: Pool | None) -> tuple[Fraction | int, Fraction | int]:
        low, high = self.exact("low", pool), self.exact("high", pool)
        if low > high:
            raise ValueError(f"{self}: low must not be above high (100 is the hardest); did you mean the other order?")
        return low, high


@dataclass(frozen=True, eq=False, repr=False)
class hardest(_Percentile, name="hardest"):
    """The hardest `percent`: `hardest(5)` is `window(95, 100)`."""

    percent: Number
    by: Difficulty = cosine

    def __post_init__(self) -> None:
        self.check("percent")

    def span(self, pool: Pool | None) -> tuple[Fraction | int, Fraction | int]:
        return 100 - self.exact("percent", pool), 100


@dataclass(frozen=True, eq=False, repr=False)
class easiest(_Percentile, name="easiest"):
    """The easiest `percent`: `easiest(95)` is `window(0, 95)`."""

    percent: Number
    by: Difficulty = cosine

    def __post_init__(self) -> None:
        self.check("percent")

    def span(self, pool: Pool | None) -> tuple[Fraction | int, Fraction | int]:
        return 0, self.exact("percent", pool)


@dataclass(frozen=True, eq=False, repr=False)
class nearest(Selector, name="nearest"):
    """The k entries that score highest, all of them where there are fewer."""

    k: Number
    by: Difficulty = cosine

    def __post_init__(self) -> None:
        check_count(self, "k")
        require(self, self.by, "difficulty", "by")

    def __call__(self, pool: Pool, bag: Bag) -> Test:
        return bag.threshold(count_at(self, self.k, pool), self.by(pool)).test()


@dataclass(frozen=True, eq=False, repr=False)
class farthest(Selector, name="farthest"):
    """The k entries that score lowest: those that are left when the others are taken from the hard end."""

    k: Number
    by: Difficulty = cosine

    def __post_init__(self) -> None:
        check_count(self, "k")
        require(self, self.by, "difficulty", "by")

    def __call__(self, pool: Pool, bag: Bag) -> Test:
        k = count_at(self, self.k, pool)
        return Not(bag.threshold(lambda number: (number - k).clamp_min(0), self.by(pool)).test())


@dataclass(frozen=True, eq=False, repr=False)
class sample(Selector, name="sample"):
    """n entries drawn for each query without replacement, every step anew.

    weight: "uniform", or "distance": inverse to the density of distances on the sphere, distances below 0.5 cut off
    there (1706.07567, eq. 4, log-weights; drawn by adding Gumbel noise and taking the n largest).
    """

    n: Number
    weight: str = "uniform"

    def __post_init__(self) -> None:
        check_count(self, "n")
        if self.weight not in ("uniform", "distance"):
            raise ValueError(f'{self}: weight must be "uniform" or "distance"; got {self.weight!r}')

    def __call__(self, pool: Pool, bag: Bag) -> Test:
        dim = bag.query.shape[1]

        def score(piece: Slice) -> Tensor:
            gumbel = -(-uniform(pool.seed, piece).log()).log()
            return gumbel if self.weight == "uniform" else gumbel + distance_weight(piece.score.double(), dim)

        return bag.threshold(count_at(self, self.n, pool), score).test()


def distance_weight(cosines: Tensor, dim: int, cutoff: float = 0.5) -> Tensor:
    """log of 1 / density of the distance between points on the unit sphere (1706.07567, eq. 3 and 4)."""
    square = (2 - 2 * cosines).clamp(cutoff**2, 4 - 1e-6)
    return -((dim - 2) / 2 * square.log() + (dim - 3) / 2 * (1 - square / 4).log())


def check_count(owner: Part, name: str) -> None:
    value = getattr(owner, name)
    check_number(owner, value, name)
    if not isinstance(value, Schedule) and (value < 0 or value != int(value)):
        raise ValueError(f"{owner}: {name} must be a whole number from 0; got {value}")


def count_at(owner: Part, value: Number, pool: Pool) -> int:
    return max(0, math.floor(pool.number(value, owner) + 0.5))


# Selectors by value.


@dataclass(frozen=True, eq=False, repr=False)
class above(Selector, name="above"):
    """Entries whose difficulty is more than `threshold`."""

    threshold: Number
    by: Difficulty = cosine

    def __post_init__(self) -> None:
        check_number(self, self.threshold, "threshold")
        require(self, self.by, "difficulty", "by")

    def __call__(self, pool: Pool, bag: Bag) -> Test:
        bound = torch.full_like(bag.query[:, 0], pool.number(self.threshold, self), dtype=bag.dtype)
        return Above(bound, self.by(pool))


@dataclass(frozen=True, eq=False, repr=False)
class semihard(Selector, name="semihard"):
    """Entries below the (first) positive by less than `margin`: s+ - margin < s- < s+, in cosine (1503.03832)."""

    margin: Number

    def __post_init__(self) -> None:
        check_number(self, self.margin, "margin")

    def __call__(self, pool: Pool, bag: Bag) -> Test:
        margin = pool.number(self.margin, self)
        given = replace(pool.positives, links=pool.positives.links[:1])
        if not len(given):
            raise ValueError(f"{self} needs a positive for each query: give positive [B,D]")
        positive = given.only(lambda piece: piece.place[None] == 0).mean().detach()
        return Both(Not(Above(positive, inclusive=True)), Above(positive - margin))
