"""What of a run is looked at: steps, queries and entries, drawn by hashing the run's seed, so that a replay draws them
again. No state, and nothing of torch's random numbers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch

from onca import sliced
from onca.difficulty import noise
from onca.ledger.entries import Entries, Floats, Integers
from onca.pool import Pool

HARDEST = 8  # entries, of each query
BESIDE = 2  # on either side of an edge, the first and the last one
STRATA = 16  # of the other entries, each of which gives one: eighths, the hardest of them divided once more
BROUGHT = 4  # of each kind that rules brought (older ones, mixed points, other views)
POSITIVES = 2
MOST = HARDEST + 4 * BESIDE + STRATA + 3 * BROUGHT + POSITIVES  # rows that a query can give

STEP, QUERY, ENTRY = range(3)  # what is drawn


def draws(seed: int, what: int, first: int, second: int, count: int) -> Floats:
    """`count` numbers in (0, 1) that follow from seed, what is drawn, and two numbers that say for what."""
    one, two = torch.tensor(3 * first + what), torch.arange(count) + (second << 32)
    return noise(seed, one, two).numpy()


@lru_cache(maxsize=4)
def step_of(seed: int, window: int, spacing: int) -> int:
    """The step (from 1) that is looked at, of the `window`-th `spacing` steps."""
    return 1 + window * spacing + int(draws(seed, STEP, window, 0, 1)[0] * spacing)


def queries(pool: Pool, seed: int, step: int, place: int, count: int) -> Integers:
    """Which queries of the step's pool at `place` are looked at, in ascending order: of one block, each of another
    image as far as indices are known."""
    parts = sliced.blocks(len(pool), pool.negatives.height)
    if not parts or not count:
        return np.zeros(0, np.int64)
    order = np.argsort(draws(seed, QUERY, step, place, len(pool)), kind="stable")
    part = next(part for part in parts if order[0] < part.stop)
    chosen: dict[int, int] = {}
    for query in order[(order >= part.start) & (order < part.stop)].tolist():
        image = -1 if pool.index is None else int(pool.index[query])
        chosen.setdefault(image if image >= 0 else -2 - query, query)
        if len(chosen) == count:
            break
    return np.sort(np.array(list(chosen.values()), np.int64))


@dataclass(frozen=True, eq=False)
class Sample:
    """Places among a query's entries, and for how many entries each stands (itself and others that were not drawn)."""

    place: Integers
    stands_for: Floats


def entries(of: Entries, seed: int, step: int, number: int) -> Sample:
    """The hardest, those around the edges of what was kept, one of each stratum of the others, and of those that rules
    brought a few of each kind. number: of the query in its step."""
    (host,), (brought,) = (of.rank >= 0).nonzero(), (of.rank < 0).nonzero()
    ranked = np.empty_like(host)
    ranked[of.rank[host]] = host
    certain = np.zeros(len(ranked), bool)
    certain[:HARDEST] = True
    certain[_edges(of.weight[ranked] != 0)] = True
    places, counts = [ranked[certain]], [np.ones(int(certain.sum()))]
    groups = np.split(ranked[~certain], strata(int((~certain).sum())))
    draw = draws(seed, ENTRY, step, number, STRATA + len(brought))
    for group, chance in zip(groups, draw, strict=False):
        places.append(group[[int(chance * len(group))]] if len(group) else group)
        counts.append(np.full(min(1, len(group)), float(len(group))))
    for role in np.unique(of.role[brought]):
        mine = of.role[brought] == role
        drawn = brought[mine][np.argsort(draw[STRATA:][mine], kind="stable")[:BROUGHT]]
        places.append(np.sort(drawn))
        counts.append(np.full(len(drawn), mine.sum() / len(drawn)))
    return Sample(np.concatenate(places), np.concatenate(counts))


def strata(number: int) -> Integers:
    """Where strata of so many entries, from the hardest on, end and the next begins: eighths by percentile, the hardest
    one of them in nine parts that grow, because that is where most of the slope is."""
    if number <= STRATA:
        return np.arange(1, number)
    eighths = np.arange(1, 8) * number // 8
    within = np.geomspace(1, eighths[0], STRATA - 7)[:-1].round().astype(np.int64)
    return np.unique(np.concatenate([within, eighths]))


def positives(number: int, seed: int, step: int, query: int) -> Sample:
    """A few of so many positives."""
    order = np.argsort(draws(seed, ENTRY, step, query, number + 1)[1:], kind="stable")[:POSITIVES]
    return Sample(np.sort(order), np.full(len(order), number / max(1, len(order))))


def _edges(kept: np.ndarray) -> Integers:
    """Ranks around the first and the last change between what is kept and what is not."""
    (after,) = (kept[1:] != kept[:-1]).nonzero()
    around = [np.arange(edge + 1 - BESIDE, edge + 1 + BESIDE) for edge in {*after[:1], *after[-1:]}]
    found = np.unique(np.concatenate(around or [np.zeros(0, np.int64)]))
    return found[(found >= 0) & (found < len(kept))]
