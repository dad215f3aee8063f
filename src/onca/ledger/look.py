"""From a query of a pool to rows of the ledger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from onca.ledger import sample
from onca.ledger.entries import ROLES, Entries, Integers, Marks, Positives, Sight
from onca.objectives import Method
from onca.pool import Pool

Columns = Mapping[str, Any]  # of the ledger: arrays, nan or -1 where unknown; flags: a list of words a row

FLAGS = {  # word -> what it means
    "same_class": "the labels of query and entry are known and equal",
    "unlabelled": "one of the labels is unknown",
    "same_image": "query and entry are views of one image",
    "near_duplicate": "the images are of one group of near-duplicates",
    "kept": "the entry counts after all rules",
    "attracted": "a rule made the entry a positive",
    "refilled": "an older entry that a rule let in",
    "mirrored": "a rule turned the sign of the entry's score",
}


class Look:
    """What is written of the queries of one pool in one step. duplicates: group of each image [I], or None."""

    def __init__(
        self, pool: Pool, method: Method, seed: int, step: int, epoch: float, duplicates: Tensor | None = None
    ) -> None:
        self.pool, self.seed, self.step, self.epoch = pool, seed, step, epoch
        self.sight = Sight(pool, method)
        groups = pool.duplicates if duplicates is None else duplicates
        self.groups: Integers | None = None if groups is None else groups.cpu().numpy()

    def rows(self, query: int, number: int) -> list[Columns]:
        """Rows of the sampled negatives and positives of a query. number: of the query in its step."""
        found, own = self.sight.entries(query), self.sight.positives(query)
        chosen = sample.entries(found, self.seed, self.step, number)
        beside = sample.positives(len(own.index), self.seed, self.step, number)
        return [self._negatives(query, found, chosen), self._positives(query, own, beside)]

    def _negatives(self, query: int, of: Entries, chosen: sample.Sample) -> Columns:
        at = chosen.place
        brought = (of.rank < 0) & np.isin(of.role, [ROLES.index("memory"), ROLES.index("batch")])
        counts = np.nan_to_num(of.weight) != 0
        told = {"kept": counts, "attracted": of.attracted, "refilled": brought, "mirrored": of.mirrored}
        return {
            "negative": of.index[at],
            "rank": of.rank[at],
            "percentile": of.percentile[at],
            "similarity": of.similarity[at],
            "weight": of.weight[at],
            "gradient_share": of.gradient_share[at],
            "age": of.age[at],
            "role": np.array(ROLES)[of.role[at]],
            **self._told(query, of.index[at], of.label[at], {name: marks[at] for name, marks in told.items()}),
            "stands_for": chosen.stands_for,
        }

    def _positives(self, query: int, own: Positives, chosen: sample.Sample) -> Columns:
        at = chosen.place
        nothing = np.full(len(at), np.nan)
        return {
            "negative": own.index[at],
            "rank": np.full(len(at), -1),
            "percentile": nothing,
            "similarity": own.similarity[at],
            "weight": np.ones(len(at)),
            "gradient_share": nothing,
            "age": own.age[at],
            "role": np.full(len(at), "positive"),
            **self._told(query, own.index[at], own.label[at], {}),
            "stands_for": chosen.stands_for,
        }

    def _told(self, query: int, index: Integers, label: Integers, told: Mapping[str, Marks]) -> Columns:
        """Columns of the query, and flags."""
        mine, its = (-1 if known is None else int(known[query]) for known in (self.pool.index, self.pool.label))
        label = np.where((label < 0) & (index == mine) & (mine >= 0), its, label)  # another view of the image
        marks = {
            "same_class": (label == its) & (its >= 0),
            "unlabelled": (label < 0) | (its < 0),
            "same_image": (index == mine) & (mine >= 0),
            "near_duplicate": self._duplicates(mine, index),
            **told,
        }
        count = len(index)
        words = [[name for name, mark in marks.items() if mark[row]] for row in range(count)]
        return {
            "step": np.full(count, self.step),
            "epoch": np.full(count, self.epoch),
            "pool": np.full(count, self.pool.name),
            "query": np.full(count, mine),
            "flags": words,
        }

    def _duplicates(self, mine: int, index: Integers) -> Marks:
        """Other images of the query's group."""
        if self.groups is None or mine < 0:
            return np.zeros(len(index), bool)
        same: Marks = (index >= 0) & (index != mine) & (self.groups[np.maximum(index, 0)] == self.groups[mine])
        return same
