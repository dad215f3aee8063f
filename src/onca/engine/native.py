"""The native engine: the C kernels of `c/onca.h`, called through ctypes on the memory of CPU tensors.

Pointers go in as they are. A tensor is copied only where its type or strides force it: queries that are not contiguous
float32, keys whose numbers do not lie side by side. ctypes lets go of the interpreter's lock while C runs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from torch import Tensor

from onca.engine import build
from onca.engine.kernels import Absent, Hinged, Known, NotFinite, Selected, Spread, Sums, View, words

KEY_TYPES = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
NOT_FINITE, NO_MEMORY = 1, 2
FEW = 1 / 8  # of the entries: a set of so many keeps its scores
SPARE = 96  # places for a row beside half as many again as its set has: few candidates need more


class Bag(ctypes.Structure):
    """`onca_bag` of onca.h."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("queries", "views", "dim", "keys")),
        *((name, ctypes.c_void_p) for name in ("query", "query_factor", "key")),
        ("key_stride", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("key_type", "threads")),
        *((name, ctypes.c_void_p) for name in ("key_factor", "present")),
        *((name, ctypes.c_void_p) for name in ("known", "known_start", "known_set")),
    )


BAG, PLACE, LONG, FLOAT = ctypes.POINTER(Bag), ctypes.c_void_p, ctypes.c_int64, ctypes.c_float

# Arguments as in onca.h. All but the last three give a status.
FUNCTIONS = {
    "onca_scores": (BAG, PLACE),
    "onca_lengths": (LONG, LONG, PLACE, LONG, ctypes.c_int32, ctypes.c_int32, PLACE),
    "onca_select": (BAG, LONG, PLACE, PLACE, LONG, FLOAT, *[PLACE] * 6),
    "onca_above": (BAG, PLACE, PLACE),
    "onca_nearest": (BAG, LONG, PLACE, PLACE),
    "onca_sums": (BAG, LONG, PLACE, LONG, PLACE, PLACE, PLACE),
    "onca_spread": (BAG, FLOAT, PLACE, PLACE, PLACE, PLACE, PLACE, PLACE),
    "onca_mutual_sums": (BAG, FLOAT, PLACE),
    "onca_mutual": (BAG, FLOAT, PLACE, PLACE, PLACE, PLACE),
    "onca_hinge": (BAG, PLACE, PLACE, PLACE, PLACE, PLACE),
    "onca_equal": (LONG, LONG, PLACE, PLACE, ctypes.c_int32, PLACE),
    "onca_count": (LONG, LONG, PLACE, PLACE),
    "onca_hits": (LONG, LONG, PLACE, PLACE),
    "onca_listed": (LONG, LONG, PLACE, LONG, PLACE),
}


@cache
def library() -> ctypes.CDLL:
    """The compiled object. Raises Absent where there is none, ValueError where it was made from other sources."""
    if not build.OBJECT.exists():
        why = build.REASON.read_text(encoding="utf-8").strip() if build.REASON.exists() else f"run `{build.REMEDY}`"
        raise Absent(f"the native engine was not compiled: {why}")
    try:
        loaded = ctypes.CDLL(str(build.OBJECT))
        built = ctypes.c_char.in_dll(loaded, "onca_built")
        loaded.onca_level.restype = ctypes.c_char_p
        for name, arguments in FUNCTIONS.items():
            getattr(loaded, name).argtypes = arguments
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"the native engine does not load ({error}): run `{build.REMEDY}`") from error
    if ctypes.string_at(ctypes.addressof(built)).decode() != build.fingerprint():
        raise ValueError(
            f"the native engine was compiled from other sources than {build.SOURCES}: run `{build.REMEDY}`"
        )
    return loaded


