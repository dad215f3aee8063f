"""Conditional negative sampling: Ring and Ball (2010.02037), and the official code's neighbour views."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from onca.objectives import Objective, first_positive, need_positives, negative_mass, positive_mass
from onca.part import Shorthand
from onca.pool import Pool
from onca.predicate import Both, Not
from onca.rules import Rule, keep
from onca.schedule import Number, Schedule, check_number
from onca.select import hardest, ranks

if TYPE_CHECKING:
    from fractions import Fraction


@dataclass(frozen=True, eq=False, repr=False)
class ring(Rule, name="ring"):
    """Of the hardest `outer` percent, all but the hardest `inner` percent stay (2010.02037).

    of: what inner is a percent of, "all" entries or those of the "outer" set (`dynamic_inner` of the official code).
    neighbours: the skipped hardest entries become positives (`neighbor_views`), for `aggregation`.
    """

    outer: Number = 10
    inner: Number = 1
    of: str = "all"
    neighbours: bool = False

    def __post_init__(self) -> None:
        if self.of not in ("all", "outer"):
            raise ValueError(f'{self}: of must be "all" or "outer"; got {self.of!r}')
        if not isinstance(self.neighbours, bool):
            raise ValueError(f"{self}: neighbours must be True or False; got {self.neighbours!r}")
        for name in ("outer", "inner"):
            check_number(self, getattr(self, name), name)
        if not isinstance(self.outer, Schedule) and not isinstance(self.inner, Schedule):
            self._edges(self.outer, self.inner)

    def _edges(self, outer: float, inner: float) -> tuple[Fraction, Fraction]:
        """Both percentages, exactly as written. Raises ValueError when nothing can lie between them."""
        from fractions import Fraction  # here, because importing onca loads nothing that torch has not loaded

        for name, value in (("outer", outer), ("inner", inner)):
            if not 0 <= value <= 100:
                raise ValueError(f"{self}: {name} is in percent, 0 to 100; got {value}")
        if outer == 0 or inner >= (outer if self.of == "all" else 100):
            raise ValueError(
                f"{self}: nothing lies between inner ({inner} % of {self.of}) and outer ({outer} % of all); "
                "make outer larger or inner smaller"
            )
        return Fraction(str(outer)), Fraction(str(inner))

    def __call__(self, pool: Pool) -> Pool:
        outer, inner = self._edges(pool.number(self.outer, self), pool.number(self.inner, self))

        def sizes(number: Tensor) -> Tensor:
            out = ranks(number, outer)
            return torch.stack([out, ranks(out if self.of == "outer" else number, inner)], 1)

        found = pool.negatives.threshold(sizes)
        out, skipped = found.test(0), found.test(1)

        positives = pool.positives.plus(pool.negatives.only(skipped)) if self.neighbours else pool.positives
        return replace(pool, positives=positives, negatives=pool.negatives.only(Both(out, Not(skipped))))


@dataclass(frozen=True, eq=False, repr=False)
class ball(Shorthand, Rule, name="ball"):
    """The hardest `outer` percent stay: `keep(hardest(outer))`, a ring without a hole (2010.02037)."""

    outer: Number = 10

    def meaning(self) -> Rule:
        check_number(self, self.outer, "outer")
        if not isinstance(self.outer, Schedule) and not 0 < self.outer <= 100:
            raise ValueError(f"{self}: outer is in percent, more than 0 and up to 100; got {self.outer}")
        return keep(hardest(self.outer))


@dataclass(frozen=True, eq=False, repr=False)
class aggregation(Objective, name="aggregation"):
    """log(e^s1 + negatives) - joined positives: all positives in the numerator, only the first below the line.

    join: "logsumexp" or "mean" of s = cosine / temperature. positive_in_denominator=False leaves the first positive out
    of the denominator (`self_negative` off). With one positive it is `infonce`; with more the loss may be negative (the
    official code's `neighbor_views`; not in 2010.02037). A query without negatives has loss 0.
    """

    join: str = "logsumexp"
    positive_in_denominator: bool = True

    def __post_init__(self) -> None:
        if self.join not in ("logsumexp", "mean"):
            raise ValueError(f'{self}: join must be "logsumexp" or "mean"; got {self.join!r}')
        if not isinstance(self.positive_in_denominator, bool):
            given = self.positive_in_denominator
            raise ValueError(f"{self}: positive_in_denominator must be True or False; got {given!r}")

    def __call__(self, pool: Pool) -> Tensor:
        need_positives(self, pool)
        below = negative_mass(pool)
        none = torch.isneginf(below.detach())
        if self.positive_in_denominator:
            below = torch.logaddexp(below, first_positive(pool).mean() * pool.scale)
        joined = positive_mass(pool) if self.join == "logsumexp" else pool.positives.mean() * pool.scale
        return torch.where(none, 0, below - joined)
