"""What an engine can do: kernels over one set of keys that all queries share, and sets of entries as bits.

Shapes: B queries of S views each (S = 1 but for support views), N keys, D dimensions, E edges, W = ceil(N / 64) words.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Known:
    """Scores that a selection made: those of the entries in `of`, bits int64 [B,W], in order of columns.

    score float32 [n]; start int64 [B+1], where each row's begin, with room behind them.
    """

    score: Tensor
    start: Tensor
    of: Tensor


@dataclass(frozen=True, eq=False)
class View:
    """Queries against keys, as kernels take them: constants, no graph.

    query [B,D], or [B,S,D]: the score of a query is then the largest of its S rows'. keys [N,D] in their own dtype.
    A score is (query . key, accumulated in float32) * key_factor [N] * query_factor [B] or [B,S]; None is 1.
    present: bits int64 [B,W] of the entries that are there, None is all. place int64 [N], None: the columns.
    known: scores of this view's, for sums and nearest; an engine may make them anew.
    """

    query: Tensor
    keys: Tensor
    query_factor: Tensor | None = None
    key_factor: Tensor | None = None
    present: Tensor | None = None
    place: Tensor | None = None
    known: Known | None = None

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.query), len(self.keys)


@dataclass(frozen=True, eq=False)
class Selected:
    """The rank-th entries from the hard end: score, place [B,E] ((inf, -1) for rank 0); chosen int64 [E,B,W], the bits
    of the rank hardest; tied: does any other present entry score the same as one of them. known: the scores of an
    only edge's set; None where an engine did not keep them."""

    score: Tensor
    place: Tensor
    chosen: Tensor
    tied: bool
    known: Known | None = None


class Sums(NamedTuple):
    """lse [Z,B]: log sum exp(scale * score); of as many scales as were wanted, toward [z,B,D], its slope by the query
    rows, and mean [z,B], the mean score under the softmax; -inf, 0, 0 where nothing is present. None: not wanted."""

    lse: Tensor
    toward: Tensor | None
    mean: Tensor | None


@dataclass(frozen=True, eq=False)
class Spread:
    """Slopes of a weighted sum over queries: toward [B,D] by the query rows as given, mean [B]: weight times the mean
    score, back [N,D] by the keys as given, back_factor [N] by key_factor. None: not asked for."""

    toward: Tensor | None
    mean: Tensor | None
    back: Tensor | None
    back_factor: Tensor | None


@dataclass(frozen=True, eq=False)
class Hinged:
    """Sums over present entries of max(0, score + offset): total [B], active int64 [B], how many are above 0; where
    wanted, toward [B,D], the slope by the query rows, and mass [B], the sum of the scores of the active ones."""

    total: Tensor
    active: Tensor
    toward: Tensor | None
    mass: Tensor | None


class Absent(ValueError):
    """An engine that is not here, with the reason; torch serves instead."""


class NotFinite(ValueError):
    """A score is nan, so that ranks mean nothing."""


class Kernels(Protocol):
    """An engine. Sets are those of a stable descending order of its own `scores`, exactly; ties go to the smaller
    place. All give float32. Padding bits of what it gives are 0. Two calls with the same input give the same bits.
    """

    @property
    def name(self) -> str: ...

    def serves(self, query: Tensor, keys: Tensor) -> str:
        """Why it does not serve these tensors, in words; "" when it does."""
        ...

    def scores(self, view: View) -> Tensor:
        """All scores [B,N], for tests and small bags."""
        ...

    def lengths(self, rows: Tensor) -> Tensor:
        """The length of each row of keys [N,D]: float32 [N]."""
        ...

    def select(self, view: View, rank: Tensor) -> Selected:
        """rank int64 [B,E], 0 to the number of present entries of the row (more counts as that many). Raises NotFinite
        where a query or key holds nan or inf."""
        ...

    def above(self, view: View, bound: Tensor) -> Tensor:
        """Bits [B,W] of the present entries whose score is more than bound [B]."""
        ...

    def nearest(self, view: View, k: int) -> tuple[Tensor, Tensor]:
        """(score, column) [B,k] of the present entries that score highest, best first, ties by column; (-inf, -1) where
        there are fewer."""
        ...

    def sums(self, view: View, scales: Sequence[float], slopes: int) -> Sums:
        """At each of Z scales, all over the same products; with slopes of the first `slopes` of them. S must be 1."""
        ...

    def spread(self, view: View, scale: float, lse: Tensor, weight: Tensor, toward: bool, back: bool) -> Spread:
        """Slopes of sum_b weight[b] * lse[b]; lse [B] as `sums` gave it at this scale, weight [B]."""
        ...

    def mutual_sums(self, view: View, scale: float) -> Tensor:
        """What `sums` gives without slopes [B], where the queries are the keys, with the same factors, and who is
        present for whom is mutual."""
        ...

    def mutual(self, view: View, scale: float, lse: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(toward [B,D], mean [B]) of `spread` where `mutual_sums` holds: rows as queries and as keys together."""
        ...

    def hinge(self, view: View, offset: Tensor, slopes: bool) -> Hinged:
        """offset [B]. S must be 1."""
        ...

    def equal(self, mine: Tensor, theirs: Tensor) -> Tensor:
        """Bits [B,W]: mine int64 [B] == theirs int64 [N], and not negative."""
        ...

    def count(self, bits: Tensor, keys: int) -> Tensor:
        """How many bits each row has: int64 [B]."""
        ...

    def hits(self, bits: Tensor, keys: int) -> Tensor:
        """How many rows have each bit: int64 [N]."""
        ...

    def listed(self, bits: Tensor, keys: int, most: int) -> Tensor:
        """Columns of the first `most` bits of each row, ascending: int64 [B,most], -1 where there are fewer."""
        ...


def both_ways(kernels: Kernels, view: View, scale: float, lse: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """`Kernels.mutual` by way of `spread`."""
    found = kernels.spread(view, scale, lse, weight, True, True)
    assert found.toward is not None and found.back is not None
    assert found.mean is not None and found.back_factor is not None
    length = found.back_factor if view.key_factor is None else found.back_factor * view.key_factor
    return found.toward + found.back, found.mean + length / scale


def words(keys: int) -> int:
    return (keys + 63) // 64


def pack(there: Tensor) -> Tensor:
    """Bool [b,N] as bits int64 [b,W]."""
    rows, keys = there.shape
    if there.device.type == "cpu":
        packed = np.zeros((rows, 8 * words(keys)), np.uint8)
        packed[:, : (keys + 7) // 8] = np.packbits(there.numpy(), axis=1, bitorder="little")
        return torch.from_numpy(packed.view(np.int64))
    padded = torch.zeros(rows, words(keys) * 64, dtype=torch.int64, device=there.device)
    padded[:, :keys] = there
    return (padded.view(rows, -1, 64) << torch.arange(64, device=there.device)).sum(-1)


def unpack(bits: Tensor, keys: int) -> Tensor:
    """Bits int64 [b,W] as bool [b,N]."""
    if bits.device.type == "cpu":
        found = np.unpackbits(bits.contiguous().numpy().view(np.uint8), axis=1, count=keys, bitorder="little")
        return torch.from_numpy(found.view(np.bool_))
    shifts = torch.arange(64, device=bits.device)
    return ((bits[:, :, None] >> shifts) & 1).bool().flatten(1)[:, :keys]


def between(start: int, stop: int, keys: int, device: torch.device) -> Tensor:
    """The bits start to stop - 1: int64 [1,W]."""
    place = torch.arange(keys, device=device)
    return pack(((place >= start) & (place < stop))[None])
