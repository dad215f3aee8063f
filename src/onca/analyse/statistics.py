"""What numbers over queries are worth: intervals by resampling queries, the t-test of 2010.06682, effect sizes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """A value, and its 95 % interval; None where it is not defined."""

    value: float | None
    low: float | None = None
    high: float | None = None
