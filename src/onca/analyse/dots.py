"""All dot products: their histogram, and how related pairs are at each. Figure 5 of 2010.06682. K steps."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onca.analyse.pairs import Ranked
from onca.analyse.statistics import divided, plain

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


class Dots:
    """Collects dot products, slice by slice."""

    def __init__(self) -> None:
        self.pairs, self.below, self.spread = 0, 0, 0.0
        self.low, self.high = torch.inf, -torch.inf
        self.kinds = np.zeros((4, STEPS))  # pairs of a class and covered, as bits
        self.labelled, self.depth = np.zeros(STEPS), np.zeros(STEPS)
        self.sums = np.zeros((2, 2))  # of labelled pairs: other class, same class; dot products, pairs

    def see(self, seen: Ranked, related: dict[str, Tensor]) -> None:
        score, same, covered = seen.score, related["same"], related["covered"]
        self.pairs += score.numel()
        self.below += int((score < 0).sum())
        self.low, self.high = min(self.low, float(score.min())), max(self.high, float(score.max()))
        self.spread += float((2 * SHARPNESS * (score - 1)).exp().sum(dtype=torch.float64))
        step = ((score + 1) * (STEPS / 2)).long().clamp_(0, STEPS - 1)
        kind = (same + 2 * covered).long() * STEPS + step
        self.kinds += torch.bincount(kind.flatten(), minlength=4 * STEPS).view(4, STEPS).numpy()
        self.labelled += _weighted(step, related["labelled"])
        self.depth += _weighted(step, related["lca_max"] * (1 - same))
        for place, chosen in enumerate((related["labelled"] - same, same)):
            self.sums[place] += float((score * chosen).sum(dtype=torch.float64)), float(chosen.sum(dtype=torch.float64))

    def histogram(self) -> Histogram:
        same, other = self.kinds[1] + self.kinds[3], self.kinds[2]
        return Histogram(
            edges=tuple(np.round(np.linspace(-1, 1, STEPS + 1), 2).tolist()),
            share=tuple((self.kinds.sum(0) / self.pairs).tolist()),
            same_class=_values(same, self.labelled) if self.labelled.any() else None,
            lca_max_other=_values(self.depth, other) if self.kinds[2:].any() else None,
        )

    @property
    def uniformity(self) -> float:
        """log of the mean over pairs of exp(-2 d^2), d their distance (2005.10242, eq. 2)."""
        return float(np.log(self.spread / self.pairs))

    def mean(self, same: bool) -> float | None:
        """Mean dot product of labelled pairs of one class, or of two."""
        total, count = self.sums[int(same)]
        return float(total / count) if count else None


def _weighted(step: Tensor, weights: Tensor) -> np.ndarray:
    return torch.bincount(step.flatten(), weights.flatten(), minlength=STEPS).double().numpy()


def _values(sums: np.ndarray, weights: np.ndarray) -> tuple[float | None, ...]:
    return tuple(plain(value) for value in divided(sums, weights).tolist())
