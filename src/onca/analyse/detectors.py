"""How well detectors of false negatives do: what a selector chooses, against labels. N images, D dimensions.

A detector is any selector: what FNC cancels (2011.11765), the hardest so many percent, a threshold, `likely` of `auto`.
Each is put to a query against all other images of a space. Labels serve to judge, except where a selector is an oracle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from onca.analyse.pairs import by_turns
from onca.analyse.space import Space
from onca.analyse.statistics import Floats, Interval, divided, interval, resample
from onca.identity import same_class
from onca.part import read
from onca.pool import Pool, pool
from onca.selector import Selector

WITHOUT_VIEWS = ("hardest(0.1)", "hardest(1)", "hardest(5)", "nearest(10)", "above(0.7)", "above(0.5)")
WITH_VIEWS = ("nearest(10, by=support_max) & above(0.7, by=support_max)", "likely(tau_plus=0.1)")
CERTAINTIES = (0.1, 0.3, 0.5, 0.7, 0.9)  # at which `likely` is asked to mean what it says
BLOCK = 256  # queries at a time
QUERIES = 1000


@dataclass(frozen=True)
class Detection:
    """What one detector chose. precision: share of the chosen that is of the query's class; recall: share of those of
    the query's class that is chosen; chosen: share of all entries; base: share of all that is of the query's class.
    Intervals resample the queries; None where nothing is chosen, or there is nothing to find."""

    detector: str
    chosen: Interval
    precision: Interval
    recall: Interval
    base: Interval


@dataclass(frozen=True)
class Calibrated:
    """Entries that `likely` holds for false negatives with a probability between low and high: how many of them are."""

    low: float
    high: float
    right: Interval


def detectors(
    space: Space,
    asked: Sequence[str | Selector] | None = None,
    *,
    queries: int = QUERIES,
    seed: int = 0,
) -> list[Detection]:
    """What each detector finds for queries drawn by `seed`, each against all other images.

    asked: selectors or their text; None: those that need no views, and FNC's and `likely` where the space has views.
    Where it has, the images that have them are looked at; one view is the positive, both are support views.

    Raises:
        ValueError: no labels, a selector that needs what is not there.
    """
    if not bool((space.label >= 0).any()):
        raise ValueError(f"{space.source} has no labels: what a detector finds is judged by them")
    space, views = viewed(space)
    texts = asked if asked is not None else WITHOUT_VIEWS + (WITH_VIEWS if views is not None else ())
    selectors = [_selector(text) for text in texts]
    labelled = (space.label >= 0).nonzero().flatten()
    chosen = labelled[torch.randperm(len(labelled), generator=torch.Generator().manual_seed(seed))[:queries]]
    counts = [_judged(pool_of(space, rows, views, seed), selectors) for rows in torch.split(chosen, BLOCK)]
    found = np.concatenate(counts, 1)  # [selectors, queries, (chosen, right, there, all)]
    return [_detection(str(one), table, seed) for one, table in zip(selectors, found, strict=True)]


def calibration(space: Space, *, tau_plus: float = 0.1, queries: int = QUERIES, seed: int = 0) -> list[Calibrated]:
    """Whether the probability of `likely(tau_plus)` is one: of entries between two certainties, how many are right.

    Raises:
        ValueError: no labels, no views.
    """
    if space.views is None:
        raise ValueError(f"{space.source} has no views, from which `likely` learns how close a classmate lies")
    steps = [f"likely(tau_plus={tau_plus:g}, certainty={certainty:g})" for certainty in CERTAINTIES]
    between = [f"{low} & ~{high}" for low, high in zip(steps, [*steps[1:], ""], strict=True) if high]
    found = detectors(space, [*between, steps[-1]], queries=queries, seed=seed)
    ends = (*CERTAINTIES, 1.0)
    return [Calibrated(low, high, one.precision) for low, high, one in zip(ends, ends[1:], found, strict=False)]


def viewed(space: Space) -> tuple[Space, Tensor | None]:
    """The images that have views, and unit rows [N,2,D] of those; the whole space where none has."""
    if space.views is None:
        return space, None
    rows = by_turns(space.label)[: len(space.views[0])]  # as `embed` chooses them
    images = space.images and space.images.subset(rows)
    views = torch.stack(space.views, 1)
    return replace(space, rows=space.rows[rows], index=space.index[rows], label=space.label[rows], images=images), views


def pool_of(space: Space, rows: Tensor, views: Tensor | None = None, seed: int = 0) -> Pool:
    """A pool of these rows as queries against all images of the space; their own rows are absent."""
    return pool(
        space.rows[rows],
        None if views is None else views[rows, 0],
        space.rows,
        1.0,
        label=space.label[rows],
        negative_label=space.label,
        index=space.index[rows],
        negative_index=space.index,
        support=None if views is None else views[rows],
        seed=seed,
        normalize=False,
    )


def _selector(text: str | Selector) -> Selector:
    part = text if isinstance(text, Selector) else read(text)
    if not isinstance(part, Selector):
        raise ValueError(f"a detector is a selector, as hardest(1) is; {part} is a {part.kind}")
    return part


@torch.no_grad()
def _judged(seen: Pool, selectors: Sequence[Selector]) -> Floats:
    """[selectors, queries, 4]: how many entries are chosen, right, of the query's class, there."""
    bag = seen.negatives
    same = same_class(seen, bag)
    there, number = bag.only(same).count(), bag.count()
    rows = []
    for selector in selectors:
        chosen = bag.only(selector(seen, bag))
        rows.append(torch.stack([chosen.count(), chosen.only(same).count(), there, number], 1))
    return torch.stack(rows).double().numpy()


def _detection(name: str, table: Floats, seed: int) -> Detection:
    drawn, total = resample({"counts": table}, seed)["counts"], table.sum(0)

    def ratio(top: int, bottom: int) -> Interval:
        if not total[bottom]:
            return Interval(None)
        return interval(float(total[top] / total[bottom]), divided(drawn[:, top], drawn[:, bottom]))

    return Detection(name, chosen=ratio(0, 3), precision=ratio(1, 0), recall=ratio(1, 2), base=ratio(2, 3))
