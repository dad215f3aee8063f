"""Objectives: which formula turns what is left into one number per query. Pool -> [B]."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from onca.bag import Bag
from onca.link import Slice, Test
from onca.part import Part, bare
from onca.pool import Pool
from onca.predicate import Everything
from onca.ranking import Hinge
from onca.schedule import Number, check_number


class Method(Part):
    """Pool -> loss of each query [B]. An objective is the shortest method; chain and total make longer ones."""

    kind = "method"

    def __call__(self, pool: Pool) -> Tensor:
        raise NotImplementedError  # abstract


class Objective(Method):
    """A formula over the positives and negatives of a pool."""

    kind = "objective"


def negative_mass(pool: Pool) -> Tensor:
    """log sum of exp(score / temperature) over all negatives, added ones too: [B]. Counts queries that have none."""
    total = pool.negatives.lse(pool.scale)
    for bag in pool.added:
        more, none = bag.lse(pool.scale), torch.isneginf(total)
        total = torch.where(none, more, torch.logaddexp(torch.where(none, 0, total), more))  # -inf twice gives nan
    pool.note("empty", int(torch.isneginf(total.detach()).sum()))
    return total


def need_positives(owner: Part, pool: Pool) -> None:
    """Raises ValueError where a query has no positive."""
    own = pool.positives.links[0]
    if own.length and own.per_query and not own.tests:
        return
    number = pool.positives.count()
    if int(number.min()) == 0:
        query = int((number == 0).nonzero()[0])
        raise ValueError(
            f"{owner} needs a positive for each query; query {query} has none: give positive= or use supcon"
        )


def first_positive(pool: Pool) -> Bag:
    """Only the first positive of each query: the first one given, or else the first one attracted."""
    own = replace(pool.positives, links=pool.positives.links[:1])
    if len(own) == 1:
        return own
    if len(own):
        return own.only(_at(own.links[0].place))
    place = pool.positives.rows(Everything(), 1)
    return pool.positives.only(lambda piece: piece.place[None] == place[piece.part])


class _InfoNCE(Objective):
    """Mean over p of -log(e^sp / (e^sp + negatives)), s = score / temperature (1807.03748; 1911.05722, eq. 1).

    Other positives than p are absent. A query without negatives has loss 0.
    """

    def __call__(self, pool: Pool) -> Tensor:
        need_positives(self, pool)

        def against(piece: Slice, mass: Tensor) -> Tensor:
            return torch.logaddexp(torch.sub(mass, piece.score, alpha=pool.scale), mass.new_zeros(()))

        return pool.positives.mean(against, negative_mass(pool))


class _SupCon(Objective):
    """Mean over p of -log(e^sp / (all positives + negatives)), the mean outside the log (2004.11362, eq. 2, L_out).

    A query without positives has loss 0 and counts in the mean.
    """

    def __call__(self, pool: Pool) -> Tensor:
        positives = positive_mass(pool)
        total = torch.logaddexp(positives, negative_mass(pool))
        none = torch.isneginf(positives.detach())
        return torch.where(none, 0, torch.where(none, 0, total) - pool.positives.mean() * pool.scale)


class _Mass(Objective):
    """-log of the positives' share of the mass: -log(sum of positives / (positives + negatives))."""

    def __call__(self, pool: Pool) -> Tensor:
        need_positives(self, pool)
        return torch.logaddexp(negative_mass(pool) - positive_mass(pool), pool.positives.query.new_zeros(()))


def positive_mass(pool: Pool) -> Tensor:
    """log sum of exp(score / temperature) over the positives, each counting once: [B]."""
    return pool.positives.plain.lse(pool.scale)


infonce = bare(_InfoNCE(), "infonce")
supcon = bare(_SupCon(), "supcon")
mass = bare(_Mass(), "mass")


