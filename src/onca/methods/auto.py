"""Cancelling without labels: how much of the hardest end goes is read from the batch. New, in no paper."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from onca.bag import Bag
from onca.link import Test
from onca.part import Shorthand
from onca.pool import Pool
from onca.predicate import Both
from onca.ranking import Above
from onca.rules import Rule, drop
from onca.schedule import Number, Schedule, check_number
from onca.selector import Selector

TAIL = math.erfc(math.sqrt(0.5)) / 2  # of a normal distribution, one deviation or more above its mean
MOST = 0.5  # never is more than half of the entries chosen, so that something is left to learn from


@dataclass(frozen=True, eq=False, repr=False)
class likely(Selector, name="likely"):
    """Entries that are of the query's class with a probability of `certainty` or more, as far as can be told without
    labels: P(z) = tau_plus f+(z) / f(z), in z = (cosine - mean) / deviation of the query's own negatives.

    f is the standard normal density, f+ the normal one of this batch's positives, each in its own query's z: views of
    one image stand for images of one class. tau_plus, the share of same-class entries (as of `debiased`), is a limit:
    the batch lowers it where fewer negatives than it promises lie a deviation or more beyond the mean of f+. Where P
    reaches certainty follows in closed form, and all entries from there on are meant, harder ones too: of N at most
    N tau_plus / certainty, the most that could be right, and never more than half. Without two queries to compare,
    without spread, or with positives no closer than negatives, none is. Note `likely`: share of entries chosen.
    """

    tau_plus: Number = 0.1
    certainty: Number = 0.5

    def __post_init__(self) -> None:
        for name in ("tau_plus", "certainty"):
            check_number(self, getattr(self, name), name)
            if not isinstance(getattr(self, name), Schedule):
                self._share(name, getattr(self, name))

    def _share(self, name: str, value: float) -> float:
        if not 0 <= value <= 1 or (name == "certainty" and value == 0):
            least = "0 or more" if name == "tau_plus" else "more than 0"
            raise ValueError(f"{self}: {name} is a share, {least} and at most 1; got {value}")
        return value

    @torch.no_grad()
    def __call__(self, pool: Pool, bag: Bag) -> Test:
        prior = self._share("tau_plus", pool.number(self.tau_plus, self))
        certainty = self._share("certainty", pool.number(self.certainty, self))
        seen, own = _detached(bag), _detached(pool.positives)
        centre = seen.mean()
        spread = seen.mean(lambda piece, c: (piece.score - c).square(), centre).sqrt()
        varied = spread > 0
        unit = torch.where(varied, spread, 1)
        first = own.mean(lambda piece, c, u: (piece.score - c) / u, centre, unit)
        second = own.mean(lambda piece, c, u: ((piece.score - c) / u).square(), centre, unit)
        mean, deviation = _moments(first, second, own.count() * varied)

        number = bag.count()
        far = bag.only(_from(centre + (mean + deviation) * unit)).count()
        seen_far = float((far * varied).sum() / (number * varied).sum().clamp_min(1).double())
        odds = min(prior, seen_far / TAIL) / certainty
        close = _from(torch.where(varied, centre + boundary(odds, mean, deviation) * unit, torch.inf))
        most = bag.threshold(lambda number: (number.double() * min(odds, MOST)).long()).test()

        test = Both(close, most)
        share = bag.only(test).count() / number.clamp_min(1).double()
        pool.note("likely", share.mean().item())
        return test


def boundary(odds: float, mean: float, deviation: float) -> float:
    """The smallest z from which odds * normal(z; mean, deviation) >= normal(z; 0, 1) holds, up to the second crossing
    where there is one; inf where it holds nowhere, or where mean or deviation is not above 0; -inf where everywhere."""
    if odds <= 0 or mean <= 0 or deviation <= 0:
        return math.inf
    square = (1 - deviation**-2) / 2
    linear = mean / deviation**2
    constant = math.log(odds / deviation) - linear * mean / 2
    root = linear**2 - 4 * square * constant
    if root < 0:
        return math.inf if square < 0 else -math.inf
    return -2 * constant / (linear + math.sqrt(root))  # of the two forms the one that also holds for square = 0


def _from(limit: Tensor) -> Test:
    return Above(limit, inclusive=True)


def _moments(first: Tensor, second: Tensor, number: Tensor) -> tuple[float, float]:
    """Mean and deviation over all positives, of first and second moments [B] of each query's, `number` [B] of them."""
    if int((number > 0).sum()) < 2:
        return 0.0, 0.0
    weight = number.to(first.dtype) / number.sum()
    mean = float(first @ weight)
    return mean, math.sqrt(max(float(second @ weight) - mean**2, 0.0))


def _detached(bag: Bag) -> Bag:
    """The same entries, of which no gradient is asked: one pass, whatever is trained."""
    links = tuple(replace(link, vectors=link.vectors.detach(), factor=_cut(link.factor)) for link in bag.links)
    return replace(bag, query=bag.query.detach(), factor=_cut(bag.factor), links=links)


def _cut(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else tensor.detach()


@dataclass(frozen=True, eq=False, repr=False)
class auto(Shorthand, Rule, name="auto"):
    """`drop(likely(tau_plus, certainty), refill)`: chooses for each query how much of its hardest end is cancelled."""

    tau_plus: Number = 0.1
    certainty: Number = 0.5
    refill: bool = False

    def meaning(self) -> Rule:
        return drop(likely(self.tau_plus, self.certainty), refill=self.refill)
