"""Exact k nearest neighbours of any embeddings: for each query the rows that score highest.

An engine answers where one serves the tensors, else torch does (`onca.search`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from onca.engine import NotFinite, View, chosen
from onca.engine.kernels import Known
from onca.search import Search, finite_lengths, inverse


class Neighbours(NamedTuple):
    """score [B,k] in float32 (float64 where an input is), row [B,k] int64: best first, ties by row; (-inf, -1) where
    there are no more."""

    score: Tensor
    row: Tensor


@torch.no_grad()
def neighbours(
    query: Tensor, keys: Tensor, k: int, *, normalize: bool = False, exclude: Tensor | None = None
) -> Neighbours:
    """The k rows of keys [N,D] with the largest products with each query [B,D], exactly.

    Args:
        query, keys: float32, bf16, fp16 or float64, each of its own, with any strides. Products are summed in float32
            or better.
        k: from 1, also above N.
        normalize: divide products by the lengths of both rows (cosines; a zero row scores 0), without copying keys.
        exclude: int64 [B], a row of keys that the query must not find, itself for instance; -1 is none.

    No B x N matrix is held. In torch on a CPU it takes up to 200 MB beside the result, or 32 rows of N scores and what
    choosing from them takes where that is more.

    Raises:
        ValueError: shapes, types or devices that do not fit, k below 1, exclude outside of -1 to N - 1; nan, inf or a
            length above 1e19 in a row, with the row.
    """
    _check(query, keys, k, exclude)
    wanted = k if exclude is None else k + 1
    with torch.autocast(query.device.type, enabled=False):
        found = _nearest(query.detach(), keys.detach(), min(wanted, len(keys)), normalize)
    missing = (0, wanted - found.row.shape[1])
    found = Neighbours(pad(found.score, missing, value=-torch.inf), pad(found.row, missing, value=-1))
    return found if exclude is None else _without(found, exclude)


def _nearest(query: Tensor, keys: Tensor, k: int, normalize: bool) -> Neighbours:
    """k from 0 to N."""
    kernels = chosen(query, keys)[0]
    if kernels is None or not (k and len(query)):
        return Neighbours(*Search.prepared(query, keys, k, normalize).run())
    rows = ("query", query), ("keys", keys)
    mine, theirs = (inverse(finite_lengths(*each)) if normalize else None for each in rows)
    try:
        return Neighbours(*kernels.nearest(View(query, keys, mine, theirs), k))
    except NotFinite:
        for each in rows:
            finite_lengths(*each)  # raises, and names the row
        raise


@dataclass(eq=False)
class Nearby:
    """The rows of keys [N,D] nearest to each query [B,D], k of them, without the row `exclude` [B]; searched for when
    they are asked for. among: bits int64 [B,W] of rows that hold them, where a selection by the same scores found some;
    known: the scores of those, if it kept them.
    """

    query: Tensor
    keys: Tensor
    k: int
    exclude: Tensor
    among: Tensor | None = None
    known: Known | None = None

    @torch.no_grad()
    def rows(self) -> Tensor:
        """[B,k], nearest first, ties by row; -1 where there are no more."""
        kernels = chosen(self.query, self.keys)[0]
        if self.among is None or kernels is None:
            return neighbours(self.query, self.keys, self.k, exclude=self.exclude).row
        own = kernels.equal(self.exclude, torch.arange(len(self.keys), device=self.keys.device))
        view = View(self.query.detach(), self.keys, present=self.among & own.bitwise_not_(), known=self.known)
        return kernels.nearest(view, self.k)[1]


def _without(found: Neighbours, exclude: Tensor) -> Neighbours:
    """One neighbour fewer: the excluded one, or else the last."""
    hit = found.row == exclude[:, None]
    last = hit.shape[1] - 1
    at = torch.where(hit.any(1), hit.byte().argmax(1), last)
    column = torch.arange(last, device=hit.device)
    column = column + (column >= at[:, None])
    return Neighbours(found.score.gather(1, column), found.row.gather(1, column))


def _check(query: Tensor, keys: Tensor, k: int, exclude: Tensor | None) -> None:
    """Raises ValueError for arguments of `neighbours` that do not fit."""
    if query.dim() != 2 or keys.dim() != 2 or query.shape[1] != keys.shape[1] or query.device != keys.device:
        raise ValueError(
            "neighbours takes query [B,D] and keys [N,D] on one device; got "
            f"{list(query.shape)} on {query.device} and {list(keys.shape)} on {keys.device}"
        )
    if not (query.is_floating_point() and keys.is_floating_point()):
        raise ValueError(f"neighbours takes rows of float numbers; got {query.dtype} and {keys.dtype}: call .float()")
    if isinstance(k, bool) or not isinstance(k, int) or k < 1:
        raise ValueError(f"k={k!r}: the number of neighbours is a whole number from 1")
    if exclude is None:
        return
    if exclude.shape != query.shape[:1] or exclude.dtype != torch.int64 or exclude.device != keys.device:
        raise ValueError(
            f"exclude holds a row of keys for each query, int64 [{len(query)}] on {keys.device}, -1 for none; "
            f"got {list(exclude.shape)} of {exclude.dtype} on {exclude.device}"
        )
    if len(exclude) and not -1 <= int(exclude.min()) <= int(exclude.max()) < len(keys):
        raise ValueError(
            f"exclude runs from {int(exclude.min())} to {int(exclude.max())}: rows of keys are 0 to {len(keys) - 1}, "
            "and -1 is none"
        )
