"""Relatedness by difficulty: Figures 4 and 5 of 2010.06682. B queries."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import Literal

import numpy as np

from onca.analyse.segments import MEASURES, Segments, over
from onca.analyse.statistics import Floats, Interval, divided, interval, unpaired

Measure = Literal["same_class", "lca_max", "lca_min", "lca_max_other", "lca_min_other"]
Side = Literal["hardest", "easiest"]
Values = tuple[float | None, ...]


@dataclass(frozen=True)
class Contrast:
    """One end of the negatives against the rest of them. Means are over pairs, intervals resample queries.

    measure        same_class: share of pairs of one class; lca_max, lca_min: mean depth of the lowest common ancestor,
                   over the pairs that the hierarchy covers; lca_max_other, lca_min_other: over those of two classes
    side, cut      the hardest or the easiest `cut` percent of each query's negatives
    rest           hardest: all others; easiest: all others but as many of the hardest
    ratio          end / rest
    effect         Cohen's d of the queries' means, with the pooled deviation
    t, freedom, p  Student's unpaired t-test of the queries' means (two-sided)
    p_percentiles  the same with the 100 percentiles of difficulty as the unit (5 against 95, say): the paper names the
                   test and not its unit. None where there are fewer than 100 negatives, or the cut splits a percentile
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
    similarity: float | None


@dataclass(frozen=True, eq=False)
class Difficulty:
    """Sums of all queries and the same resampled, from which every curve and contrast is read."""

    segments: Segments
    drawn: dict[str, Floats]  # [draws,S] each

    @cached_property
    def total(self) -> dict[str, Floats]:
        """Sums over all queries [1,S]."""
        return {name: field.sum(0, keepdims=True, dtype=np.float64) for name, field in self.segments.fields.items()}

    def measures(self) -> tuple[str, ...]:
        """Those for which there are labels or a hierarchy."""
        there = {"similarity": True, "same_class": bool(self.total["labelled"].any())}
        return tuple(name for name in MEASURES if there.get(name, bool(self.total["covered"].any())))

    def mean(self, measure: str, parts: slice) -> tuple[Interval, Floats]:
        """Over all pairs in some parts of the grid, with its resampled values [draws]."""
        (value,), drawn = (divided(*over(fields, measure, parts)) for fields in (self.total, self.drawn))
        return interval(value, drawn), drawn

    def by_query(self, measure: str, parts: slice) -> Floats:
        """The mean of each query [B], nan where it has no such pair."""
        return divided(*over(self.segments.fields, measure, parts))

    def curve(self, measure: str, bins: int) -> tuple[Interval, ...]:
        """By bin, easiest first."""
        return tuple(self.mean(measure, part)[0] for part in self._bins(bins))

    def percentiles(self, measure: str) -> Floats:
        """By percentile [100], easiest first."""
        return np.concatenate([divided(*over(self.total, measure, part)) for part in self._bins(100)])

    def _bins(self, bins: int) -> list[slice]:
        edges = [Fraction(100 * place, bins) for place in range(bins, -1, -1)]
        return [self.segments.part(low, high) for high, low in pairwise(edges)]

    def contrast(self, measure: Measure, side: Side, cut: float) -> tuple[Contrast, Floats]:
        """One end against the rest, and the resampled values [draws] of their difference."""
        ends, others = self._ends(side, cut)
        (end, end_drawn), (rest, rest_drawn) = self.mean(measure, ends), self.mean(measure, others)
        test = unpaired(self.by_query(measure, ends), self.by_query(measure, others))
        difference = end_drawn - rest_drawn
        contrast = Contrast(
            measure=measure,
            side=side,
            cut=cut,
            end=end,
            rest=rest,
            difference=interval(_less(end, rest), difference),
            ratio=interval(_over(end, rest), divided(end_drawn, rest_drawn)),
            effect=test.effect,
            t=test.t,
            freedom=test.freedom,
            p=test.p,
            p_percentiles=self._p_percentiles(measure, side, cut),
            similarity=self.mean("similarity", ends)[0].value,
        )
        return contrast, difference

    def _ends(self, side: Side, cut: float) -> tuple[slice, slice]:
        far = 100 - Fraction(str(cut))
        if side == "hardest":
            return self.segments.part(0, cut), self.segments.part(cut, 100)
        return self.segments.part(far, 100), self.segments.part(cut, far)

    def _p_percentiles(self, measure: str, side: Side, cut: float) -> float | None:
        if not float(cut).is_integer() or int(self.segments.fields["count"].sum(1).min()) < 100:
            return None
        values, far = self.percentiles(measure)[::-1], int(cut)
        end, rest = (values[:far], values[far:]) if side == "hardest" else (values[-far:], values[far:-far])
        return unpaired(end, rest).p


def values(curve: Sequence[Interval]) -> Values:
    return tuple(point.value for point in curve)


def bounds(curve: Sequence[Interval]) -> tuple[Values, Values]:
    """Low and high of a curve."""
    return tuple(point.low for point in curve), tuple(point.high for point in curve)


def _less(a: Interval, b: Interval) -> float:
    return float("nan") if a.value is None or b.value is None else a.value - b.value


def _over(a: Interval, b: Interval) -> float:
    return float("nan") if a.value is None or not b.value else a.value / b.value
