"""Invariance propagation (InvP, 2010.11694): images that walks along a neighbour graph reach are positives, and of
those the least similar count most.

A host keeps a bank with one row for each image and the k nearest images of each. The loss is L_ins + weight * L_inv:
the image's own row against the nearest rows, and, in later epochs, what was reached against them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from onca.difficulty import need
from onca.methods.propagation import (
    background,
    denominators,
    everyone,
    listed,
    listed_instance,
    propagated,
    set_instance,
)
from onca.objectives import Method, need_positives
from onca.pool import Pool
from onca.schedule import Number, Schedule, after, check_number
from onca.select import check_count, count_at


@dataclass(frozen=True, eq=False, repr=False)
class invp(Method, name="invp"):
    """L_ins + weight * L_inv, without L_inv up to and including the epoch `start` (2010.11694).

    k: neighbours of each image that the host keeps. steps: length of the walks. hardest: so many of the images that
    they reach are positives, the least similar ones. background: so many of the nearest rows are the denominator.
    mode "paper" works on sets, without the image itself; "official" does as the authors' code, see `listed`.
    """

    k: int = 4
    steps: Number = 3
    hardest: Number = 50
    background: Number = 4096
    weight: Number = 0.6
    start: float = 30
    mode: str = "paper"
    own_needs: ClassVar[frozenset[str]] = frozenset({"index", "neighbours"})

    def __post_init__(self) -> None:
        for name in ("k", "steps", "hardest", "background"):
            check_count(self, name)
        for name in ("weight", "start"):
            check_number(self, getattr(self, name), name)
        if isinstance(self.k, Schedule) or isinstance(self.start, Schedule):
            raise ValueError(f"{self}: k and start must be plain numbers; a schedule may be the weight")
        if 0 in (self.k, self.background):
            raise ValueError(f"{self}: k and background must be 1 or more")
        if self.mode not in ("paper", "official"):
            raise ValueError(f'{self}: mode must be "paper" or "official"; got {self.mode!r}')

    def __call__(self, pool: Pool) -> Tensor:
        """[B]. Raises ValueError when the pool has no graph of k neighbours or other negatives than a bank's."""
        pool = replace(pool, neighbours=self._graph(pool))
        official = self.mode == "official"
        near = background(pool, everyone(pool) if official else pool.negatives, count_at(self, self.background, pool))
        total, others = denominators(pool, near) if official else (None, None)
        loss = set_instance(pool, near) if total is None else listed_instance(pool, total)
        weight = pool.number(after(self.start, 1), self) * pool.number(self.weight, self)
        if weight == 0:
            return loss
        walks = count_at(self, self.steps, pool), count_at(self, self.hardest, pool)
        return loss + weight * (propagated(pool, *walks, near) if others is None else listed(pool, *walks, others))

    def _graph(self, pool: Pool) -> Tensor:
        """[I,k]. What is missing is said at once, not only in the epoch in which the second term sets in."""
        need(self, pool.index, "indices", "index= and negative_index=")
        graph = need(self, pool.neighbours, "pool.neighbours [I,k]", f"a bank with neighbours={self.k}")
        if graph.shape[1] < self.k:
            raise ValueError(f"{self} takes k={self.k} neighbours of each image; the bank keeps {graph.shape[1]}")
        need_positives(self, pool)
        links = pool.negatives.links
        if len(links) > 1 or links[0].per_query or links[0].rows is not None or links[0].length != len(graph):
            raise ValueError(
                f"{self} needs all rows of a bank, one for each image, as negatives: give its host draws=0"
            )
        return graph[:, : self.k]  # nearest first
