"""Relatedness by difficulty: Figures 4 and 5 of 2010.06682."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onca.analyse.statistics import Interval

Measure = Literal["same_class", "lca_max", "lca_min", "lca_max_other", "lca_min_other"]
Side = Literal["hardest", "easiest"]


@dataclass(frozen=True)
class Contrast:
    """One end of the negatives against the rest of them. Means are over pairs, intervals resample queries.

    measure        same_class: share of pairs of one class; lca_max, lca_min: mean depth of the lowest common ancestor,
                   over the pairs that the hierarchy covers; lca_max_other, lca_min_other: over those of two classes
    side, cut      the hardest or the easiest `cut` percent of each query's negatives
    rest           hardest: all others; easiest: all others but as many of the hardest
    end_value      mean of the measure in the end, and so on; `ratio` is end / rest
    effect         Cohen's d of the queries' means, with the pooled deviation
    t, freedom, p  Student's unpaired t-test of the queries' means (two-sided), as far as the paper tells its own
    p_percentiles  the same with percentiles of difficulty as the unit (5 against 95): the paper does not say which unit
                   it took; None where there are fewer than 100 negatives
    similarity     mean dot product of the end
    """

    measure: Measure
    side: Side
    cut: float
    end: Interval
    rest: Interval
    difference: Interval
    ratio: Interval
    effect: float | None
    t: float | None
    freedom: int
    p: float | None
    p_percentiles: float | None
    similarity: float


@dataclass(frozen=True)
class Histogram:
    """All pairs by their dot product, in steps of 0.01 from -1 to 1; None where a step holds no such pair.

    edges [K+1]; share of all pairs [K]; same_class, lca_max_other as in `Contrast` [K]
    """

    edges: tuple[float, ...]
    share: tuple[float, ...]
    same_class: tuple[float | None, ...] | None
    lca_max_other: tuple[float | None, ...] | None
