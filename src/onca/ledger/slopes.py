"""How much a query's loss grows with the score of each entry: of any objective, by the objective itself.

An objective sees scores, and which entries are there. So a query's scores are put into a space of one dimension, in
which the query is 1 and every entry its score; the objective is put to that pool of one query, in float64, and its
gradient by the entries is its slope by their scores.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from onca.bag import Bag
from onca.engine import engine
from onca.ledger.rows import Row
from onca.ledger.terms import Term
from onca.link import Link
from onca.pool import Pool


def slopes(
    term: Term,
    query: int,
    positives: Sequence[Row],
    negatives: Sequence[Row],
    added: Sequence[Sequence[Row]],
    hardened: Sequence[tuple[Sequence[Row], float]],
) -> tuple[list[Tensor], list[list[Tensor]]]:
    """By the scores of the negatives, a tensor [n] for each link, and by those of each bag of added entries.

    The rows are those of `query` in the term's pool. hardened: rows and tilts of `term.hardened`.
    """
    leaves = [row.score.clone().requires_grad_() for row in negatives]
    more = [[row.score.clone().requires_grad_() for row in bag] for bag in added]
    with torch.enable_grad(), engine("torch"), _silent():
        pool = _alone(term.pool, query, positives, negatives, added, leaves, more)
        weights = _weights(negatives, leaves, hardened)
        if weights is not None and pool.negatives.shift is not None:  # its value is that of the rule, to the bit
            pool = replace(pool, negatives=pool.negatives.tilted(0.0, weights, pool.negatives.attached))
        loss = term.objective(pool).sum()
    every = [*leaves, *(leaf for bag in more for leaf in bag)]
    if not loss.requires_grad or not every:
        return [torch.zeros_like(leaf) for leaf in leaves], [[torch.zeros_like(leaf) for leaf in bag] for bag in more]
    found = iter(torch.autograd.grad(loss, every, materialize_grads=True))
    return [next(found) for _ in leaves], [[next(found) for _ in bag] for bag in more]


def _alone(
    pool: Pool,
    query: int,
    positives: Sequence[Row],
    negatives: Sequence[Row],
    added: Sequence[Sequence[Row]],
    leaves: Sequence[Tensor],
    more: Sequence[Sequence[Tensor]],
) -> Pool:
    """The pool of one query, in one dimension."""

    def own(known: Tensor | None) -> Tensor | None:
        return None if known is None else known[query : query + 1].cpu()

    def bag(whole: Bag, rows: Sequence[Row], scores: Sequence[Tensor]) -> Bag:
        index = own(whole.query_index)
        links = tuple(_link(row, score, index) for row, score in zip(rows, scores, strict=True))
        with torch.no_grad():
            shift = own(whole.shift)
        shifts = () if shift is None else (shift.double(),)
        one = torch.ones(1, 1, dtype=torch.float64)
        return Bag(one, links, None, index, whole.tilt, shifts, whole.attached)

    return replace(
        pool,
        positives=bag(pool.positives, positives, [row.score for row in positives]),
        negatives=bag(pool.negatives, negatives, leaves),
        added=tuple(bag(each, *both) for each, both in zip(pool.added, zip(added, more, strict=True), strict=True)),
        reserve=None,
        label=own(pool.label),
        index=own(pool.index),
        support=None,
        given=own(pool.given),
        short=None,
        neighbours=None if pool.neighbours is None else pool.neighbours.cpu(),
        normaliser=None if pool.normaliser is None else pool.normaliser.detach().double().cpu(),
        notes={},
    )


def _link(row: Row, score: Tensor, index: Tensor | None) -> Link:
    """Absent is what rules left out; own rows stay, for a method that wants them, and are masked as they were."""
    masked = torch.zeros_like(row.present)
    if index is not None and row.link.role in ("memory", "batch"):
        masked = (row.index == index) & (row.index >= 0)
    place = row.link.place if isinstance(row.link.place, int) else row.place
    return Link(
        score[:, None],
        label=row.label,
        index=row.index,
        age=row.age,
        absent=~(row.present | masked),
        role=row.link.role,
        place=place,
    )


def _weights(
    negatives: Sequence[Row], leaves: Sequence[Tensor], hardened: Sequence[tuple[Sequence[Row], float]]
) -> Tensor | None:
    """0, with the slopes of the shift [1] that attached importance weights have: they are divided by their mean."""
    found: Tensor | None = None
    for rows, tilt in hardened:
        scores = [
            leaves[place] if place < len(negatives) and negatives[place].link.vectors is row.link.vectors else row.score
            for place, row in enumerate(rows)
        ]
        there = torch.cat([score[row.present] for score, row in zip(scores, rows, strict=True)])
        if len(there):
            mass = -torch.logsumexp(tilt * there, 0, keepdim=True)
            found = mass - mass.detach() if found is None else found + mass - mass.detach()
    return found


@contextmanager
def _silent() -> Iterator[None]:
    """What an objective warns of is meant for whole batches. `catch_warnings` would show the run's own ones again."""
    before = warnings.showwarning
    warnings.showwarning = lambda *_, **__: None
    try:
        yield
    finally:
        warnings.showwarning = before