class Native:
    """Kernels on the CPU, in C. Raises ValueError where the object is not there, with the remedy."""

    name = "native"

    def __init__(self) -> None:
        self._c = library()

    def __str__(self) -> str:
        return f"{self.name} ({self.level})"

    @property
    def level(self) -> str:
        """The instructions in use: "amx", "avx512", "avx2" or "portable"."""
        return str(self._c.onca_level().decode())

    def use(self, level: str) -> None:
        """Sets the level for the whole process, for tests. Raises ValueError where the processor does not have it."""
        if self._c.onca_use(level.encode()):
            raise ValueError(f"level {level!r} is not on this machine; it uses {self.level!r}")

    def serves(self, query: Tensor, keys: Tensor) -> str:
        for what, tensor in (("queries", query), ("keys", keys)):
            if tensor.device.type != "cpu":
                return f"{what} are on {tensor.device.type}, and the native engine works on the CPU"
            if tensor.dtype not in KEY_TYPES:
                return (
                    f"{what} are {str(tensor.dtype).removeprefix('torch.')}, and the native engine computes in float32"
                )
        return ""

    def scores(self, view: View) -> Tensor:
        score = torch.empty(view.shape)
        self._call("onca_scores", view, score)
        return score

    def lengths(self, rows: Tensor) -> Tensor:
        rows = rows if rows.stride(1) == 1 else rows.contiguous()
        length = torch.empty(len(rows))
        given = (*rows.shape, _at(rows), rows.stride(0), KEY_TYPES[rows.dtype], torch.get_num_threads())
        _check(self._c.onca_lengths(*given, _at(length)))
        return length

    def select(self, view: View, rank: Tensor, sample: int = 0, spread: float = 0.0) -> Selected:
        """sample, spread: keys sampled for the bracket, its half width in standard deviations; 0: the engine's own."""
        (queries, keys), edges = view.shape, rank.shape[1]
        rank = _ready(rank, torch.int64, queries, edges)
        place = None if view.place is None else _ready(view.place, torch.int64, keys)
        score, at = torch.empty(queries, edges), torch.empty(queries, edges, dtype=torch.int64)
        chosen = torch.empty(edges, queries, words(keys), dtype=torch.int64)
        tied, known = ctypes.c_int32(), _known(view, rank, chosen)
        given = (edges, rank, place, sample, spread, score, at, chosen, ctypes.addressof(tied))
        self._call("onca_select", view, *given, *((known.score, known.start) if known else (None, None)))
        return Selected(score, at, chosen, bool(tied.value), known)

    def above(self, view: View, bound: Tensor) -> Tensor:
        bound = _ready(bound, torch.float32, len(view.query))
        chosen = torch.empty(len(bound), words(len(view.keys)), dtype=torch.int64)
        self._call("onca_above", view, bound, chosen)
        return chosen

    def nearest(self, view: View, k: int) -> tuple[Tensor, Tensor]:
        score = torch.empty(len(view.query), k)
        column = torch.empty(len(view.query), k, dtype=torch.int64)
        self._call("onca_nearest", view, k, column, score)
        return score, column

    def sums(self, view: View, scales: Sequence[float], slopes: int) -> Sums:
        queries, dim = len(view.query), view.query.shape[-1]
        lse, scale = torch.empty(len(scales), queries), torch.tensor(scales, dtype=torch.float32)
        toward, mean = _room(slopes > 0, slopes, queries, dim), _room(slopes > 0, slopes, queries)
        self._call("onca_sums", view, len(scales), scale, slopes, lse, toward, mean)
        return Sums(lse, toward, mean)

    def spread(self, view: View, scale: float, lse: Tensor, weight: Tensor, toward: bool, back: bool) -> Spread:
        (queries, keys), dim = view.shape, view.query.shape[-1]
        lse, weight = _ready(lse, torch.float32, queries), _ready(weight, torch.float32, queries)
        slope, mean = _room(toward, queries, dim), _room(toward, queries)
        by_key, by_factor = _room(back, keys, dim), _room(back, keys)
        self._call("onca_spread", view, scale, lse, weight, slope, by_key, by_factor, mean)
        return Spread(slope, mean, by_key, by_factor)

    def mutual_sums(self, view: View, scale: float) -> Tensor:
        lse = torch.empty(len(view.query))
        self._call("onca_mutual_sums", view, scale, lse)
        return lse

    def mutual(self, view: View, scale: float, lse: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        queries, dim = view.query.shape
        lse, weight = _ready(lse, torch.float32, queries), _ready(weight, torch.float32, queries)
        toward, mean = torch.empty(queries, dim), torch.empty(queries)
        self._call("onca_mutual", view, scale, lse, weight, toward, mean)
        return toward, mean

    def hinge(self, view: View, offset: Tensor, slopes: bool) -> Hinged:
        queries, dim = len(view.query), view.query.shape[-1]
        offset, total = _ready(offset, torch.float32, queries), torch.empty(queries)
        active = torch.empty(queries, dtype=torch.int64)
        toward, mass = _room(slopes, queries, dim), _room(slopes, queries)
        self._call("onca_hinge", view, offset, total, active, toward, mass)
        return Hinged(total, active, toward, mass)

    def equal(self, mine: Tensor, theirs: Tensor) -> Tensor:
        mine, theirs = _ready(mine, torch.int64, len(mine)), _ready(theirs, torch.int64, len(theirs))
        chosen = torch.empty(len(mine), words(len(theirs)), dtype=torch.int64)
        given = len(mine), len(theirs), _at(mine), _at(theirs), torch.get_num_threads()
        _check(self._c.onca_equal(*given, _at(chosen)))
        return chosen

    def count(self, bits: Tensor, keys: int) -> Tensor:
        return self._read("onca_count", bits, keys, torch.empty(len(bits), dtype=torch.int64))

    def hits(self, bits: Tensor, keys: int) -> Tensor:
        return self._read("onca_hits", bits, keys, torch.empty(keys, dtype=torch.int64))

    def listed(self, bits: Tensor, keys: int, most: int) -> Tensor:
        return self._read("onca_listed", bits, keys, torch.empty(len(bits), most, dtype=torch.int64), most)

    def _read(self, function: str, bits: Tensor, keys: int, into: Tensor, *more: int) -> Tensor:
        bits = _ready(bits, torch.int64, len(bits), words(keys))
        getattr(self._c, function)(len(bits), keys, _at(bits), *more, _at(into))
        return into

    def _call(self, function: str, view: View, *arguments: Tensor | float | None) -> None:
        """Calls with the view as an onca_bag; tensors become pointers, and live until C has returned."""
        query = view.query if view.query.dim() == 3 else view.query[:, None]
        rows = view.keys if view.keys.stride(1) == 1 else view.keys.contiguous()
        if self.serves(query, rows) or query.shape[2] != rows.shape[1]:
            raise ValueError(f"the native engine was given queries {list(query.shape)} and keys {list(rows.shape)}")
        query = _ready(query, torch.float32, *query.shape)
        by_query, by_key, present = view.query_factor, view.key_factor, view.present
        by_query = None if by_query is None else _ready(by_query, torch.float32, *view.query.shape[:-1])
        by_key = None if by_key is None else _ready(by_key, torch.float32, len(rows))
        present = None if present is None else _ready(present, torch.int64, len(query), words(len(rows)))
        queries = (*query.shape, len(rows), _at(query), _at(by_query))
        keys = (_at(rows), rows.stride(0), KEY_TYPES[rows.dtype], torch.get_num_threads(), _at(by_key), _at(present))
        known = view.known
        scores = () if known is None else map(_at, (known.score, known.start, known.of))
        passed = [x.data_ptr() if isinstance(x, Tensor) else x for x in arguments]
        _check(getattr(self._c, function)(Bag(*queries, *keys, *scores), *passed))


def _known(view: View, rank: Tensor, chosen: Tensor) -> Known | None:
    """Room for the scores of an only set, where it is small: what is summed over it then needs them, while for a large
    one its own products are as fast."""
    queries, keys = view.shape
    if rank.shape[1] != 1 or view.query.dim() != 2 or not queries:
        return None
    many = rank[:, 0].numpy().clip(0, keys)
    if many.sum() > FEW * queries * keys:
        return None
    start = np.zeros(queries + 1, np.int64)
    np.cumsum(many + many // 2 + SPARE, out=start[1:])
    return Known(torch.empty(start[-1]), torch.from_numpy(start), chosen[0])


def _ready(tensor: Tensor, dtype: torch.dtype, *shape: int) -> Tensor:
    """`tensor` as C reads it; the shape is checked, since C would read past the end."""
    if tensor.shape != shape or not tensor.is_cpu:
        raise ValueError(
            f"the native engine was given {list(tensor.shape)} on {tensor.device} where {list(shape)} is due"
        )
    if tensor.dtype != dtype:
        tensor = tensor.detach().to(dtype)
    return tensor if tensor.is_contiguous() else tensor.contiguous()


def _at(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def _room(wanted: bool, *shape: int) -> Tensor | None:
    return torch.empty(shape) if wanted else None


def _check(status: int) -> None:
    if status == NOT_FINITE:
        raise NotFinite("a score is not a number: queries or keys hold nan or inf")
    if status == NO_MEMORY:
        raise MemoryError("the native engine found no memory for its working space")
