"""The algebra once more, query by query: Python loops in float64 that import nothing of onca.

Tests give one expression, as text, to onca and to `losses` here, which reads it with Python's own `eval` into the names
below. Entries are chosen by loops over plain numbers; the formulas are torch scalars and vectors of one query, so that
autograd derives them. Golden files of the official codes check this file in turn (test_algebra.py).

Shapes: B queries, N entries, P positives, S support views, D dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from decimal import ROUND_FLOOR, Decimal
from typing import Any

import torch

Tensor = torch.Tensor


class EveryQueryEmpty(ValueError):
    """Entries were present, and no query has any left."""


# --- what a method is given, and one query's part of it --------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """The arguments of `onca.pool`; `negatives` and its labels and indices are lists, one a linked bag."""

    query: Tensor  # [B,D]
    positive: Tensor | None  # [B,D] or [B,P,D]
    negatives: list[Tensor]  # each [N,D] or [B,N,D]
    temperature: Any = 0.2
    label: Tensor | None = None  # [B]
    negative_label: list[Tensor] | None = None  # each [N] or [B,N]
    index: Tensor | None = None
    negative_index: list[Tensor] | None = None
    support: Tensor | None = None  # [B,S,D]
    given: Tensor | None = None  # [B,N] bool
    reserve: int = 0
    epoch: float | None = None
    normalize: bool = True
    neighbours: Tensor | None = None  # [I,k]
    duplicates: Tensor | None = None  # [I]
    depth: Tensor | None = None  # [C,C]
    external: dict[str, Tensor] = field(default_factory=dict)  # each [I,F], unit rows
    normaliser: Tensor | None = None
    population: int | None = None


@dataclass(frozen=True)
class State:
    """One query and what the rules have left of its candidates; an entry is named by its place in the linked bags."""

    cosine: Tensor  # [N] with graph
    support: list[list[float]]  # N x S
    label: list[bool]  # N: the query's class
    image: list[bool]  # N: the query's image
    given: list[bool]
    shown: list[int]
    reserve: list[int]  # newest first
    positives: list[Tensor]  # cosines
    case: Case
    own_index: int = -1
    own_label: int = -1
    index: tuple[int, ...] = ()  # N
    labels: tuple[int, ...] = ()  # N
    views: tuple[Tensor, ...] = ()  # S cosines of the support with the query
    weight: dict[int, Tensor] = field(default_factory=dict)  # place -> logarithm of how often it counts
    beta: float = 0.0
    short: bool = False  # a refill found too few

    def number(self, value: Any) -> Any:
        return value(self.case.epoch) if callable(value) else value

    @property
    def temperature(self) -> float:
        return self.number(self.case.temperature)


def unit(rows: Tensor, normalize: bool) -> Tensor:
    """Each row divided by its length; a zero row stays zero."""
    rows = rows.double()
    if not normalize:
        return rows
    square = rows.square().sum(-1, keepdim=True)
    return rows / torch.where(square > 0, square, 1.0).sqrt()


def state(case: Case, b: int) -> State:
    def own(rows: Tensor, shared: int) -> Tensor:
        return rows if rows.dim() == shared else rows[b]

    def known(theirs: list[Tensor] | None, n: int) -> tuple[int, ...]:
        return (-1,) * n if theirs is None else tuple(v for part in theirs for v in own(part, 1).tolist())

    def equal(mine: Tensor | None, theirs: list[Tensor] | None, n: int) -> list[bool]:
        if mine is None or theirs is None:
            return [False] * n
        return [int(mine[b]) == value != -1 for value in known(theirs, n)]

    query = unit(case.query[b], case.normalize)
    keys = torch.cat([unit(own(bag, 2), case.normalize) for bag in case.negatives])
    cosine = (keys * query).sum(-1)
    n = len(keys)
    image = equal(case.index, case.negative_index, n)
    present = [place for place in range(n) if not image[place]]
    support, views = torch.zeros(n, 0), query[:0]
    if case.support is not None:
        rows = unit(case.support[b], case.normalize)
        support, views = (keys[:, None] * rows).sum(-1), (rows * query).sum(-1)
    positives: list[Tensor] = []
    if case.positive is not None:
        rows = case.positive[b] if case.positive.dim() == 3 else case.positive[b][None]
        positives = list((unit(rows, case.normalize) * query).sum(-1))
    return State(
        cosine,
        support.tolist(),
        equal(case.label, case.negative_label, n),
        image,
        [False] * n if case.given is None else case.given[b].tolist(),
        [place for place in present if place < n - case.reserve],
        [place for place in present if place >= n - case.reserve],
        positives,
        case,
        -1 if case.index is None else int(case.index[b]),
        -1 if case.label is None else int(case.label[b]),
        known(case.negative_index, n),
        known(case.negative_label, n),
        tuple(views),
    )


# --- selectors: State -> test of a place -----------------------------------------------------------------------------

Test = Callable[[int], bool]
Difficulty = Callable[[State, int], float]


@dataclass(frozen=True)
class Selector:
    prepare: Callable[[State], Test]

    def __and__(self, other: Selector) -> Selector:
        def prepare(now: State) -> Test:
            first, second = self.prepare(now), other.prepare(now)
            return lambda place: first(place) and second(place)

        return Selector(prepare)

    def __or__(self, other: Selector) -> Selector:
        return ~(~self & ~other)

    def __invert__(self) -> Selector:
        def prepare(now: State) -> Test:
            test = self.prepare(now)
            return lambda place: not test(place)

        return Selector(prepare)


def each(test: Callable[[State, int], bool]) -> Selector:
    """A selector that looks at each entry by itself."""
    return Selector(lambda now: lambda place: test(now, place))


def cosine(now: State, place: int) -> float:
    return now.cosine[place].item()


def support_max(now: State, place: int) -> float:
    return max(now.support[place])


def support_mean(now: State, place: int) -> float:
    return sum(now.support[place]) / len(now.support[place])


def ranked(by: Difficulty, bounds: Callable[[State, int], tuple[int, int]]) -> Selector:
    """The entries at ranks first <= r < last of a stable descending sort of the N shown, where bounds(state, N) says.

    One of the reserve is judged by the place that it would take among them.
    """

    def prepare(now: State) -> Test:
        rank = {place: (-by(now, place), place) for place in now.shown + now.reserve}
        first, last = bounds(now, len(now.shown))
        return lambda place: first <= sum(rank[other] < rank[place] for other in now.shown) < last

    return Selector(prepare)


def count_of(n: int, percent: Any) -> int:
    """floor(n percent / 100 + 1/2), exactly, on the number as written."""
    percent = percent if isinstance(percent, Decimal) else Decimal(repr(percent))
    return int((n * percent / 100 + Decimal("0.5")).to_integral_value(rounding=ROUND_FLOOR))


def window(low: Any, high: Any, by: Difficulty = cosine) -> Selector:
    def bounds(now: State, n: int) -> tuple[int, int]:
        first, last = (count_of(n, 100 - Decimal(repr(now.number(edge)))) for edge in (high, low))
        return first, last

    return ranked(by, bounds)


def hardest(percent: Any, by: Difficulty = cosine) -> Selector:
    return ranked(by, lambda now, n: (0, count_of(n, now.number(percent))))


def easiest(percent: Any, by: Difficulty = cosine) -> Selector:
    return window(0, percent, by)


def nearest(k: Any, by: Difficulty = cosine) -> Selector:
    return ranked(by, lambda now, n: (0, min(n, now.number(k))))


def farthest(k: Any, by: Difficulty = cosine) -> Selector:
    return ranked(by, lambda now, n: (max(0, n - now.number(k)), n))


def above(threshold: Any, by: Difficulty = cosine) -> Selector:
    return each(lambda now, place: by(now, place) > now.number(threshold))


def semihard(margin: Any) -> Selector:
    return each(lambda now, place: -now.number(margin) < cosine(now, place) - now.positives[0].item() < 0)


same_class = each(lambda now, place: now.label[place])
same_image = each(lambda now, place: now.image[place])
given = each(lambda now, place: now.given[place])


# --- rules: State -> State -------------------------------------------------------------------------------------------

Rule = Callable[[State], State]


def keep(chosen: Selector) -> Rule:
    def rule(now: State) -> State:
        return replace(now, shown=list(filter(chosen.prepare(now), now.shown)))

    return rule


def drop(chosen: Selector, refill: bool = False) -> Rule:
    def rule(now: State) -> State:
        test = chosen.prepare(now)
        stay = [place for place in now.shown if not test(place)]
        wanted = len(now.shown) - len(stay) if refill else 0
        come = [place for place in now.reserve if not test(place)][:wanted]
        wait = [place for place in now.reserve if place not in come]
        return replace(now, shown=stay + come, reserve=wait, short=now.short or len(come) < wanted)

    return rule


def attract(chosen: Selector) -> Rule:
    def rule(now: State) -> State:
        taken = list(filter(chosen.prepare(now), now.shown))
        stay = [place for place in now.shown if place not in taken]
        return replace(now, shown=stay, positives=now.positives + [now.cosine[place] for place in taken])

    return rule


def harden(beta: Any) -> Rule:
    """w_j = exp(beta s_j) / mean of exp(beta s_j) over what is present; s = cosine / temperature (arXiv 2010.04592)."""

    def rule(now: State) -> State:
        if not now.shown:
            return now
        b = now.number(beta)
        tilt = b * now.cosine[now.shown] / now.temperature
        tilt = tilt - torch.logsumexp(tilt, 0) + math.log(len(now.shown))
        weight = {place: now.weight.get(place, 0) + tilt[i] for i, place in enumerate(now.shown)}
        return replace(now, weight=weight, beta=now.beta + b)

    return rule


# --- objectives: State -> scalar -------------------------------------------------------------------------------------

Objective = Callable[[State], Tensor]


def logits(now: State) -> tuple[Tensor, Tensor]:
    """Of the positives, and of the negatives with the logarithm of their weight added; one at -inf stands for none."""
    if not now.positives:
        raise ValueError("a query without positives")
    negative = [now.cosine[place] / now.temperature + now.weight.get(place, 0) for place in now.shown]
    nothing = torch.tensor(-math.inf, dtype=torch.float64)
    return torch.stack(now.positives) / now.temperature, torch.stack(negative or [nothing])


def infonce(now: State) -> Tensor:
    sp, sn = logits(now)
    return torch.stack([torch.logsumexp(torch.cat([p[None], sn]), 0) - p for p in sp]).mean()


def supcon(now: State) -> Tensor:
    if not now.positives:
        return now.cosine.sum() * 0
    sp, sn = logits(now)
    return (torch.logsumexp(torch.cat([sp, sn]), 0) - sp).mean()


def mass(now: State) -> Tensor:
    sp, sn = logits(now)
    return torch.logsumexp(torch.cat([sp, sn]), 0) - torch.logsumexp(sp, 0)


def debiased(tau_plus: Any = 0.1) -> Objective:
    """-log(e^p / (e^p + N g)), g = max((mean of w e^s - tau mean of w e^p) / (1 - tau), e^(-1/t)) (arXiv 2007.00224).

    The first positive is the numerator; all are in the correction, tilted by the beta of the negatives.
    """

    def objective(now: State) -> Tensor:
        sp, sn = logits(now)
        if not now.shown:
            return sp.sum() * 0
        tau, n = now.number(tau_plus), len(sn)
        correction = (1 + now.beta) * sp - torch.logsumexp(now.beta * sp, 0) + math.log(len(sp))
        top = float(torch.cat([sn, correction]).detach().max())
        raw = ((sn - top).exp().mean() - tau * (correction - top).exp().mean()) / (1 - tau)
        floor = -1 / now.temperature
        bound = raw.item() <= 0 or top + math.log(raw.item()) <= floor
        return torch.logaddexp(sp[0], math.log(n) + (sp[0] * 0 + floor if bound else top + raw.log())) - sp[0]

    return objective


def triplet(margin: Any = 0.2) -> Objective:
    def objective(now: State) -> Tensor:
        gap = now.cosine[now.shown] - now.positives[0] + now.number(margin)
        return gap.clamp(min=0).sum() / max(1, len(now.shown))

    return objective


# --- methods: Case -> B scalars --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chain:
    rules: tuple[Rule, ...]
    objective: Objective

    def left(self, case: Case) -> list[State]:
        """What the rules leave of each query's candidates."""
        before = after = [state(case, b) for b in range(len(case.query))]
        for rule in self.rules:  # most look at one query, some at the whole batch
            after = rule.batch(after) if hasattr(rule, "batch") else [rule(now) for now in after]
        if any(now.shown for now in before) and not any(now.shown for now in after):
            raise EveryQueryEmpty
        return after

    def __call__(self, case: Case) -> list[Tensor]:
        left = self.left(case)
        return self.objective.batch(left) if hasattr(self.objective, "batch") else [self.objective(now) for now in left]


