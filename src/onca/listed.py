"""Rows that lists name: each query's own choice among rows that stand somewhere else.

Shapes: b queries, N vectors, L entries of a list, D dimensions.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

COPIED = {"cpu": 1 << 17, "cuda": 1 << 25}  # numbers of listed rows that are copied at a time


def pick(values: Tensor, rows: Tensor, own: bool) -> Tensor:
    """What stands in rows [b,L] of values that all queries share, or of each query's own: [b,L,...]."""
    if own:
        return values[torch.arange(len(rows), device=rows.device)[:, None], rows]
    return values.index_select(0, rows.flatten()).view(*rows.shape, *values.shape[1:])  # copies whole rows


class ListedScores(torch.autograd.Function):
    """Scores [b,L] of queries [b,D] with rows [b,L] of vectors [N,D], which are copied a few at a time, so that they
    stay in the cache."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, vectors: Tensor, rows: Tensor) -> Tensor:
        ctx.save_for_backward(query, vectors, rows)
        score = torch.empty_like(rows, dtype=query.dtype)
        for some in _few_rows(rows, vectors):
            score[some] = torch.linalg.vecdot(pick(vectors, rows[some], False).to(query.dtype), query[some, None])
        return score

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        query, vectors, rows = ctx.saved_tensors
        to_query, to_vectors = ctx.needs_input_grad[:2]
        by_query = torch.empty_like(query) if to_query else None
        by_vector = torch.zeros_like(vectors, dtype=query.dtype) if to_vectors else None
        for some in _few_rows(rows, vectors):
            if by_query is not None:
                by_query[some] = torch.bmm(grad[some, None], pick(vectors, rows[some], False).to(query.dtype))[:, 0]
            if by_vector is not None:
                by_vector.index_add_(0, rows[some].flatten(), (grad[some, :, None] * query[some, None]).flatten(0, 1))
        return by_query, None if by_vector is None else by_vector.to(vectors.dtype), None


def _few_rows(rows: Tensor, vectors: Tensor) -> list[slice]:
    """Queries whose lists of rows [b,L] are copied together."""
    step = max(1, COPIED.get(vectors.device.type, COPIED["cuda"]) // max(1, rows.shape[1] * vectors.shape[1]))
    return [slice(start, start + step) for start in range(0, len(rows), step)]
