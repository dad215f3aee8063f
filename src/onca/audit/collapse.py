"""Whether the space has fallen together: variance of unit rows, cosine of different images, effective rank."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from onca.audit.check import Check, graded, report
from onca.audit.finding import Finding
from onca.audit.interval import mean
from onca.audit.sight import Sight
from onca.pool import unit

ROWS = 2048  # of a space that are looked at
STEPS = 8  # the last looks
POINT = 0.002  # variance of unit rows around their mean; 1 where they are spread evenly
LINE = 1.2  # effective rank
THIN = 0.05  # effective rank, as a share of the dimensions


class Spread(NamedTuple):
    """variance: 1 - |mean|^2 of unit rows. cosine: mean over pairs of rows. rank: exp(entropy of the shares that
    principal directions have of the variance) (RankMe, 2210.02885, on centred unit rows)."""

    variance: float
    cosine: float
    rank: float


def spread(rows: Tensor) -> Spread:
    """Of rows [N,D], of any length."""
    rows = unit(rows.detach().double())
    count, centre = len(rows), rows.mean(0)
    variance = float((rows - centre).square().sum(1).mean())
    cosine = (float(centre @ centre) * count - 1) / max(count - 1, 1)
    share = torch.linalg.eigvalsh((rows - centre).T @ (rows - centre)).clamp_min(0)
    share = share / share.sum().clamp_min(1e-300)
    return Spread(variance, cosine, float((-(share * share.clamp_min(1e-300).log()).sum()).exp()))


class Collapse(Check):
    """The queries of the last looks."""

    def __init__(self) -> None:
        self.seen: list[Spread] = []
        self.dim = self.rows = 0

    def see(self, look: Sight) -> None:
        query = look.pool.negatives.query
        if len(query) < 8:
            return
        self.seen = [*self.seen, spread(query[:ROWS])][-STEPS:]
        self.dim, self.rows = query.shape[1], min(len(query), ROWS)

    def findings(self) -> Iterator[Finding]:
        if not self.seen:
            yield Finding("collapse", "unknown", "fewer than 8 rows were seen at a time")
            return
        variance, cosine, rank = (mean(torch.tensor(values)) for values in zip(*self.seen, strict=True))
        said = (
            f"different images have a cosine of {cosine.number:.2f}, a variance of {variance.number:.2g} (of 1), and "
            f"vary in about {rank.number:.1f} of {self.dim} directions"
        )
        most = Spread(*(max(values) for values in zip(*self.seen, strict=True)))
        fallen = most.variance < POINT or most.rank < LINE
        thin = most.rank < max(2.0, THIN * min(self.dim, self.rows))
        why = "all images look alike to the encoder: the loss may still fall, and nothing is told apart"
        remedy = "infonce, with all negatives, as a check; then a lower --lr, a larger --batch or --temperature"
        details = {"variance": variance, "cosine": cosine, "rank": rank}
        count = len(self.seen) * self.rows
        yield report(
            "collapse", graded(fallen, thin), said, rank, count, "rows", why=why, remedy=remedy, details=details
        )
