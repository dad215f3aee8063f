"""Are some negatives hard for many queries? Figure 6 of 2010.06682."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class HardFrequency:
    """For how many of the queries each negative is among the hardest 5 percent, as a share of queries.

    std_expected_by_chance  if every query's negatives were shuffled: the deviation of a binomial
    std_shuffled            the same from one shuffle that was really made; `shuffled` is its histogram
    variance_ratio          variance over that expected by chance; statistic, freedom, p: Cochran's Q of it, chi-squared
    std_excess              deviation that is left when chance is taken off: sqrt(std^2 - chance^2), 0 where none is
    split_half              rank correlation of the frequencies among even and among odd queries
    edges, share, shuffled  histogram of the frequency: edges [K+1], share of negatives [K]
    frequency [N]           of each negative; easy [N]: among the easiest 5 percent; percentile [N]: mean difficulty,
                            0 easiest to 100 hardest
    hardest, easiest        rows (of the space) that are most often hard, most often easy
    """

    mean: float
    median: float
    std: float
    max: float
    zero_share: float
    std_expected_by_chance: float
    std_shuffled: float
    variance_ratio: float
    statistic: float
    freedom: int
    p: float
    std_excess: float
    split_half: float | None
    edges: tuple[float, ...]
    share: tuple[float, ...]
    shuffled: tuple[float, ...]
    frequency: tuple[float, ...]
    easy: tuple[float, ...]
    percentile: tuple[float, ...]
    hardest: tuple[int, ...]
    easiest: tuple[int, ...]
