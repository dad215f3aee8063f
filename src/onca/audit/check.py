"""What a check of the audit is, and how its findings put numbers into words."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from onca.audit.finding import Finding, Outcome
from onca.audit.interval import Estimate
from onca.audit.sight import Sight

RECENT = 1024  # queries of the last looks, where what counts is how things stand now


class Check:
    """Collects over looks, then finds."""

    def see(self, look: Sight) -> None:
        """A look at one pool of a step."""

    def findings(self) -> Iterator[Finding]:
        """What was found so far."""
        raise NotImplementedError  # abstract


def graded(alarm: bool, note: bool) -> Outcome:
    """alarm, or else note, or else fine."""
    return "alarm" if alarm else "note" if note else "fine"


def report(
    name: str,
    outcome: Outcome,
    sentence: str,
    number: Estimate | float | None,
    evidence: int,
    unit: str = "queries",
    *,
    why: str = "",
    remedy: str = "",
    details: Mapping[str, Estimate] | None = None,
) -> Finding:
    """A finding about an estimate. What is fine needs no remedy, and no reason."""
    share, low, high = number if isinstance(number, Estimate) else (number, None, None)
    if outcome == "fine":
        why = remedy = ""
    return Finding(name, outcome, sentence, share, low, high, why, remedy, evidence, unit, dict(details or {}))


class Column:
    """Numbers of queries, one row each, from look to look."""

    def __init__(self, keep: int | None = None) -> None:
        self.keep = keep
        self.blocks: list[Tensor] = []

    def add(self, values: Tensor) -> None:
        """values [b,...]"""
        self.blocks.append(values.detach().double().cpu())
        if self.keep:
            while len(self.blocks) > 1 and sum(map(len, self.blocks[1:])) >= self.keep:
                self.blocks.pop(0)

    @property
    def rows(self) -> Tensor:
        return torch.cat(self.blocks) if self.blocks else torch.zeros(0, dtype=torch.float64)

    def __len__(self) -> int:
        return sum(map(len, self.blocks))


def percent(share: float) -> str:
    """3.1 %, 41 %, 0.02 %: two digits that count."""
    value = 100 * share
    if math.isnan(value):
        return "none"
    if value == 0 or abs(value) >= 9.95:
        return f"{value:.0f} %"
    return f"{value:.{max(0, 1 - math.floor(math.log10(abs(value))))}f} %"


def between(found: Estimate) -> str:
    """3.1 % (2.2 to 4.4)."""
    if math.isnan(found.low):
        return percent(found.number)
    return f"{percent(found.number)} ({percent(found.low)} to {percent(found.high)})"


def bands(number: Tensor) -> Tensor:
    """How many entries of n [b] are the hardest 0.1 %, and the hardest 5 %: [b,2], one at least where there are any.

    Ranks are those of `hardest`: n(p) = floor(n p / 100 + 1/2).
    """
    wide = number.double()[:, None] * torch.tensor([0.001, 0.05], dtype=torch.float64, device=number.device)
    return torch.minimum((wide + 0.5).floor().clamp_min(1), number.double()[:, None]).long()


BANDS = ("hardest 0.1 %", "hardest 0.1 to 5 %", "the rest")


def by_band(score: Tensor, there: Tensor, values: Tensor) -> Tensor:
    """Sums of values [b,n] over the entries that are there, in three bands of difficulty: [b,3]."""
    if not score.shape[1]:
        return values.new_zeros(len(values), 3).double()
    edges, values = bands(there.sum(1)), torch.where(there, values, 0).double()
    most = max(1, int(edges.max()))  # no more than the hardest 5 % are put in order
    order = torch.where(there, score, -torch.inf).topk(most, dim=1).indices
    running = values.gather(1, order).cumsum(1)
    running = torch.cat([running.new_zeros(len(running), 1), running], 1)
    inner, outer = (running.gather(1, edges[:, place, None])[:, 0] for place in (0, 1))
    return torch.stack([inner, outer - inner, values.sum(1) - outer], 1)
