"""What numbers over queries are worth: intervals by resampling queries, the t-test of 2010.06682, effect sizes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

DRAWS = 1000  # resamples behind an interval
BLOCK = 100  # of them at a time
CONFIDENCE = 0.95

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Interval:
    """A value, and its 95 % interval; None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class TTest:
    """Student's unpaired t-test with equal variances, two-sided, and Cohen's d; None where nothing varies."""

    effect: float | None
    t: float | None
    freedom: int
    p: float | None


def interval(value: float, drawn: Floats) -> Interval:
    """The value, with the middle 95 % of its resampled values; those that are not defined are left out."""
    if not math.isfinite(value):
        return Interval(None)
    finite = drawn[np.isfinite(drawn)]
    if not len(finite):
        return Interval(float(value))
    low, high = np.quantile(finite, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Interval(float(value), float(low), float(high))


def resample(fields: Mapping[str, NDArray[np.floating[Any]]], seed: int, draws: int = DRAWS) -> dict[str, Floats]:
    """Sums [draws,S] of each field [B,S] over B queries drawn anew, the same ones for all fields."""
    queries = len(next(iter(fields.values())))
    draw = np.random.default_rng(seed)
    narrow = {name: values.astype(np.float32, copy=False) for name, values in fields.items() if values.any()}
    found = {name: np.zeros((draws, values.shape[1])) for name, values in fields.items()}
    for start in range(0, draws, BLOCK):
        size = min(BLOCK, draws - start)
        times = np.stack([np.bincount(draw.integers(queries, size=queries), minlength=queries) for _ in range(size)])
        weights = times.astype(np.float32)
        for name, values in narrow.items():
            found[name][start : start + size] = weights @ values
    return found


def mean_interval(values: Floats, seed: int) -> Interval:
    """Mean of one value a query [B], nan where there is none, with its interval."""
    known = values[np.isfinite(values)]
    if not len(known):
        return Interval(None)
    drawn = resample({"values": known[:, None]}, seed)["values"][:, 0] / len(known)
    return interval(float(known.mean()), drawn)


def unpaired(a: Floats, b: Floats) -> TTest:
    """a against b; values that are not defined are left out."""
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    freedom = len(a) + len(b) - 2
    if min(len(a), len(b)) < 2:
        return TTest(None, None, freedom, None)
    pooled = math.sqrt(((len(a) - 1) * a.var(ddof=1) + (len(b) - 1) * b.var(ddof=1)) / freedom)
    if pooled <= 1e-12 * max(abs(a).max(), abs(b).max()):
        return TTest(None, None, freedom, None)
    effect = float(a.mean() - b.mean()) / pooled
    t = effect / math.sqrt(1 / len(a) + 1 / len(b))
    return TTest(effect, t, freedom, float(2 * stats.t.sf(abs(t), freedom)))


def divided(a: Floats, b: Floats) -> Floats:
    """a / b, nan where b is 0."""
    found = np.full(np.broadcast(a, b).shape, np.nan)
    np.divide(a, b, out=found, where=b != 0)
    return found


def plain(value: float) -> float | None:
    """The number, None where it is not defined."""
    return float(value) if math.isfinite(value) else None
