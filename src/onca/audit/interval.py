"""95 % intervals of what the audit counts. Each says over what: queries, or steps."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

Z = 1.959963984540054  # of a normal distribution, 97.5 % below


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
    low, high = middle - half if hits else 0.0, middle + half if hits < count else 1.0
    return Estimate(share, low, high)


def ratio(above: Tensor, below: Tensor) -> Estimate:
    """sum(above) / sum(below) over queries [n], nan where nothing stands below.

    The interval is linearised: queries are independent, the entries of one query are not, and count as one.
    """
    above, below = above.double().cpu(), below.double().cpu()
    total, count = float(below.sum()), len(below)
    if not total:
        return Estimate(math.nan, math.nan, math.nan)
    share = float(above.sum()) / total
    if count < 2:
        return Estimate(share, math.nan, math.nan)
    square = float((above - share * below).square().sum()) * count / (count - 1)
    half = _t(count - 1) * math.sqrt(square) / total
    return Estimate(share, share - half if bool((above < 0).any()) else max(0.0, share - half), share + half)


def mean(values: Tensor) -> Estimate:
    """The mean of numbers [n], one a query or a step; nan of none."""
    return ratio(values, torch.ones_like(values, dtype=torch.float64))


def _t(freedom: int) -> float:
    """The 97.5 % point of Student's distribution, to the second order in 1 / freedom; 0.02 off at 3 degrees."""
    first, second = (Z**3 + Z) / 4, (5 * Z**5 + 16 * Z**3 + 3 * Z) / 96
    return Z + first / freedom + second / freedom**2
