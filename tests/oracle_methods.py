"""The methods of the literature, and the new ones, once more: query by query in float64, importing nothing of onca.

Adds names to those of `oracle`. What draws random numbers (mochi, sample) has oracles of its own beside its tests.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import oracle
import torch
from oracle import Chain, Objective, Rule, Selector, State, count_of, each

Tensor = torch.Tensor


# --- what is known beside the batch ----------------------------------------------------------------------------------


def external(source: str) -> oracle.Difficulty:
    """Cosine of the rows of the two images in a table of unit rows; an unknown image is the easiest."""

    def score(now: State, place: int) -> float:
        table, mine, theirs = now.case.external[source], now.own_index, now.index[place]
        return float(table[mine] @ table[theirs]) if mine >= 0 and theirs >= 0 else -1.0

    return score


def label_distance(now: State, place: int) -> float:
    mine, theirs = now.own_label, now.labels[place]
    return float(now.case.depth[mine, theirs]) if mine >= 0 and theirs >= 0 else -1.0


def _duplicate(now: State, place: int) -> bool:
    mine, theirs, group = now.own_index, now.index[place], now.case.duplicates
    return mine >= 0 and theirs >= 0 and mine != theirs and int(group[mine]) == int(group[theirs])


near_duplicate = each(_duplicate)


def reached(steps: int) -> Selector:
    def prepare(now: State) -> oracle.Test:
        found: set[int] = set()
        level = [now.own_index] if now.own_index >= 0 else []
        for _ in range(steps):
            level = [far for near in level for far in now.case.neighbours[near].tolist() if far >= 0]
            found |= set(level)
        found -= {now.own_index}
        return lambda place: now.index[place] >= 0 and now.index[place] in found

    return Selector(prepare)


# --- rules -----------------------------------------------------------------------------------------------------------


def ring(outer: float, inner: float, of: str = "all", neighbours: bool = False) -> Rule:
    """Ranks n(inner) <= r < n(outer); `of`: whether inner is a share of all or of the outer set (2010.02037)."""

    def rule(now: State) -> State:
        out = count_of(len(now.shown), outer)
        skip = count_of(out if of == "outer" else len(now.shown), inner)
        hard = sorted(now.shown, key=lambda place: (-oracle.cosine(now, place), place))
        more = [now.cosine[place] for place in sorted(hard[:skip])] if neighbours else []
        return replace(now, shown=hard[skip:out], positives=now.positives + more)

    return rule


def ball(outer: float) -> Rule:
    return ring(outer, 0)


def cancel(k: int = 10, threshold: float = 0.7, by: oracle.Difficulty = oracle.support_max) -> Rule:
    return oracle.drop(oracle.nearest(k, by) & oracle.above(threshold, by))


def mirror(chosen: Selector) -> Rule:
    """Of the chosen entries the sign of the cosine turns, for all that comes after."""

    def rule(now: State) -> State:
        test = chosen.prepare(now)
        turned = {place for place in now.shown if test(place)}
        sign = torch.tensor([-1.0 if place in turned else 1.0 for place in range(len(now.cosine))]).double()
        support = [[-s if place in turned else s for s in row] for place, row in enumerate(now.support)]
        return replace(now, cosine=now.cosine * sign, support=support)

    return rule


def own_views(close: int = 1, far: int = 1) -> Rule:
    """The views of the own image that score highest are more positives, those that score lowest more negatives."""

    def rule(now: State) -> State:
        views = now.views
        order = sorted(range(len(views)), key=lambda view: (-views[view].item(), view))
        near, away = order[:close], order[len(order) - far :]
        places = list(range(len(now.cosine), len(now.cosine) + len(away)))
        pad = [[math.nan] * len(views)] * len(away)
        return replace(
            now,
            cosine=torch.cat([now.cosine, torch.stack([views[view] for view in away])]) if away else now.cosine,
            support=now.support + pad,
            positives=now.positives + [views[view] for view in near],
            shown=now.shown + places,
        )

    return rule


# --- objectives ------------------------------------------------------------------------------------------------------


def aggregation(join: str = "logsumexp", positive_in_denominator: bool = True) -> Objective:
    def objective(now: State) -> Tensor:
        sp, sn = oracle.logits(now)
        if not now.shown:
            return sp.sum() * 0
        below = torch.cat([sp[:1], sn]) if positive_in_denominator else sn
        above = torch.logsumexp(sp, 0) if join == "logsumexp" else sp.mean()
        return torch.logsumexp(below, 0) - above

    return objective


def margin(boundary: float = 1.2, alpha: float = 0.2) -> Objective:
    """In distances of unit rows, d^2 = 2 - 2 cos (1706.07567, eq. 5)."""

    def objective(now: State) -> Tensor:
        if not now.shown:
            return now.positives[0] * 0
        near = (2 - 2 * now.positives[0]).sqrt()
        far = (2 - 2 * now.cosine[now.shown]).sqrt()
        return ((near - boundary + alpha).clamp(min=0) + (boundary - far + alpha).clamp(min=0)).mean()

    return objective


def nce(now: State) -> Tensor:
    """-[log P0 / (P0 + K/N + eps) + sum of log (K/N) / (Pk + K/N + eps)], P = e^s / Z (1805.01978)."""
    sp, sn = oracle.logits(now)
    if not now.shown:
        return sp.sum() * 0
    noise = len(now.shown) / now.case.population
    positive, negative = (s.exp() / float(now.case.normaliser) for s in (sp, sn))
    data = (positive / (positive + noise + 1e-7)).log().mean()
    return -data - (noise / (negative + noise + 1e-7)).log().sum()


# --- methods ---------------------------------------------------------------------------------------------------------


def hcl(beta: Any = 1, tau_plus: Any = 0.1) -> Chain:
    return Chain((oracle.harden(beta),), oracle.debiased(tau_plus))


def fnc(k: int = 10, threshold: float = 0.7, attraction: bool = True, by: Any = oracle.support_max) -> Chain:
    found = oracle.nearest(k, by) & oracle.above(threshold, by)
    if attraction:
        return Chain((oracle.attract(found),), oracle.supcon)
    return Chain((oracle.drop(found),), oracle.infonce)


class with_positives:
    """An objective's mean over the queries that have positives: B / their number times the loss of each."""

    def __init__(self, objective: Objective) -> None:
        self.objective = objective

    def batch(self, states: list[State]) -> list[Tensor]:
        has = [bool(now.positives) for now in states]
        share = len(has) / max(1, sum(has))
        return [
            self.objective(now) * share if there else now.cosine.sum() * 0
            for now, there in zip(states, has, strict=True)
        ]


