"""The C functions through ctypes, as plain as they are, and a stable sort of their own scores to hold them to."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np

Array = np.ndarray
SOURCE = Path(__file__).resolve().parents[2] / "src" / "onca" / "engine" / "c" / "native.c"
COMPILER = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")


def compiled(folder: Path, source: Path = SOURCE) -> Path:
    path = folder / "native.so"
    flags = ["-O2", "-Wall", "-Wextra", "-Werror", "-Wno-psabi", "-DONCA_EMULATE_AMX", "-shared", "-fPIC"]
    subprocess.run([str(COMPILER), *flags, "-o", str(path), str(source), "-lm", "-lpthread"], check=True)
    return path


def unit(rng: np.random.Generator, *shape: int) -> Array:
    x = rng.standard_normal(shape).astype(np.float32)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


class Bag(ctypes.Structure):
    """`onca_bag` of onca.h."""

    _fields_ = [
        *[(name, ctypes.c_int64) for name in ("queries", "views", "dim", "keys")],
        *[(name, ctypes.c_void_p) for name in ("query", "query_factor", "key")],
        ("key_stride", ctypes.c_int64),
        *[(name, ctypes.c_int32) for name in ("key_type", "threads")],
        *[(name, ctypes.c_void_p) for name in ("key_factor", "present")],
        *[(name, ctypes.c_void_p) for name in ("known", "known_start", "known_set")],
    ]


def at(array: Array | None) -> ctypes.c_void_p:
    return ctypes.c_void_p(None if array is None else array.ctypes.data)


def pack(there: Array) -> Array:
    """Bool [..., N] as words [..., ceil(N / 64)]."""
    n = there.shape[-1]
    padded = np.zeros((*there.shape[:-1], -(-n // 64) * 64), np.uint8)
    padded[..., :n] = there
    return np.packbits(padded, axis=-1, bitorder="little").view(np.uint64)


def unpack(bits: Array, n: int) -> Array:
    return np.unpackbits(bits.view(np.uint8), axis=-1, bitorder="little")[..., :n].astype(bool)


def bfloat16(x: Array) -> Array:
    return (x.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


class Case:
    """Queries [B,D] or [B,S,D] float32 against keys [N,D] (uint16 are bfloat16); present: bool [B,N]."""

    def __init__(
        self,
        query: Array,
        key: Array,
        query_factor: Array | None = None,
        key_factor: Array | None = None,
        present: Array | None = None,
        place: Array | None = None,
        threads: int = 1,
    ) -> None:
        self.query, self.key = np.ascontiguousarray(query, np.float32), key
        self.bits = None if present is None else pack(present)
        self.factors = [None if f is None else np.ascontiguousarray(f, np.float32) for f in (query_factor, key_factor)]
        self.place = None if place is None else np.ascontiguousarray(place, np.int64)
        self.shape = len(query), len(key)
        self.present = np.ones(self.shape, bool) if present is None else present
        kind = {"float32": 0, "uint16": 1, "float16": 2}[key.dtype.name]
        views = query.shape[1] if query.ndim == 3 else 1
        pointers = [at(self.query), at(self.factors[0]), at(key)]
        stride = key.strides[0] // key.itemsize
        self.bag = Bag(len(query), views, query.shape[-1], len(key), *pointers, stride, kind, threads)
        self.bag.key_factor, self.bag.present = at(self.factors[1]), at(self.bits)

    def order(self, scores: Array, row: int) -> Array:
        """Columns of the present entries of a row from the hardest on, ties by place."""
        there = np.flatnonzero(self.present[row])
        place = there if self.place is None else self.place[there]
        return there[np.lexsort((place, -scores[row, there].astype(np.float64)))]


class Known:
    """Room for the scores of a set as `onca_select` fills it, for ranks [B,1]."""

    def __init__(self, case: Case, rank: Array, spare: float) -> None:
        self.many = np.clip(rank[:, 0], 0, case.present.sum(1))
        self.start = np.concatenate([[0], np.cumsum(self.many + (self.many * spare).astype(np.int64) + 16)])
        self.score = np.full(self.start[-1] + 1, 777.0, np.float32)  # one more, which nothing may touch

    def of(self, row: int) -> Array:
        assert self.score[-1] == 777.0
        return self.score[self.start[row] : self.start[row] + self.many[row]]


class Library:
    def __init__(self, path: Path) -> None:
        self.of = ctypes.CDLL(str(path))

    def use(self, level: str) -> bool:
        return self.of.onca_use(level.encode()) == 0

    def scores(self, case: Case) -> Array:
        score = np.empty(case.shape, np.float32)
        assert self.of.onca_scores(ctypes.byref(case.bag), at(score)) == 0
        return score

    def select(
        self, case: Case, rank: Array, sample: int = 0, spread: float = 0.0, known: Known | None = None
    ) -> tuple[int, Array, Array, Array, int]:
        """(status, score [B,E], place [B,E], chosen bits [E,B,W], tied) for ranks [B,E]; known is filled."""
        (b, n), e = case.shape, rank.shape[1]
        rank = np.ascontiguousarray(rank, np.int64)
        score, place, tied = np.empty((b, e), np.float32), np.empty((b, e), np.int64), ctypes.c_int32(-1)
        chosen = np.full((e, b, -(-n // 64)), 0xABCDEF, np.uint64)  # what is not written shows
        how = ctypes.c_int64(sample), ctypes.c_float(spread), at(score), at(place), at(chosen), ctypes.byref(tied)
        keep = at(known.score if known else None), at(known.start if known else None)
        status = self.of.onca_select(ctypes.byref(case.bag), ctypes.c_int64(e), at(rank), at(case.place), *how, *keep)
        return status, score, place, chosen, tied.value

    def above(self, case: Case, bound: Array) -> tuple[int, Array]:
        chosen = np.full((case.shape[0], -(-case.shape[1] // 64)), 0xABCDEF, np.uint64)
        return self.of.onca_above(ctypes.byref(case.bag), at(np.ascontiguousarray(bound)), at(chosen)), chosen

    def nearest(self, case: Case, k: int) -> tuple[int, Array, Array]:
        column, score = np.empty((case.shape[0], k), np.int64), np.empty((case.shape[0], k), np.float32)
        status = self.of.onca_nearest(ctypes.byref(case.bag), ctypes.c_int64(k), at(column), at(score))
        return status, column, score


def check_select(library: Library, case: Case, rank: Array, sample: int = 0, spread: float = 0.0) -> None:
    """Sets, scores, places and ties are those of the sorted scores; so they are where scores of the set are kept."""
    scores = library.scores(case)
    status, score, place, chosen, tied = library.select(case, rank, sample, spread)
    assert status == 0
    if rank.shape[1] == 1 and case.bag.views == 1:
        for spare in (0.0, 0.5):
            known = Known(case, rank, spare)
            status, *found = library.select(case, rank, sample, spread, known)
            assert status == 0
            for mine, theirs in zip(found, (score, place, chosen, tied), strict=True):
                assert np.array_equal(mine, theirs)
            for b in range(case.shape[0]):
                columns = np.sort(case.order(scores, b)[: max(0, rank[b, 0])])
                assert np.array_equal(known.of(b), scores[b, columns])
    expected, any_tied = np.zeros((rank.shape[1], *case.shape), bool), False
    for b in range(case.shape[0]):
        order = case.order(scores, b)
        for e, wanted in enumerate(np.minimum(rank[b], len(order))):
            if wanted <= 0:
                assert (score[b, e], place[b, e]) == (np.inf, -1)
                continue
            edge = order[wanted - 1]
            expected[e, b, order[:wanted]] = True
            assert score[b, e] == scores[b, edge]
            assert place[b, e] == (edge if case.place is None else case.place[edge])
            any_tied |= int((scores[b, order] == scores[b, edge]).sum()) > 1
    assert np.array_equal(chosen, pack(expected))
    assert tied == any_tied


def check_above(library: Library, case: Case, bound: Array) -> None:
    status, chosen = library.above(case, bound)
    assert status == 0
    assert np.array_equal(chosen, pack((library.scores(case) > bound[:, None]) & case.present))


def check_nearest(library: Library, case: Case, k: int) -> None:
    """case.place must be None: ties go by column."""
    scores = library.scores(case)
    status, column, score = library.nearest(case, k)
    assert status == 0
    for b in range(case.shape[0]):
        best = case.order(scores, b)[:k]
        assert np.array_equal(column[b, : len(best)], best) and (column[b, len(best) :] == -1).all()
        assert np.array_equal(score[b, : len(best)], scores[b, best]) and (score[b, len(best) :] == -np.inf).all()
