"""Whether statistics of batch norm tell which key belongs to which query (MoCo, 1911.05722, section 3.3).

P probes: images that stand in G batches, each time in the same places and as the same views, among other images. What
differs in their embeddings from batch to batch is what batch norm tells of the others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from onca.audit.check import between, graded, report
from onca.audit.finding import Finding
from onca.audit.interval import Estimate, mean
from onca.pool import Pool

if TYPE_CHECKING:
    from onca.train.loop import Training

BATCHES = 8  # G: chance is one in so many
PROBES = 128  # at least, in sets that fit into a batch
EVERY = 4  # one place of a batch in so many holds a probe
TELLS = 1.1  # times chance: from there on batches can be told apart
GAIN = 0.03  # nats that a positive gains from sharing the batch, from which on it is an alarm


def leak(training: Training) -> Finding:
    """How often the batch that a query was encoded in is told by which of its key's embeddings is nearest.

    Each probe was a query in G batches and a key in the same G; of the cosines [G,G] the means of rows and columns are
    taken off, so that only what both have of one batch is left. Encoders are used as in training; their running
    statistics move, in this copy of them.
    """
    rounds = -(-PROBES * EVERY // _size(training))
    found = [_round(training, number) for number in range(rounds)]
    if any(pair is None for pair in found):
        said = "negatives come from the batches that positives come from, or positives from other ones: nothing to tell"
        return Finding("batch-norm leak", "fine", said)
    told, gain = (torch.cat(values) for values in zip(*(pair for pair in found if pair), strict=True))
    return _finding(mean(told), mean(gain), len(told))


def _finding(told: Estimate, gain: Estimate, probes: int) -> Finding:
    chance = 1 / BATCHES
    said = (
        f"statistics of batch norm tell a query's batch from {BATCHES} for {between(told)} of the probes (chance: "
        f"{100 * chance:.3g} %), and give its positive {gain.number:.2g} nats"
    )
    tells = told.low > TELLS * chance
    outcome = graded(tells and gain.low > GAIN, tells)
    why = "a key of the same batch is known by its statistics: the task can be solved without looking at the image"
    remedy = "--splits 8: parts of a batch with statistics of their own"
    details = {"told": told, "gain": gain, "chance": Estimate(chance, chance, chance)}
    return report("batch-norm leak", outcome, said, told, probes, "probes", why=why, remedy=remedy, details=details)


def _round(training: Training, number: int) -> tuple[Tensor, Tensor] | None:
    """One set of probes: share of batches told [P], and the gain of the positive in nats [P]."""
    from onca.train.loop import make_batch

    draw = torch.Generator().manual_seed(number)
    order, size = torch.randperm(len(training.images), generator=draw), _size(training)
    place = torch.randperm(size, generator=draw)[: -(-size // EVERY)]
    probes, others = order[: len(place)], order[len(place) :]
    queries, keys = [], []
    for _ in range(BATCHES):
        rows = others[torch.randperm(len(others), generator=draw)[:size]]
        rows = rows[torch.arange(size) % len(rows)].clone()
        rows[place] = probes
        with torch.no_grad():
            pool = training.host.pools(make_batch(training, rows))[0]
        pair = _pair(pool, size)
        if pair is None:
            return None
        queries.append(pair[0][place])
        keys.append(pair[1][place])
    score = torch.einsum("gpd,hpd->pgh", torch.stack(queries), torch.stack(keys)).double() * pool.scale
    both = score - score.mean(1, keepdim=True) - score.mean(2, keepdim=True) + score.mean((1, 2), keepdim=True)
    told = (both.argmax(2).cpu() == torch.arange(BATCHES)).double().mean(1)
    return told, both.diagonal(dim1=1, dim2=2).mean(1).cpu() * BATCHES / (BATCHES - 1)


def _size(training: Training) -> int:
    """Images of a batch, whole parts of it, and no more than the set has."""
    splits = training.run.splits
    return min(training.run.batch, len(training.images)) // splits * splits


def _pair(pool: Pool, size: int) -> tuple[Tensor, Tensor] | None:
    """Queries and keys [B,D] where keys were encoded in this step and negatives were not."""
    link = pool.positives.links[0]
    fresh = link.per_query and link.length and link.age is None and len(pool) == size
    older = any(other.role == "memory" and other.vectors is not pool.negatives.query for other in pool.negatives.links)
    return (pool.negatives.query, link.vectors[:, 0]) if fresh and older else None