def invp(k: int, steps: int, hardest: int, background: int, weight: float = 0.6, start: float = 0) -> Objective:
    """The paper's form: L_ins + weight L_inv, on sets without the own image (2010.11694); the warm-up is over.

    Rules before say which rows are negatives; what walks reach is a positive whatever they say.
    """

    def objective(now: State) -> Tensor:
        s = now.cosine / now.temperature
        order = sorted(range(len(s)), key=lambda place: (-oracle.cosine(now, place), place))
        near = [place for place in order if place in now.shown][:background]
        instance = oracle.infonce(replace(now, shown=near))
        inside = reached(steps).prepare(now)
        found = [place for place in order if inside(place)]
        if not found:
            return instance
        hard = found[max(0, len(found) - hardest) :]
        rest = [place for place in near if place not in found]
        return instance + weight * (torch.logsumexp(s[hard + rest], 0) - torch.logsumexp(s[hard], 0))

    return objective


# --- auto ------------------------------------------------------------------------------------------------------------


class auto:
    """Drops entries that are likely of the query's class: tau f+(z) / f(z) >= certainty, or harder than such.

    z counts deviations of the query's own negatives; f is standard normal, f+ normal with the moments of the positives
    of the batch; at most N tau / certainty go, or half. tau is lowered to what is seen beyond a deviation of f+.
    """

    def __init__(self, tau_plus: float, certainty: float) -> None:
        self.tau_plus, self.certainty = tau_plus, certainty

    def batch(self, states: list[State]) -> list[State]:
        scales = [self._scale(now) for now in states]
        told = [
            (p.item() - scale[0]) / scale[1]
            for now, scale in zip(states, scales, strict=True)
            if scale
            for p in now.positives
        ]
        centre = sum(told) / len(told)
        spread = math.sqrt(sum((z - centre) ** 2 for z in told) / len(told))
        z = [
            (oracle.cosine(now, place) - scale[0]) / scale[1]
            for now, scale in zip(states, scales, strict=True)
            if scale
            for place in now.shown
        ]
        beyond = sum(value >= centre + spread for value in z) / max(1, len(z))
        odds = min(self.tau_plus, beyond / 0.15865525393145707) / self.certainty
        limit = self._limit(centre, spread, odds)
        return [self._left(now, scale, limit, odds) for now, scale in zip(states, scales, strict=True)]

    def _scale(self, now: State) -> tuple[float, float] | None:
        values = [oracle.cosine(now, place) for place in now.shown]
        if not values:
            return None
        mean = sum(values) / len(values)
        spread = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
        return (mean, spread) if spread > 0 else None

    def _limit(self, centre: float, spread: float, odds: float) -> float:
        """By looking at every thousandth of a deviation, instead of solving for it."""
        if centre <= 0 or spread <= 0 or odds <= 0:
            return math.inf
        grid = [step / 1000 for step in range(-30_000, 30_001)]
        holds = [math.log(odds / spread) - ((z - centre) / spread) ** 2 / 2 + z * z / 2 >= 0 for z in grid]
        if spread <= 1:  # between two crossings, or from one on
            return next((z for z, there in zip(grid, holds, strict=True) if there), math.inf)
        return next((z for z, there in zip(grid[::-1], holds[::-1], strict=True) if not there), -math.inf)

    def _left(self, now: State, scale: tuple[float, float] | None, limit: float, odds: float) -> State:
        if scale is None:
            return now
        most = math.floor(len(now.shown) * min(odds, 0.5))
        order = sorted(now.shown, key=lambda place: (-oracle.cosine(now, place), place))
        gone = {p for p in order[:most] if (oracle.cosine(now, p) - scale[0]) / scale[1] >= limit}
        return replace(now, shown=[place for place in now.shown if place not in gone])


PARTS = (external, label_distance, reached, ring, ball, cancel, mirror, own_views, aggregation, margin, nce, hcl, fnc)
oracle.NAMES.update({part.__name__: part for part in PARTS})
oracle.NAMES.update({"near_duplicate": near_duplicate, "invp": invp, "auto": auto, "with_positives": with_positives})
