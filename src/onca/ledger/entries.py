"""All that one query of a pool was compared with, and what the method made of it.

Shapes: n entries, those that the host put there first, in the order of their places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onca.bag import Bag
from onca.ledger.rows import Row, Rows
from onca.ledger.slopes import slopes
from onca.ledger.terms import Term, terms
from onca.objectives import Method
from onca.pool import Pool

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Marks = NDArray[np.bool_]

ROLES = ("memory", "batch", "same image", "mixed")
BEHIND = 1 << 40  # keys of entries that rules made begin here, so that none is a place in the bag


@dataclass(frozen=True, eq=False)
class Entries:
    """The negatives of one query, those that are present in the host's pool and those that rules brought.

    rank [n]: 0 is the hardest; -1 for what rules brought, which takes part in no rank. weight [n]: what an entry counts
    after all rules, summed over the terms of the method; nan where the method does not say. slope [n]: of the query's
    loss by the entry's score. role [n]: place in ROLES. attracted [n]: a rule made it a positive. mirrored [n]: a rule
    turned its sign.
    """

    rank: Integers
    similarity: Floats
    weight: Floats
    slope: Floats
    index: Integers
    label: Integers
    age: Integers
    role: Integers
    attracted: Marks
    mirrored: Marks

    def __len__(self) -> int:
        return len(self.rank)

    @property
    def percentile(self) -> Floats:
        """An entry lies in window(low, high) when low <= percentile < high; nan where it has no rank."""
        ranked = self.rank >= 0
        number = max(1, int(ranked.sum()))
        return np.where(ranked, (100 * (number - self.rank) - 50) / number, np.nan)  # rounded once

    @property
    def gradient_share(self) -> Floats:
        """Of the sum of the slopes' sizes; 0 where no entry has any."""
        size = np.abs(self.slope)
        whole = size.sum()
        return size / whole if whole > 0 else size


@dataclass(frozen=True, eq=False)
class Positives:
    """The positives of one query as the host gave them: all [P]."""

    similarity: Floats
    index: Integers
    label: Integers
    age: Integers


class Sight:
    """One pool of a step. Rules act once and slices are made once, for all queries that are asked for."""

    def __init__(self, pool: Pool, method: Method) -> None:
        self.pool = replace(pool, notes={})
        with torch.no_grad():
            self.terms = list(terms(method, self.pool))
            for term in self.terms:  # a shift is made when it is asked for and then kept: here once for all queries
                for bag in (term.pool.positives, term.pool.negatives, *term.pool.added):
                    _ = bag.shift
        self._made: dict[int, Rows] = {}

    def _rows(self, bag: Bag, query: int) -> list[Row]:
        return self._made.setdefault(id(bag), Rows(bag)).of(query)

    def positives(self, query: int) -> Positives:
        """Those of the host, before any rule."""
        rows = self._rows(self.pool.positives, query)
        own = -1 if self.pool.index is None else int(self.pool.index[query])
        index = [np.where(row.role == "same image", own, row.index.numpy()) for row in rows]
        there = np.concatenate([row.present.numpy() for row in rows])
        known = ([getattr(row, name).numpy() for row in rows] for name in ("similarity", "label", "age"))
        similarity, label, age = (np.concatenate(column)[there] for column in known)
        return Positives(similarity, np.concatenate(index)[there], label, age)

    def entries(self, query: int) -> Entries:
        host = _told(self._rows(self.pool.negatives, query), 0)
        told, attracted = [host], [np.zeros(0, np.int64)]
        for number, term in enumerate(self.terms):
            told += self._term(term, query, (number + 1) * BEHIND)
            attracted.append(self._attracted(term.pool.positives, query))
        return _merged(told, np.concatenate(attracted))

    def _term(self, term: Term, query: int, key: int) -> list[_Told]:
        """What one term makes of the entries that its rules left, and of those that they added."""
        negatives = self._rows(term.pool.negatives, query)
        added = [self._rows(bag, query) for bag in term.pool.added]
        hardened = [(self._rows(bag, query), tilt) for bag, tilt in term.hardened]
        by_score, by_added = slopes(term, query, self._rows(term.pool.positives, query), negatives, added, hardened)
        told = [_told(negatives, 0, term, term.pool.negatives, query, by_score)]
        for bag, rows, by in zip(term.pool.added, added, by_added, strict=True):
            for row, slope in zip(rows, by, strict=True):  # places of added links may be the same
                key += BEHIND >> 16
                told.append(_told([row], key, term, bag, query, [slope]))
        return told

    def _attracted(self, positives: Bag, query: int) -> Integers:
        """Places of the host's negatives that stand among the positives now."""
        host = [id(link.vectors) for link in self.pool.negatives.links]
        rows = [row for row in self._rows(positives, query) if id(row.link.vectors) in host]
        return np.concatenate([row.place[row.present].numpy() for row in rows] or [np.zeros(0, np.int64)])


@dataclass(frozen=True, eq=False)
class _Told:
    """What is told of entries that are present: by the host (weight and slope 0), or by a term."""

    key: Integers
    similarity: Floats
    weight: Floats
    slope: Floats
    index: Integers
    label: Integers
    age: Integers
    role: Integers
    mirrored: Marks


def _told(
    rows: Sequence[Row],
    key: int,
    term: Term | None = None,
    bag: Bag | None = None,
    query: int = 0,
    by_score: Sequence[Tensor] = (),
) -> _Told:
    """key: what is added to places. bag: the one whose weights count."""
    columns: list[tuple[Any, ...]] = []
    for number, row in enumerate(rows):
        weight = slope = torch.zeros_like(row.score)
        there = row.present
        if term is not None and bag is not None:
            weight = term.share * _weight(row, bag, query) if term.counts else torch.full_like(row.score, torch.nan)
            slope = term.share * torch.where(row.turned, -by_score[number], by_score[number])
            if term.hardened:  # an entry that was dropped behind `harden` still had a say in the mean of its weights
                weight, there = torch.where(there, weight, 0), there | (slope != 0)
        role = torch.full_like(row.place, ROLES.index(row.role))
        values = (row.place + key, row.similarity, weight, slope, row.index, row.label, row.age, role, row.turned)
        columns.append(tuple(value[there].numpy() for value in values))
    return _Told(*(np.concatenate(column) for column in zip(*columns, strict=True)))


@torch.no_grad()
def _weight(row: Row, bag: Bag, query: int) -> Tensor:
    """exp(tilt * score + shift) [n]."""
    shift = 0.0 if bag.shift is None else float(bag.shift[query])
    return torch.exp(bag.tilt * row.score + shift)


def _merged(told: Sequence[_Told], attracted: Integers) -> Entries:
    """Each entry once: the host's in the order of their places, then those that rules brought."""
    every = {name: np.concatenate([getattr(one, name) for one in told]) for name in _Told.__dataclass_fields__}
    key, first, which = np.unique(every["key"], return_index=True, return_inverse=True)
    summed = {name: np.bincount(which, every[name], len(key)) for name in ("weight", "slope", "mirrored")}
    weight, slope = (summed[name].astype(np.float64) for name in ("weight", "slope"))
    similarity, host = every["similarity"][first], first < len(told[0].key)
    rank = np.full(len(key), -1)
    (places,) = host.nonzero()
    rank[places[np.argsort(-similarity[host], kind="stable")]] = np.arange(len(places))
    known = {name: every[name][first] for name in ("index", "label", "age", "role")}
    return Entries(
        rank=rank,
        similarity=similarity,
        weight=weight,
        slope=slope,
        attracted=np.isin(key, attracted),
        mirrored=summed["mirrored"] > 0,
        **known,
    )
