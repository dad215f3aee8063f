"""From values by seed to estimates, paired differences, verdicts and corrected tests.

Everything is in points (percent of test images) and a seed stands for one run. Two conditions that were run with the
same seed share their data order and their starting weights, so their difference is taken seed by seed: what the seed
did to both cancels. The unpaired t-test of 2010.06682 stands beside it, since that is what the paper reports.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, stdev, variance
from typing import Literal, get_args

from scipy import stats

Rule = Literal["suffices", "does not hurt", "accounts for", "worse", "helps"]
Outcome = Literal["shown", "not shown", "contradicted"]

CONFIDENCE = 0.95
MARGIN = 1.0  # points of top-1 that count as "no loss worth speaking of" (contract, section 7)


@dataclass(frozen=True)
class Estimate:
    """Mean of n values, their standard deviation (n - 1) and the 95 % t interval of the mean (None with one value)."""

    n: int
    mean: float
    sd: float | None
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Difference:
    """a - b, seed by seed. `left_out`: seeds that only one of the two has. `p`: unpaired t-test of all values."""

    estimate: Estimate
    by_seed: Mapping[int, float]
    left_out: tuple[int, ...]
    p: float | None


@dataclass(frozen=True)
class Verdict:
    """What an interval says about a claim, and why, in one sentence."""

    outcome: Outcome
    reason: str


def estimate(values: Sequence[float]) -> Estimate:
    """Mean, sd and t interval of values. Raises ValueError for no value or one that is not finite."""
    if not values:
        raise ValueError("no value to take a mean of: the condition has no finished run")
    if not all(math.isfinite(value) for value in values):
        raise ValueError(f"a result is not finite: {list(values)}; leave out the run that failed")
    n, centre = len(values), float(mean(values))
    if n == 1:
        return Estimate(1, centre, None, None, None)
    sd = float(stdev(values))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)) * sd / math.sqrt(n)
    return Estimate(n, centre, sd, centre - half, centre + half)


def difference(a: Mapping[int, float], b: Mapping[int, float]) -> Difference | None:
    """Paired difference a - b over the seeds that both have (value by seed), None when they share no seed."""
    paired = {seed: a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())}
    if not paired:
        return None
    p = unpaired_p(list(a.values()), list(b.values()))
    return Difference(estimate(list(paired.values())), paired, tuple(sorted(a.keys() ^ b.keys())), p)


def unpaired_p(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Two-sided p of Student's unpaired t-test with equal variances (2010.06682); None where it is not defined.

    It is not defined when either side has one value, nor when neither side varies at all.
    """
    if min(len(a), len(b)) < 2:
        return None
    freedom = len(a) + len(b) - 2
    pooled = ((len(a) - 1) * variance(a) + (len(b) - 1) * variance(b)) / freedom
    if pooled == 0:
        return None
    t = (mean(a) - mean(b)) / math.sqrt(pooled * (1 / len(a) + 1 / len(b)))
    return float(2 * stats.t.sf(abs(t), freedom))


def paired_p(differences: Sequence[float]) -> float | None:
    """Two-sided p of Student's paired t-test, from the differences; None where it is not defined.

    It is 1 where all differences are 0, and not defined for one difference or for several that are alike.
    """
    if len(differences) < 2:
        return None
    if not any(differences):
        return 1.0
    spread = stdev(differences)
    if spread == 0:
        return None
    t = mean(differences) / (spread / math.sqrt(len(differences)))
    return float(2 * stats.t.sf(abs(t), len(differences) - 1))


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down correction (1979): the adjusted p of each of m tests of one family, in their order.

    The i-th smallest p (i from 1) becomes the largest of (m - j + 1) p_j over j up to i, at most 1. Rejecting what is
    then at most alpha keeps the chance of any false rejection at alpha, however the tests depend on each other.
    """
    adjusted, so_far = [0.0] * len(ps), 0.0
    for place, test in enumerate(sorted(range(len(ps)), key=lambda test: ps[test])):
        so_far = max(so_far, min(1.0, (len(ps) - place) * ps[test]))
        adjusted[test] = so_far
    return adjusted


def verdict(rule: Rule, paired: Estimate) -> Verdict:
    """Judge a claim by the 95 % interval of a paired difference in points of linear top-1.

    =============  ===================  ====================  =========
    rule           shown                contradicted          otherwise
    =============  ===================  ====================  =========
    suffices       interval above -1    interval below -1     not shown
    does not hurt  interval above -1    interval below -1     not shown
    accounts for   interval within +-1  interval outside +-1  not shown
    worse          interval below 0     interval above 0      not shown
    helps          interval above 0     interval below 0      not shown
    =============  ===================  ====================  =========

    An interval that only touches a limit is not above, below or outside it; touching from inside is within.
    One seed gives no interval, so it shows nothing.
    """
    if rule not in get_args(Rule):
        raise ValueError(f"unknown rule {rule!r}: one of {', '.join(get_args(Rule))}")
    if paired.low is None or paired.high is None:
        return Verdict("not shown", "one seed: no interval, so nothing can be shown; run at least three seeds")
    low, high = paired.low, paired.high
    if rule == "accounts for":
        if low >= -MARGIN and high <= MARGIN:
            return Verdict("shown", f"the whole interval lies within ±{MARGIN:g} point")
        if low > MARGIN or high < -MARGIN:
            return Verdict("contradicted", f"the whole interval lies outside ±{MARGIN:g} point")
        return Verdict("not shown", f"the interval reaches beyond ±{MARGIN:g} point")
    limit = 0.0 if rule in ("worse", "helps") else -MARGIN
    name = "0" if limit == 0 else f"−{MARGIN:g} point"
    side = "above" if low > limit else "below" if high < limit else None
    if side is None:
        return Verdict("not shown", f"the interval does not exclude {name}")
    claimed = "below" if rule == "worse" else "above"
    return Verdict("shown" if side == claimed else "contradicted", f"the whole interval lies {side} {name}")
