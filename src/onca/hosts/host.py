"""The protocol of a host: before_step, pools, loss, after_step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from onca.objectives import Method
from onca.pool import Pool, check_temperature
from onca.schedule import Number


@dataclass(frozen=True, eq=False)
class Batch:
    """views: one tensor [B,...] a view. index, label: [B] int64, -1 unknown. epoch: float from 0. step: from 0."""

    views: tuple[Tensor, ...]
    index: Tensor | None = None
    label: Tensor | None = None
    epoch: float = 0.0
    step: int = 0


class Host(nn.Module):
    """One training step is before_step, pools, loss, backward, the optimiser's step, after_step.

    All that a host owns is in its state_dict. `notes` holds what the parts of the last loss reported.
    """

    encoder: nn.Module

    def __init__(self, encoder: nn.Module, temperature: Number, seed: int = 0) -> None:
        super().__init__()
        self.encoder = encoder
        self.temperature = temperature
        self.seed = seed
        self.notes: dict[str, Any] = {}
        check_temperature(temperature)

    def before_step(self) -> None:
        """Momentum updates, from the weights as they are before this step's optimiser step."""

    def pools(self, batch: Batch) -> list[Pool]:
        """Encodes; changes no weight and no memory, and may be called again."""
        raise NotImplementedError  # abstract

    def loss(self, pools: Sequence[Pool], method: Method) -> Tensor:
        """The mean over queries, summed over pools."""
        losses = [method(pool).mean() for pool in pools]
        self.notes = {name: value for pool in pools for name, value in pool.notes.items()}
        return torch.stack(losses).sum()

    def after_step(self) -> None:
        """Memories take the keys of the last pools."""


def drawn_from(seed: int, *more: int) -> int:
    """A seed made of several numbers, so that draws of different steps and pools do not repeat each other."""
    state = seed & (2**63 - 1)
    for number in more:
        state = (state * 6364136223846793005 + number + 1442695040888963407) & (2**63 - 1)
    return state


def check_views(batch: Batch, host: Host, count: int) -> None:
    if len(batch.views) < count:
        raise ValueError(f"{type(host).__name__} needs {count} views of each image; the batch holds {len(batch.views)}")
