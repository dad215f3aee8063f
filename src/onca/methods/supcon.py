"""Supervised contrastive learning (2004.11362): the mean over the queries that have positives."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onca.objectives import Objective
from onca.part import require
from onca.pool import Pool


@dataclass(frozen=True, eq=False, repr=False)
class with_positives(Objective, name="with_positives"):
    """The objective's mean over the queries with positives alone: their losses times B / their number, the others 0.

    For the last place of a chain, where the positives are those that the rules left:
    `chain(attract(same_class), with_positives(supcon))`. Without it a query without positives counts as 0 in the mean,
    as in the official code since 2023-12. The note `lone` is the share of queries without positives.
    """

    objective: Objective

    def __post_init__(self) -> None:
        require(self, self.objective, "objective", "objective")

    def __call__(self, pool: Pool) -> Tensor:
        has = pool.positives.count() > 0
        losses = self.objective(pool)
        pool.note("lone", (~has).double().mean().item())
        return torch.where(has, losses * (len(pool) / has.sum().clamp_min(1).to(losses.dtype)), 0)
