"""All dot products: their histogram, and how related pairs are at each. Figure 5 of 2010.06682. K steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onca.analyse.pairs import Ranked
from onca.analyse.statistics import Floats, divided, plain

STEPS = 200  # of 0.01, from -1 to 1
SHARPNESS = 2.0  # t of uniformity, exp(-t d^2)


@dataclass(frozen=True)
class Histogram:
    """All pairs by their dot product, in steps of 0.01 from -1 to 1; None where a step holds no such pair.

    edges [K+1]; share of all pairs [K]; same_class, lca_max_other as in `Contrast` [K], None without labels, hierarchy
    """

    edges: tuple[float, ...]
    share: tuple[float, ...]
    same_class: tuple[float | None, ...] | None
    lca_max_other: tuple[float | None, ...] | None


@dataclass(frozen=True, eq=False)
class Steps:
    """Runs of entries [R] of a slice, row by row, that lie in one step of the histogram each."""

    begin: NDArray[np.int64]
    width: NDArray[np.int64]
    step: NDArray[np.int64]

    def sums(self, values: Tensor) -> NDArray[np.float64]:
        """Sums of the values [b,n] by step [K]. Whole numbers below 2^24 in a run stay exact."""
        runs = np.add.reduceat(values.flatten().numpy(), self.begin)
        return np.bincount(self.step, runs, STEPS).astype(np.float64)


class Dots:
    """Collects dot products, slice by slice."""

    def __init__(self) -> None:
        self.pairs, self.below, self.spread = 0, 0, 0.0
        self.low, self.high = torch.inf, -torch.inf
        self.edges = torch.linspace(-1, 1, STEPS + 1, dtype=torch.float64).float()
        self.count, self.labelled, self.same, self.other, self.depth = np.zeros((5, STEPS))
        self.dots = 0.0, 0.0  # sums of dot products: of labelled pairs, of those within a class

    def see(self, seen: Ranked, related: dict[str, Tensor]) -> None:
        score, same = seen.score, related["same"]
        self.pairs += score.numel()
        self.below += int((score < 0).sum())
        self.low, self.high = min(self.low, float(score.min())), max(self.high, float(score.max()))
        self.spread += float((2 * SHARPNESS * (score - 1)).exp().sum(1, dtype=torch.float64).sum())
        steps = self._steps(score)
        self.count += np.bincount(steps.step, steps.width, STEPS)
        for sums, values in (
            (self.labelled, related["labelled"]),
            (self.same, same),
            (self.other, related["covered"] * (1 - same)),
            (self.depth, related["lca_max"] * (1 - same)),
        ):
            sums += steps.sums(values)
        labelled, within = self.dots
        self.dots = labelled + _dot(score, related["labelled"]), within + _dot(score, same)

    def _steps(self, score: Tensor) -> Steps:
        """Where in each row a step of the histogram begins: rows descend, so a step is a run of entries."""
        inner = self.edges[1:-1].flip(0)  # what lies beyond an outer edge by rounding is in the outer step
        first = torch.searchsorted(-score, -inner.expand(len(score), -1).contiguous(), right=True)
        rows, count = score.shape
        begin = torch.cat([torch.zeros(rows, 1, dtype=torch.int64), first], 1)
        width = torch.diff(begin, dim=1, append=torch.full((rows, 1), count))
        held = width > 0
        begin += torch.arange(0, rows * count, count)[:, None]
        step = (STEPS - 1 - torch.arange(STEPS)).expand(rows, -1)
        return Steps(begin[held].numpy(), width[held].numpy(), step[held].numpy())

    def histogram(self) -> Histogram:
        return Histogram(
            edges=tuple(np.round(np.linspace(-1, 1, STEPS + 1), 2).tolist()),
            share=tuple((self.count / self.pairs).tolist()),
            same_class=_values(self.same, self.labelled) if self.labelled.any() else None,
            lca_max_other=_values(self.depth, self.other) if self.other.any() else None,
        )

    @property
    def uniformity(self) -> float:
        """log of the mean over pairs of exp(-2 d^2), d their distance (2005.10242, eq. 2)."""
        return float(np.log(self.spread / self.pairs))

    def mean(self, same: bool) -> float | None:
        """Mean dot product of labelled pairs of one class, or of two."""
        labelled, within = self.dots
        all_pairs, pairs = float(self.labelled.sum()), float(self.same.sum())
        total, count = (within, pairs) if same else (labelled - within, all_pairs - pairs)
        return total / count if count else None


def _dot(score: Tensor, weights: Tensor) -> float:
    return float(torch.linalg.vecdot(score, weights).sum(dtype=torch.float64))


def _values(sums: Floats, weights: Floats) -> tuple[float | None, ...]:
    return tuple(plain(value) for value in divided(sums, weights).tolist())
