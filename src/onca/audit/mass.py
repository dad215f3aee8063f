"""Where loss and gradient come from, by group of negatives; queries on the floor of the debiased estimate."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from onca.audit.check import BANDS, Check, Column, between, by_band, graded, percent, report
from onca.audit.entries import Entries
from onca.audit.finding import Finding
from onca.audit.interval import mean, ratio
from onca.audit.sight import Sight

GROUPS = ("same class", "near-duplicates", "other")
FLOOR = 0.5  # share of queries: from there on the objective warns too


class Mass(Check):
    """Shares of exp(score / temperature), and of what pushes: the positive slopes of the loss by a negative's score."""

    def __init__(self) -> None:
        self.mass = Column()  # by query: groups, then bands
        self.push = Column()
        self.labels = False

    def see(self, look: Sight) -> None:
        left = look.left
        if not left.score.shape[1]:
            return
        self.mass.add(torch.cat([_groups(look, left, look.weight), by_band(left.score, left.there, look.weight)], 1))
        if look.pushes is not None:
            every, slope = look.pushes
            push = slope.clamp_min(0)
            self.push.add(torch.cat([_groups(look, every, push), by_band(every.score, every.there, push)], 1))
        self.labels |= bool(((left.label >= 0) & left.there).any() and (look.label >= 0).any())

    def findings(self) -> Iterator[Finding]:
        if not len(self.mass):
            yield Finding("loss mass", "unknown", "there were no negatives yet")
            return
        details = {}
        for what, column in (("mass", self.mass), ("gradient", self.push)):
            rows = column.rows
            for place, name in enumerate((*GROUPS, *BANDS) if len(rows) else ()):
                whole = rows[:, :3] if place < 3 else rows[:, 3:]
                details[f"{what}: {name}"] = ratio(rows[:, place], whole.sum(1))
        kind = "gradient" if len(self.push) and float(self.push.rows[:, :3].sum()) else "mass"
        hardest = details[f"{kind}: {BANDS[0]}"]
        said = f"the hardest 0.1 % of negatives make up {percent(hardest.number)} of the {kind}"
        number = hardest
        if self.labels:
            number = details[f"{kind}: same class"]
            said = f"{percent(number.number)} of the {kind} goes to negatives of the query's class; {said}"
        yield report("loss mass", "fine", said, number, len(self.mass), details=details)


def _groups(look: Sight, of: Entries, values: Tensor) -> Tensor:
    """Sums of values [b,n] over the entries of the query's class, over its near-duplicates, and over others: [b,3]."""
    duplicate = look.duplicate(of)
    double = torch.zeros_like(of.there) if duplicate is None else duplicate
    same = of.same("label", look.label) & ~double
    groups = [(values * mask).double().sum(1) for mask in (same, double, ~(same | double))]
    return torch.stack(groups, 1)


class Floor(Check):
    """Share of the queries for which the debiased estimate stands on its floor, as the objective noted it."""

    def __init__(self) -> None:
        self.shares = Column()

    def see(self, look: Sight) -> None:
        if "floor" in look.pool.notes:
            self.shares.add(torch.tensor([float(look.pool.notes["floor"])]))

    def findings(self) -> Iterator[Finding]:
        if not len(self.shares):
            return
        found = mean(self.shares.rows)
        said = f"{between(found)} of the queries stand on the floor of the debiased estimate"
        outcome = graded(found.low > FLOOR, found.number > 0.05)
        why = "there the estimate is a constant: negatives send no gradient, and only the positive pulls"
        remedy = "a higher --temperature, or a smaller tau_plus: debiased(0.01)"
        yield report("floor", outcome, said, found, len(self.shares), "steps", why=why, remedy=remedy)
