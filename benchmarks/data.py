"""Rows of unit length that tables are measured on; always the same."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

CLUSTERS = 100
KINDS = ("spread", "clustered", "collapsed")


def rows(count: int, dim: int, seed: int, kind: str = "spread") -> Tensor:
    """Unit rows [count,dim]. spread: in all directions alike; clustered: 100 clusters, cosine 0.5 within one;
    collapsed: cosine 0.99 between any two, as of an encoder at its start."""
    noise = normalize(torch.randn(count, dim, generator=torch.Generator().manual_seed(seed)))
    if kind == "spread":
        return noise
    fixed = torch.Generator().manual_seed(1000)
    if kind == "collapsed":
        return normalize(normalize(torch.randn(1, dim, generator=fixed)) + 0.1 * noise)
    centres = normalize(torch.randn(CLUSTERS, dim, generator=fixed))
    return normalize(centres[torch.arange(count) % CLUSTERS] + noise)


def triple(batch: int, size: int, dim: int, kind: str = "spread") -> tuple[Tensor, Tensor, Tensor]:
    """query, positive [B,D] with cosine 0.3 to it, keys [N,D]."""
    query, noise, keys = rows(batch, dim, 0, kind), rows(batch, dim, 1), rows(size, dim, 2, kind)
    return query, normalize(query + 3 * noise), keys


def shape(batch: int, size: int, dim: int) -> str:
    return f"{batch:,} queries x {size:,} keys x {dim}"
