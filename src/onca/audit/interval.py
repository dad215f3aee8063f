"""95 % intervals of what the audit counts. Each says over what: queries, or steps."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

Z = 1.959963984540054  # of a normal distribution, 97.5 % below
DRAWS = 1000  # of a bootstrap


class Estimate(NamedTuple):
    """A number and its 95 % interval."""

    number: float
    low: float
    high: float


def wilson(hits: int, count: int) -> Estimate:
    """A share of `count` independent queries, by Wilson's score interval; (0, 0, 1) of none."""
    if not count:
        return Estimate(0.0, 0.0, 1.0)
    share, square = hits / count, Z * Z / count
    middle = (share + square / 2) / (1 + square)
    half = Z / (1 + square) * math.sqrt(share * (1 - share) / count + square / (4 * count))
    return Estimate(share, max(0.0, middle - half), min(1.0, middle + half))


def ratio(above: Tensor, below: Tensor) -> Estimate:
    """sum(above) / sum(below) over queries [n], resampling whole queries; nan where nothing stands below."""
    above, below = above.double().cpu(), below.double().cpu()
    total = float(below.sum())
    if not total:
        return Estimate(math.nan, math.nan, math.nan)
    draw = torch.Generator().manual_seed(len(below))
    rows = torch.randint(len(below), (DRAWS, len(below)), generator=draw)
    found = above[rows].sum(1) / below[rows].sum(1)
    low, high = torch.nanquantile(found, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Estimate(float(above.sum()) / total, low, high)


def mean(values: Tensor) -> Estimate:
    """The mean of numbers [n], one a query or a step, resampling them; nan of none."""
    return ratio(values, torch.ones_like(values, dtype=torch.float64))
