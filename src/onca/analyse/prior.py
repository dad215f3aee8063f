"""How many negatives are false, without labels: from embeddings alone. New, in no paper. Q queries, N images.

Around the middle of a query's similarities, images that have nothing to do with it lie as often so much below as above;
what lies above beyond that is related to it. The anti-correlated side so tells how many unrelated images to expect on
the hard side (as decoys tell it of matches in a search): the excess is the estimate, over all entries `tau_plus`, in
one stretch of difficulty the share of false negatives there.

It sees what the space shows: classmates that look like strangers are in no excess, so that it is a lower bound while a
space is poor. Labels, where there are any, are put beside it and used for nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onca.analyse.space import Space
from onca.analyse.statistics import Floats, Interval, divided, interval, resample

CUTS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)  # percent from the hard end
DISTANCES = torch.linspace(0, 6, 61)[1:]  # from the middle, in deviations of the side below it
ROUNDS, SETTLED, SOME = 20, 1e-4, 256  # at most so often is the middle found anew, from so many queries
BLOCK = 128  # queries at a time
QUERIES, LEAST = 1000, 100


@dataclass(frozen=True)
class Share:
    """Of the hardest `percent` of negatives: the share that is false as estimated, and by labels (None: no labels)."""

    percent: float
    estimated: Interval
    labelled: Interval


@dataclass(frozen=True)
class Prior:
    """tau_plus: share of all negatives that are of the query's class, as estimated and by labels; `hardest`: the same
    within the hardest so many percent. Intervals resample the queries."""

    queries: int
    negatives: int
    tau_plus: Interval
    labelled: Interval
    hardest: tuple[Share, ...]


def prior(space: Space, *, queries: int = QUERIES, cuts: tuple[float, ...] = CUTS, seed: int = 0) -> Prior:
    """Estimates from queries drawn by `seed`, each against all other images.

    Raises:
        ValueError: too few images, a cut that is not within 0 to 100.
    """
    if len(space) < LEAST:
        raise ValueError(
            f"{space.source}: {len(space)} images are too few to tell related ones from chance; {LEAST} do"
        )
    if not cuts or not all(0 < cut <= 100 for cut in cuts):
        raise ValueError(f"cuts={cuts}: percent from the hard end, above 0 and up to 100")
    chosen = torch.randperm(len(space), generator=torch.Generator().manual_seed(seed))[:queries]
    others = len(space) - 1
    ranks = [max(1, round(others * cut / 100)) for cut in cuts]
    counts = _all_counts(space, chosen, ranks)
    drawn = resample(counts, seed)

    def estimated(column: slice, among: int) -> Interval:
        """The largest of the mean excesses in these columns, as a share of `among`."""
        value, values = counts["excess"][:, column].mean(0).max(), drawn["excess"][:, column].max(1) / len(chosen)
        return interval(max(float(value), 0.0) / among, values.clip(min=0) / among)

    def labelled(place: int, among: int) -> Interval:
        """By labels; queries without one are left out."""
        known = counts["known"].sum()
        if not known:
            return Interval(None)
        values = divided(drawn["same"][:, place], drawn["known"][:, 0])
        return interval(float(counts["same"][:, place].sum() / known) / among, values / among)

    return Prior(
        queries=len(chosen),
        negatives=others,
        tau_plus=estimated(slice(len(ranks), None), others),
        labelled=labelled(len(ranks), others),
        hardest=tuple(
            Share(cut, estimated(slice(place, place + 1), rank), labelled(place, rank))
            for place, (cut, rank) in enumerate(zip(cuts, ranks, strict=True))
        ),
    )


def _all_counts(space: Space, chosen: Tensor, ranks: list[int]) -> dict[str, Floats]:
    """`_counts` of all queries, with middles that fit the share of related entries that they give."""
    share = 0.0
    for _ in range(ROUNDS):
        parts = [_counts(space, rows, ranks, share) for rows in torch.split(chosen[:SOME], BLOCK)]
        found = np.concatenate([part["excess"] for part in parts])[:, len(ranks) :].mean(0).max() / (len(space) - 1)
        if abs(found - share) < SETTLED:
            break
        share = float(found)
    parts = [_counts(space, rows, ranks, share) for rows in torch.split(chosen, BLOCK)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def _counts(space: Space, rows: Tensor, ranks: list[int], share: float) -> dict[str, Floats]:
    """Of each query: excess among its hardest so many, then beyond each distance from the middle; same-class entries
    among its hardest so many, then among all; known: whether it has a label."""
    score = space.rows[rows] @ space.rows.T
    score[torch.arange(len(rows)), rows] = -torch.inf  # the query itself sorts first and is cut off
    ordered, place = score.sort(dim=1)
    ordered, place = ordered[:, 1:].contiguous(), place[:, 1:]
    count = ordered.shape[1]
    centre = ordered[:, int(count * (1 - share) / 2), None]  # of what is left without the related ones
    spread = (ordered - centre).clamp_max(0).square().sum(1, keepdim=True).div(count / 2).sqrt()
    edge = ordered[:, [count - rank for rank in ranks]].maximum(centre)  # below the middle there is no excess
    edge = torch.cat([edge, centre + spread * DISTANCES], 1)
    own = count - torch.searchsorted(ordered, edge)
    mirrored = torch.searchsorted(ordered, 2 * centre - edge, right=True)
    label = space.label[rows]
    known = label >= 0
    same = ((space.label[place] == label[:, None]) & known[:, None]).flip(1).cumsum(1)
    return {
        "excess": (own - mirrored).double().numpy(),
        "same": same[:, [rank - 1 for rank in (*ranks, count)]].double().numpy(),
        "known": known[:, None].double().numpy(),
    }
