"""Rules: what happens to the chosen entries. A rule maps a pool to a pool; the next one sees what this one left."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from onca.bag import Bag
from onca.part import Part, require
from onca.pool import Pool
from onca.predicate import Both, Everything, Not, UpTo
from onca.schedule import Number, check_number
from onca.selector import Selector
from onca.sums import Even


class Rule(Part):
    """Pool -> Pool."""

    kind = "rule"

    def __call__(self, pool: Pool) -> Pool:
        raise NotImplementedError  # abstract


@dataclass(frozen=True, eq=False, repr=False)
class keep(Rule, name="keep"):
    """Only the chosen negatives stay."""

    chosen: Selector

    def __post_init__(self) -> None:
        require(self, self.chosen, "selector", "chosen")

    def __call__(self, pool: Pool) -> Pool:
        return replace(pool, negatives=pool.negatives.only(self.chosen(pool, pool.negatives)))


@dataclass(frozen=True, eq=False, repr=False)
class drop(Rule, name="drop"):
    """The chosen negatives are left out.

    refill: as many older entries, newest first, come in from the reserve as went out, passing over those that are
    chosen too, so that the number of negatives stays (2010.06682, footnote 2). A query for which the reserve does not
    suffice, or where there is none, gets what there is; the share of such queries is the note `short`.
    """

    chosen: Selector
    refill: bool = False

    def __post_init__(self) -> None:
        require(self, self.chosen, "selector", "chosen")
        if not isinstance(self.refill, bool):
            raise ValueError(f"{self}: refill must be True or False; got {self.refill!r}")

    def __call__(self, pool: Pool) -> Pool:
        test = self.chosen(pool, pool.negatives)
        left = pool.negatives.only(Not(test))
        if not self.refill:
            return replace(pool, negatives=left)
        missing = pool.negatives.only(test).count()
        if pool.reserve is None:
            return _short(replace(pool, negatives=left), missing > 0)
        able = _newest(pool.reserve.only(Not(test)), missing)
        comes = UpTo(_last(able, missing))
        rest = pool.reserve.only(Not(Both(Not(test), comes)))
        filled = replace(pool, negatives=left.plus(able.only(comes)), reserve=rest)
        return _short(filled, able.count() < missing)


def _short(pool: Pool, short: Tensor) -> Pool:
    """Notes the share of queries for which the reserve did not suffice, in this rule or in one before it."""
    short = short if pool.short is None else short | pool.short
    pool.note("short", short.double().mean().item())
    return replace(pool, short=short)


def _newest(able: Bag, missing: Tensor) -> Bag:
    """So much of the newest end of a reserve as suffices: most steps need a few rows of thousands."""
    length = 2 * int(missing.max()) + 64
    while length < len(able):
        part = able.first(length)
        if bool((part.count() >= missing).all()):
            return part
        length *= 4
    return able


def _last(able: Bag, missing: Tensor) -> Tensor:
    """The place of the last entry that comes in [B], in the order of places, as far as there are any."""
    most = max(1, int(missing.max()))
    places = able.rows(Everything(), most)
    number = torch.minimum(missing, (places >= 0).sum(1))
    return torch.where(number > 0, places.gather(1, (number - 1).clamp_min(0)[:, None])[:, 0], -1)


@dataclass(frozen=True, eq=False, repr=False)
class attract(Rule, name="attract"):
    """The chosen negatives become positives."""

    chosen: Selector

    def __post_init__(self) -> None:
        require(self, self.chosen, "selector", "chosen")

    def __call__(self, pool: Pool) -> Pool:
        test = self.chosen(pool, pool.negatives)
        positives = pool.positives.plus(pool.negatives.only(test))
        return replace(pool, positives=positives, negatives=pool.negatives.only(Not(test)))


@dataclass(frozen=True, eq=False, repr=False)
class harden(Rule, name="harden"):
    """Importance weights of HCL (2010.04592): w_j = exp(beta s_j) / mean exp(beta s), s = cosine / temperature.

    The weights of the negatives have mean one, so that their number stays. The positives are tilted in the same way for
    the correction of `debiased`; no numerator is. attached=True lets gradient through the weights, as the official
    code does; attached=False treats them as constants.
    """

    beta: Number
    attached: bool = True

    def __post_init__(self) -> None:
        check_number(self, self.beta, "beta")
        if not isinstance(self.attached, bool):
            raise ValueError(f"{self}: attached must be True or False; got {self.attached!r}")

    def __call__(self, pool: Pool) -> Pool:
        tilt = pool.number(self.beta, self) * pool.scale
        positives, negatives = (self._tilted(bag, tilt) for bag in (pool.positives, pool.negatives))
        return replace(pool, positives=positives, negatives=negatives)

    def _tilted(self, bag: Bag, tilt: float) -> Bag:
        if tilt == 0:
            return bag
        return bag.tilted(tilt, Even(bag.plain, tilt, self.attached), self.attached)


@dataclass(frozen=True, eq=False, repr=False)
class add(Rule, name="add"):
    """More negatives, made from the pool: `make(pool) -> Bag`. Rules that follow do not see them."""

    make: Callable[[Pool], Bag]

    def __post_init__(self) -> None:
        if not callable(self.make):
            raise ValueError(f"{self}: make must be a function of a pool that gives a bag; got {self.make!r}")

    def __call__(self, pool: Pool) -> Pool:
        return replace(pool, added=(*pool.added, self.make(pool)))
