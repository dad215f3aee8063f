"""How many negatives are false, without labels: from embeddings alone. New, in no paper. N images, T distances.

Around the middle of a query's similarities, images that have nothing to do with it lie as often so much below as
above; what lies above beyond that is related to it. The anti-correlated side so tells how many unrelated images to
expect on the hard side (as decoys tell it of matches in a search): the excess is the estimate, over all entries
`tau_plus`, beyond some distance from the middle the share of false negatives there.

It is right where images of a class, and only those, lie close together. Classmates that look like strangers are in no
excess (too low); what the space finds alike for any other reason, a background or a group of classes, is in it (too
high, at the hard end above all). Labels, where there are any, are put beside it and used for nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onca.analyse.space import Space
from onca.analyse.statistics import Floats, Interval, divided, interval, resample

CUTS = (0.1, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0)  # percent from the hard end
DISTANCES = torch.arange(0, 12, 0.05)  # from the middle, in deviations of the side below it
ROUNDS, SETTLED, SOME = 20, 1e-4, 256  # at most so often is the middle found anew, from so many queries
BLOCK = 128  # queries at a time
QUERIES, LEAST = 1000, 100


@dataclass(frozen=True)
class Share:
    """Of the hardest `percent` of negatives: the share that is false as estimated, and by labels (None: no labels).

    The hardest of all queries together, by distance from the query's middle in its own deviations.
    """

    percent: float
    estimated: Interval
    labelled: Interval


@dataclass(frozen=True)
class Prior:
    """tau_plus: share of all negatives that are of the query's class, as estimated and by labels; `hardest`: the same
    within the hardest so many percent. Intervals resample the queries: they tell nothing of the method's own error."""

    queries: int
    negatives: int
    tau_plus: Interval
    labelled: Interval
    hardest: tuple[Share, ...]


def prior(space: Space, *, queries: int = QUERIES, cuts: tuple[float, ...] = CUTS, seed: int = 0) -> Prior:
    """Estimates from queries drawn by `seed`, each against all other images.

    Raises:
        ValueError: too few images, a cut that is not within 0 to 50.
    """
    if len(space) < LEAST:
        raise ValueError(
            f"{space.source}: {len(space)} images are too few to tell related ones from chance; {LEAST} do"
        )
    if not cuts or not all(0 < cut <= 50 for cut in cuts):
        raise ValueError(f"cuts={cuts}: percent from the hard end, above 0 and up to 50")
    chosen = torch.randperm(len(space), generator=torch.Generator().manual_seed(seed))[:queries]
    others = len(space) - 1
    counts = _all_counts(space, chosen)
    total, drawn = {name: values.sum(0, keepdims=True) for name, values in counts.items()}, resample(counts, seed)

    def share(top: str, bottom: str, at: int | slice) -> Interval:
        """A share of what lies beyond a distance; of several distances the largest one."""
        column = slice(at, at + 1) if isinstance(at, int) else at
        (value,), values = (
            divided(table[top][:, column], table[bottom][:, column]).max(1).clip(0, 1) for table in (total, drawn)
        )
        return interval(float(value), values)

    beyond = total["beyond"][0] / (len(chosen) * others)
    places = [int(np.abs(beyond - cut / 100).argmin()) for cut in cuts]
    return Prior(
        queries=len(chosen),
        negatives=others,
        tau_plus=share("excess", "all", slice(None)),
        labelled=share("same in all", "labelled", 0),
        hardest=tuple(
            Share(cut, share("excess", "beyond", place), share("same", "labelled beyond", place))
            for cut, place in zip(cuts, places, strict=True)
        ),
    )


def _all_counts(space: Space, chosen: Tensor) -> dict[str, Floats]:
    """`_counts` of all queries, with middles that fit the share of related entries that they give."""
    share = 0.0
    for _ in range(ROUNDS):
        parts = [_counts(space, rows, share)["excess"] for rows in torch.split(chosen[:SOME], BLOCK)]
        found = float(np.concatenate(parts).mean(0).max()) / (len(space) - 1)
        if abs(found - share) < SETTLED:
            break
        share = found
    several = [_counts(space, rows, share) for rows in torch.split(chosen, BLOCK)]
    return {name: np.concatenate([part[name] for part in several]) for name in several[0]}


def _counts(space: Space, rows: Tensor, share: float) -> dict[str, Floats]:
    """Of each query, beyond each distance [b,T]: entries, how many more than below, of its class; and of all [b,T] or
    [b,1]. A query without a label has none of the last."""
    score = space.rows[rows] @ space.rows.T
    score[torch.arange(len(rows)), rows] = -torch.inf  # the query itself sorts first and is cut off
    ordered, place = score.sort(dim=1)
    ordered, place = ordered[:, 1:].contiguous(), place[:, 1:]
    count = ordered.shape[1]
    centre = ordered[:, int(count * (1 - share) / 2), None]  # of what is left without the related ones
    spread = (ordered - centre).clamp_max(0).square().sum(1, keepdim=True).div(count / 2).sqrt()
    beyond = count - torch.searchsorted(ordered, centre + spread * DISTANCES)
    below = torch.searchsorted(ordered, centre - spread * DISTANCES, right=True)
    label = space.label[rows]
    known = (label >= 0)[:, None]
    same = ((space.label[place] == label[:, None]) & known).flip(1).cumsum(1)
    same = torch.nn.functional.pad(same, (1, 0))  # of the hardest 0, 1, 2 ...
    found = {
        "beyond": beyond,
        "excess": beyond - below,
        "all": torch.full_like(beyond, count),
        "same": same.gather(1, beyond),
        "labelled beyond": beyond * known,
        "same in all": same[:, -1:],
        "labelled": known * count,
    }
    return {name: values.double().numpy() for name, values in found.items()}