@dataclass(frozen=True, eq=False, repr=False)
class debiased(Objective, name="debiased"):
    """The debiased estimator (2007.00224, eq. 8): -log(e^s+ / (e^s+ + N g)),
    g = max((mean of negatives - tau_plus * mean of positives) / (1 - tau_plus), e^(-1/t)), N present negatives.

    The first positive stands in the numerator, all of them in the correction; after `harden` both means are tilted
    (2010.04592). In log space, finite in float32 at any temperature. On the floor no gradient passes through g. Note
    `floor`: share of queries that stand there; when it is more than half, a warning says so.
    """

    tau_plus: Number = 0.1

    def __post_init__(self) -> None:
        check_number(self, self.tau_plus, "tau_plus")
        if isinstance(self.tau_plus, int | float):
            self._checked(self.tau_plus)

    def _checked(self, value: float) -> float:
        if not 0 <= value < 1:
            raise ValueError(f"{self}: tau_plus is a share of the classes, 0 or more and less than 1; got {value}")
        return float(value)

    def __call__(self, pool: Pool) -> Tensor:
        need_positives(self, pool)
        prior = self._checked(pool.number(self.tau_plus, self))
        total = negative_mass(pool)
        number = sum((bag.count() for bag in pool.added), pool.negatives.count()).to(total.dtype)
        there = number > 0
        count = number.clamp_min(1).log()
        total = torch.where(there, total, count)  # a stand-in where nothing is: no gradient, no nan
        correction = pool.positives.lse(pool.scale) - pool.positives.count().to(total.dtype).log() + count
        if prior > 0:
            correction = correction + math.log(prior)
            positive = ~(total <= correction)  # nan stays nan
            gap = torch.where(positive, correction - total, -1)
            left = total + torch.log1p(-gap.exp()) - math.log1p(-prior)
        else:
            positive, left = torch.ones_like(there), total
        floor = count - pool.scale
        stands = positive & ~(left.detach() < floor)
        estimate = torch.where(stands, left, floor)
        self._note_floor(pool, (~stands & there).double().mean().item())
        first = first_positive(pool)
        loss = first.mean(lambda piece, g: torch.logaddexp(g - piece.score * pool.scale, g.new_zeros(())), estimate)
        return torch.where(there, loss, 0)

    def _note_floor(self, pool: Pool, share: float) -> None:
        """The text holds no number of this step: what is said again is shown once."""
        pool.note("floor", share)
        if share > 0.5:
            warnings.warn(
                f"{self} at temperature {pool.temperature:.2g}: more than half of the queries stand on the floor of "
                "the estimate, where negatives send no gradient; raise the temperature or lower tau_plus",
                stacklevel=3,
            )


class Triplets(Objective):
    """Mean over the negatives, zeros included, of a loss of (query, positive, negative).

    With several positives, the mean over the explicit ones; without any, the first one attracted. A query without
    negatives has loss 0.
    """

    def against(self, pool: Pool) -> Callable[[Slice, Tensor], Tensor]:
        """(slice of negatives, cosine of the positive [b,1]) -> losses [b,n], with the numbers of now."""
        raise NotImplementedError  # abstract

    def __call__(self, pool: Pool) -> Tensor:
        need_positives(self, pool)
        pool.note("empty", int((pool.negatives.count() == 0).sum()))
        loss = self.against(pool)
        losses = [pool.negatives.mean(loss, positive.mean()) for positive in _explicit_positives(pool)]
        return torch.stack(losses).mean(0)


@dataclass(frozen=True, eq=False, repr=False)
class triplet(Triplets, name="triplet"):
    """Mean over the negatives, zeros included, of max(0, s- - s+ + margin), in cosine (1503.03832; d^2 = 2 - 2 cos)."""

    margin: Number

    def __post_init__(self) -> None:
        check_number(self, self.margin, "margin")

    def against(self, pool: Pool) -> Hinge:
        return Hinge(pool.number(self.margin, self))


def _explicit_positives(pool: Pool) -> list[Bag]:
    """Bags of one positive each: all that were given, or else the first one attracted."""
    own = pool.positives.links[0]
    assert isinstance(own.place, int)
    given = replace(pool.positives, links=(own,))
    places = range(own.place, own.place + own.length)
    return [given.only(_at(place)) for place in places] or [first_positive(pool)]


def _at(place: int | Tensor) -> Test:
    return lambda piece: piece.place[None] == place
