"""Is the same pair as difficult in another space: after another epoch, seed or condition, or in raw pixels?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from onca.analyse.space import Space
from onca.analyse.statistics import Interval


@dataclass(frozen=True)
class Agreement:
    """How far two spaces of the same images agree on difficulty. Intervals resample queries.

    rank       mean over queries of Spearman's correlation of the difficulty of the same negatives
    hardest    share of the hardest 5 percent in `first` that are so in `second` (by chance: 5 percent)
    easiest    the same with the easiest 5 percent
    frequency  rank correlation over negatives of how often each is hard
    """

    first: str
    second: str
    first_epoch: float | None
    second_epoch: float | None
    queries: int
    negatives: int
    rank: Interval
    hardest: Interval
    easiest: Interval
    frequency: float | None


def agreements(
    spaces: Sequence[Space],
    *,
    queries: Tensor | int | None = None,
    negatives: Tensor | int | None = None,
    seed: int = 0,
) -> tuple[Agreement, ...]:
    """Each space with each later one, on the images that all of them hold. queries, negatives: as in `analyse`.

    Raises:
        ValueError: fewer than two spaces, fewer than three images in common.
    """
    raise NotImplementedError