@dataclass(frozen=True)
class Total:
    terms: tuple[tuple[Any, Any], ...]

    def __call__(self, case: Case) -> list[Tensor]:
        columns = [[(c(case.epoch) if callable(c) else c) * x for x in method(part)(case)] for c, part in self.terms]
        return [torch.stack(row).sum() for row in zip(*columns, strict=True)]


def method(part: Any) -> Chain | Total:
    """A bare objective is the chain of it alone."""
    return part if isinstance(part, Chain | Total) else Chain((), part)


# --- schedules: epoch -> number --------------------------------------------------------------------------------------


def after(epoch: float, value: float) -> Callable[[float], float]:
    return lambda now: value if now > epoch else 0


def ramp(start: float, end: float, epochs: float) -> Callable[[float], float]:
    return lambda now: start + (end - start) * min(now / epochs, 1)


def cosine_decay(start: float, end: float, epochs: float) -> Callable[[float], float]:
    return lambda now: end + (start - end) * (1 + math.cos(math.pi * min(now / epochs, 1))) / 2


# --- what the tests call ---------------------------------------------------------------------------------------------

PARTS = (window, hardest, easiest, nearest, farthest, above, semihard, cosine, support_max, support_mean, keep, drop)
PARTS += (attract, harden, infonce, supcon, mass, debiased, triplet, after, ramp, cosine_decay)
NAMES: dict[str, Any] = {part.__name__: part for part in PARTS}
NAMES |= {"same_class": same_class, "same_image": same_image, "given": given}
NAMES |= {"chain": lambda *parts: Chain(parts[:-1], parts[-1]), "total": lambda *terms: Total(terms)}


def read(text: str) -> Chain | Total:
    return method(eval(text, {"__builtins__": {}}, NAMES))


def losses(text: str, case: Case) -> Tensor:
    """The loss of each query, [B] float64, with graph."""
    return torch.stack(read(text)(case))


def left(text: str, case: Case) -> list[State]:
    """What the rules of the chain leave of each query's candidates."""
    chain = read(text)
    assert isinstance(chain, Chain)
    return chain.left(case)
