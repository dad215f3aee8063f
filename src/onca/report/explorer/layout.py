"""Where along difficulty negatives are shown. n negatives, ranked from 0 (the hardest) to n - 1."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch
from torch import Tensor

from onca.select import ranks

ENDS, BESIDE, MIDDLE = 8, 3, 4  # negatives shown at either end, on each side of an edge, and around the median
HARD = Fraction(5)  # percent: "consistently hard" counts how often an image is among the hardest so many (2010.06682)
CURVE = (0, 0.1, 0.3, 1, 2, 3.5, 5, 7.5, 10, 15, 20, 30, 40, 50)  # percent from either end, where similarity is drawn
ELSEWHERE = "elsewhere"


@dataclass(frozen=True)
class Zone:
    """Ranks that stand under one heading."""

    key: str
    title: str
    ranks: tuple[int, ...]


@dataclass(frozen=True)
class Edge:
    """The edge of a window: the negatives from `rank` on lie below `percent`."""

    percent: float
    rank: int


@dataclass(frozen=True)
class Layout:
    """What is shown of n negatives; an own class and near-duplicates stand `ELSEWHERE` where no zone holds them.

    hard: so many negatives are the hardest 5 %. curve: the ranks at which similarity is drawn.
    """

    negatives: int
    edges: tuple[Edge, ...]
    zones: tuple[Zone, ...]
    hard: int
    curve: tuple[int, ...]

    @property
    def ranks(self) -> list[int]:
        """All ranks of the zones, ascending."""
        return sorted({rank for zone in self.zones for rank in zone.ranks})

    def percentile(self, rank: Tensor) -> Tensor:
        """float64, 100 for the hardest: `window(low, high)` holds exactly low <= percentile < high."""
        return 100 * (1 - (rank.double() + 0.5) / self.negatives)

    def zone_of(self, rank: int) -> str:
        return next((zone.key for zone in self.zones if rank in zone.ranks), ELSEWHERE)


def layout(negatives: int, edges: Sequence[float]) -> Layout:
    """The zones of so many negatives; where they are few, a zone may be short, and zones may meet.

    Raises:
        ValueError: an edge that is not between 0 and 100.
    """
    astray = [edge for edge in edges if not 0 < edge < 100]
    if astray:
        raise ValueError(f"an edge is a percentile between 0 and 100 (100 is the hardest); got {astray[0]:g}")
    drawn = tuple(Edge(edge, first_below(negatives, Fraction(str(edge)))) for edge in sorted(set(edges), reverse=True))
    asked = [
        *((f"edge {edge.percent:g}", f"At the window's edge, {edge.percent:g} %", *around(edge.rank, BESIDE))
          for edge in drawn),
        ("hardest", "Hardest", 0, ENDS),
        ("median", "Median", *around(negatives // 2, MIDDLE // 2)),
        ("easiest", "Easiest", negatives - ENDS, negatives),
    ]  # fmt: skip
    zones = _apart([(key, title, range(max(0, start), min(negatives, end))) for key, title, start, end in asked])
    steps = {round((negatives - 1) * share / 100) for share in (*CURVE, *(100 - percent for percent in CURVE))}
    hard = first_below(negatives, 100 - HARD)
    return Layout(negatives, drawn, zones, hard, tuple(sorted(steps)))


def around(rank: int, beside: int) -> tuple[int, int]:
    """From so many before the rank up to so many from it on."""
    return rank - beside, rank + beside


def first_below(negatives: int, percent: Fraction) -> int:
    """How many of the negatives are harder than a percentile, as windows count them."""
    return int(ranks(torch.tensor([negatives]), 100 - percent))


def _apart(asked: Sequence[tuple[str, str, range]]) -> tuple[Zone, ...]:
    """Zones of keys, titles and ranks, each without the ranks of those before it; the hardest zone first."""
    taken: set[int] = set()
    zones = []
    for key, title, span in asked:
        left = tuple(rank for rank in span if rank not in taken)
        if left:
            zones.append(Zone(key, title, left))
            taken |= set(left)
    return tuple(sorted(zones, key=lambda zone: zone.ranks))
