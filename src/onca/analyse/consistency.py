"""Are some negatives hard for many queries? Figure 6 of 2010.06682. B queries, N negatives, K steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats

from onca.analyse.pairs import Pairs, Ranked
from onca.analyse.segments import ranks
from onca.analyse.statistics import plain

HARD = 5  # percent
STEP = 0.005  # of the histogram, as a share of queries
LISTED = 12


@dataclass(frozen=True)
class HardFrequency:
    """For how many of the queries each negative is among the hardest 5 percent, as a share of queries.

    std_expected_by_chance  if every query's negatives were shuffled, a frequency is binomial: its deviation
    variance_ratio          variance over that expected by chance; statistic, freedom, p: Cochran's Q, chi-squared
    std_excess              deviation that is left when chance is taken off: sqrt(std^2 - chance^2), 0 where none is
    split_half              rank correlation of the frequencies among two halves of the queries, drawn at random
    edges, share, shuffled  histogram: edges [K+1], share of negatives [K], and the share expected under shuffling [K]
    rows                    of the space that the negatives are [N]
    frequency               of each [N]; easy: share of queries that have it among their easiest 5 percent [N];
                            percentile: its mean difficulty, 0 easiest to 100 hardest [N]
    hardest, easiest        rows of the space that are most often hard, most often easy
    """

    mean: float
    median: float
    std: float
    max: float
    zero_share: float
    std_expected_by_chance: float
    variance_ratio: float | None
    statistic: float | None
    freedom: int
    p: float | None
    std_excess: float
    split_half: float | None
    edges: tuple[float, ...]
    share: tuple[float, ...]
    shuffled: tuple[float, ...]
    rows: tuple[int, ...]
    frequency: tuple[float, ...]
    easy: tuple[float, ...]
    percentile: tuple[float, ...]
    hardest: tuple[int, ...]
    easiest: tuple[int, ...]


class Frequencies:
    """Collects how often each negative is hard and easy, slice by slice."""

    def __init__(self, pairs: Pairs) -> None:
        count = len(pairs.negative)
        self.pairs = pairs
        self.hard = torch.zeros(2, count, dtype=torch.int64)  # among the queries of each half
        # Drawn: where classes take turns in a file, a class would be in one half and its own negatives with it.
        self.half = torch.randperm(len(pairs.query), generator=torch.Generator().manual_seed(0)) % 2
        self.easy = torch.zeros(count, dtype=torch.int64)
        self.difficulty = torch.zeros(count, dtype=torch.float64)

    def see(self, seen: Ranked) -> None:
        number = seen.place.shape[1]
        first, last = hardest_and_easiest(number)
        for half in range(2):
            chosen = seen.place[self.half[seen.query] == half, :first]
            self.hard[half] += torch.bincount(chosen.flatten(), minlength=len(self.easy))
        self.easy += torch.bincount(seen.place[:, last:].flatten(), minlength=len(self.easy))
        worth = torch.linspace(100, 0, number, dtype=torch.float64) if number > 1 else torch.full((1,), 50.0).double()
        self.difficulty.scatter_add_(0, seen.place.flatten(), worth.repeat(len(seen.query)))

    def found(self) -> HardFrequency:
        asked, expected, variance = _by_chance(self.pairs)
        times = self.hard.sum(0).numpy()
        frequency = times / np.maximum(asked, 1)
        chance = float(np.sqrt((variance / np.maximum(asked, 1) ** 2).mean()))
        edges, share, shuffled = _histogram(self.pairs, frequency, asked)
        percentile = self.difficulty.numpy() / np.maximum(asked, 1)
        easy = self.easy.numpy() / np.maximum(asked, 1)
        freedom = len(times) - 1
        vary = bool((variance > 0).all()) and freedom > 0
        ratio = float(((times - expected) ** 2 / variance).mean()) if vary else math.nan
        statistic = ratio * freedom
        rows = self.pairs.negative.numpy()
        return HardFrequency(
            mean=float(frequency.mean()),
            median=float(np.median(frequency)),
            std=float(frequency.std()),
            max=float(frequency.max()),
            zero_share=float((times == 0).mean()),
            std_expected_by_chance=chance,
            variance_ratio=plain(ratio),
            statistic=plain(statistic),
            freedom=freedom,
            p=plain(float(stats.chi2.sf(statistic, freedom))) if vary else None,
            std_excess=math.sqrt(max(0.0, float(frequency.var()) - chance**2)),
            split_half=rank_correlation(*self.hard.numpy()),
            edges=edges,
            share=share,
            shuffled=shuffled,
            rows=tuple(rows.tolist()),
            frequency=tuple(frequency.round(6).tolist()),
            easy=tuple(easy.round(6).tolist()),
            percentile=tuple(percentile.round(3).tolist()),
            hardest=tuple(rows[np.lexsort((-percentile, -frequency))[:LISTED]].tolist()),
            easiest=tuple(rows[np.lexsort((percentile, -easy))[:LISTED]].tolist()),
        )


def hardest_and_easiest(count: int) -> tuple[int, int]:
    """How many of so many ranks are among the hardest 5 percent, and where the easiest 5 percent begin."""
    first, last = ranks((Fraction(HARD), Fraction(100 - HARD)), count).tolist()
    return first, last


def rank_correlation(a: NDArray[np.int64], b: NDArray[np.int64]) -> float | None:
    """Spearman's, equal values sharing their mean rank; None where either does not vary."""
    if len(a) < 3 or (a == a[0]).all() or (b == b[0]).all():
        return None
    return float(np.corrcoef(stats.rankdata(a), stats.rankdata(b))[0, 1])


def _by_chance(pairs: Pairs) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Queries that each negative is put to, and mean and variance of how often it is hard under shuffling, [N] each."""
    count = len(pairs.negative)
    asked, expected, variance = np.zeros(count, dtype=np.int64), np.zeros(count), np.zeros(count)
    for own in torch.unique(pairs.own).tolist():
        group = pairs.query[pairs.own == own]
        times = len(group) - _own_queries(pairs, group)
        present = count - own
        chance = hardest_and_easiest(present)[0] / max(present, 1)
        asked += times
        expected += times * chance
        variance += times * chance * (1 - chance)
    return asked, expected, variance


def _own_queries(pairs: Pairs, group: torch.Tensor) -> NDArray[np.int64]:
    """How many of these queries are of each negative's image [N]."""
    index = pairs.space.index
    known, times = torch.unique(index[group], return_counts=True)
    held = index[pairs.negative]
    place = torch.searchsorted(known, held).clamp_max(len(known) - 1)
    return torch.where(known[place] == held, times[place], 0).numpy()


def _histogram(
    pairs: Pairs, frequency: NDArray[np.float64], asked: NDArray[np.int64]
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Edges, share of negatives, and the share that binomials give; steps hold equally many possible counts."""
    most, count = int(asked.max()), len(pairs.negative)
    width = max(1, round(STEP * most))
    reach = round(float(frequency.max()) * most) + 2 * width
    edges = (np.arange(0, reach + width, width) - 0.5) / most
    share = np.histogram(frequency, edges)[0] / count
    chance = hardest_and_easiest(int(pairs.present.min()))[0] / max(int(pairs.present.min()), 1)
    below = stats.binom.cdf(np.floor(edges * most), most, chance)
    return tuple(edges.round(6).tolist()), tuple(share.tolist()), tuple(np.diff(below).tolist())
