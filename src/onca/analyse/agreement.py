"""Is the same pair as difficult in another space: after another epoch, seed or condition, or in raw pixels?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onca.analyse.consistency import hardest_and_easiest, rank_correlation
from onca.analyse.pairs import Pairs, Ranked, choose, ranked
from onca.analyse.space import Space
from onca.analyse.statistics import Interval, mean_interval

Watch = Callable[[int, int], None]  # queries done, of how many


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
    watch: Watch | None = None,
) -> tuple[Agreement, ...]:
    """Each space with each later one, on the images that all of them hold. queries, negatives: as in `analyse`.

    Of scores that are equal the first counts as the harder one. Needs no labels.

    Raises:
        ValueError: fewer than two spaces, images of different sources, an index that occurs twice, fewer than three
            images in common.
    """
    if len(spaces) < 2:
        raise ValueError(f"agreement is between two spaces or more; got {len(spaces)}")
    common = _common(spaces)
    return agreement_on(choose(common[0], queries, negatives, "all", seed), common, seed, watch)


def agreement_on(pairs: Pairs, spaces: Sequence[Space], seed: int, watch: Watch | None = None) -> tuple[Agreement, ...]:
    """The same for spaces that hold the same images in the same rows."""
    couples = list(combinations(range(len(spaces)), 2))
    found = np.zeros((len(couples), 3, len(pairs.query)))  # rank, hardest, easiest, of each query
    hits = np.zeros((len(spaces), len(pairs.negative)), dtype=np.int64)
    done = 0
    for several in zip(*(ranked(pairs.among(space)) for space in spaces), strict=True):
        first = hardest_and_easiest(several[0].place.shape[1])[0]
        for place, seen in enumerate(several):
            hard = seen.place[:, :first].flatten()
            hits[place] += torch.bincount(hard, minlength=hits.shape[1]).numpy()
        rank = [_ranks(seen, len(pairs.negative)) for seen in several]
        for couple, (a, b) in enumerate(couples):
            found[couple][:, several[0].query.numpy()] = _alike(rank[a], rank[b], several[a].place.shape[1])
        done += len(several[0].query)
        if watch:
            watch(done, len(pairs.query))
    return tuple(
        Agreement(
            first=spaces[a].source,
            second=spaces[b].source,
            first_epoch=spaces[a].epoch,
            second_epoch=spaces[b].epoch,
            queries=len(pairs.query),
            negatives=len(pairs.negative),
            rank=mean_interval(values[0], seed),
            hardest=mean_interval(values[1], seed),
            easiest=mean_interval(values[2], seed),
            frequency=rank_correlation(hits[a], hits[b]),
        )
        for (a, b), values in zip(couples, found, strict=True)
    )


def _ranks(seen: Ranked, negatives: int) -> Tensor:
    """The rank of each negative, int32 [b,N]; -1 where it is no negative of the query."""
    rank = torch.full((len(seen.query), negatives), -1, dtype=torch.int32)
    order = torch.arange(seen.place.shape[1], dtype=torch.int32)
    return rank.scatter_(1, seen.place, order.expand(len(seen.query), -1))


def _alike(a: Tensor, b: Tensor, count: int) -> NDArray[np.float64]:
    """Spearman's correlation, and shares of the hardest and the easiest in common, [3,b]; nan where there are none."""
    first, last = hardest_and_easiest(count)
    apart = (a - b).double().square().sum(1)
    rank = 1 - 6 * apart / (count * (count**2 - 1)) if count > 1 else torch.full_like(apart, torch.nan)
    hardest = ((a < first) & (b < first) & (a >= 0)).sum(1) / first if first else torch.full_like(apart, torch.nan)
    easiest = ((a >= last) & (b >= last)).sum(1) / (count - last) if last < count else torch.full_like(apart, torch.nan)
    return torch.stack([rank, hardest.double(), easiest.double()]).numpy()


def _common(spaces: Sequence[Space]) -> list[Space]:
    """The spaces with only the images that all of them hold, in the order of the first."""
    sources = sorted({space.images.source for space in spaces if space.images is not None})
    if len(sources) > 1:
        raise ValueError(f"images of {' and of '.join(sources)}: difficulty is compared on the same images")
    index = spaces[0].index
    for space in spaces:
        if len(torch.unique(space.index)) < len(space):
            raise ValueError(f"{space.source}: an image's index occurs twice, so rows cannot be matched to images")
        index = index[torch.isin(index, space.index)]
    if len(index) < 3:
        raise ValueError(f"the spaces have {len(index)} images in common (by index): three or more are needed")
    return [_rows_of(space, index) for space in spaces]


def _rows_of(space: Space, index: Tensor) -> Space:
    if torch.equal(space.index, index):
        return space
    order = space.index.argsort()
    rows = order[torch.searchsorted(space.index[order], index)]
    images = space.images and space.images.subset(rows)
    return replace(space, rows=space.rows[rows], index=index, label=space.label[rows], images=images, views=None)
