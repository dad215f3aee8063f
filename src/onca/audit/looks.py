"""Looks: how to find query, positive and negatives in a call of someone else's loss or module."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a loss. query [B,D]; positive [B,D] or [B,P,D]; negatives [N,D] or [B,N,D]; logits [B,1+N] of the
    positive, then the negatives; ids [B] which image each query is of, negative_ids [N] or [B,N], -1 unknown.
    """

    query: Tensor
    positive: Tensor
    negatives: Tensor
    logits: Tensor | None = None
    ids: Tensor | None = None
    negative_ids: Tensor | None = None
    temperature: float | None = None


def bank(name: str = "memory_bank.bank") -> Any:
    """A look for `criterion(z0, z1)` losses that keep a memory bank in a tensor of that name (lightly's)."""
    raise NotImplementedError


def handed_back(query: str = "queries", positive: str = "keys", queue: str = "queue") -> Any:
    """A look for modules whose output holds queries and keys and which own a queue (stable-pretraining's MoCov2)."""
    raise NotImplementedError


def tensor_of(module: nn.Module, name: str) -> Tensor:
    """The tensor that a dotted name leads to."""
    raise NotImplementedError
