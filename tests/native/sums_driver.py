"""The C functions of sums over sets, compiled into a temporary folder and called through ctypes, and their formulas."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from onca.engine import build

Array = NDArray[np.float64]
KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


class Bag(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("queries", "views", "dim", "keys")),
        *((name, ctypes.c_void_p) for name in ("query", "query_factor", "key")),
        ("key_stride", ctypes.c_int64),
        *((name, ctypes.c_int32) for name in ("key_type", "threads")),
        *((name, ctypes.c_void_p) for name in ("key_factor", "present")),
        *((name, ctypes.c_void_p) for name in ("known", "known_start", "known_set")),
    ]


@dataclass
class Case:
    """query [B,D] float32, key [N,D], there bool [B,N] or None, factors float32 or None."""

    query: torch.Tensor
    key: torch.Tensor
    there: NDArray[np.bool_] | None = None
    query_factor: torch.Tensor | None = None
    key_factor: torch.Tensor | None = None
    threads: int = 1

    def bag(self) -> Bag:
        self.bits = None if self.there is None else pack(self.there)
        pointer = [0 if t is None else t.data_ptr() for t in (self.query_factor, self.key_factor)]
        bits = 0 if self.bits is None else self.bits.ctypes.data
        (b, d), n = self.query.shape, len(self.key)
        kind, stride = KINDS[self.key.dtype], self.key.stride(0)
        return Bag(
            b,
            1,
            d,
            n,
            self.query.data_ptr(),
            pointer[0],
            self.key.data_ptr(),
            stride,
            kind,
            self.threads,
            pointer[1],
            bits,
        )


def pack(there: NDArray[np.bool_]) -> NDArray[np.uint64]:
    rows, keys = there.shape
    padded = np.zeros((rows, (keys + 63) // 64 * 64), bool)
    padded[:, :keys] = there
    return np.ascontiguousarray(np.packbits(padded, axis=1, bitorder="little")).view(np.uint64)


class Native:
    def __init__(self, folder: Path, *options: str) -> None:
        build.compile_sources(folder / "native.so", *options)
        self.library = ctypes.CDLL(str(folder / "native.so"))
        self.library.onca_level.restype = ctypes.c_char_p

    @property
    def level(self) -> str:
        return str(self.library.onca_level().decode())

    def use(self, level: str) -> bool:
        return bool(self.library.onca_use(level.encode()) == 0)

    def call(self, name: str, *given: object) -> None:
        """Tensors and arrays go as pointers, None as NULL."""
        status = getattr(self.library, name)(*[_argument(value) for value in given])
        assert status == 0, f"{name}: status {status}"

    def sums(self, case: Case, scale: float) -> tuple[torch.Tensor, ...]:
        return tuple(found[0] for found in self.sums_at(case, [scale], 1))

    def sums_at(self, case: Case, scales: list[float], slopes: int) -> tuple[torch.Tensor, ...]:
        (b, d), z, scale = case.query.shape, len(scales), torch.tensor(scales)
        lse, toward, mean = torch.empty(z, b), torch.empty(slopes, b, d), torch.empty(slopes, b)
        self.call("onca_sums", case.bag(), z, scale, slopes, lse, toward, mean)
        return lse, toward, mean

    def spread(self, case: Case, scale: float, lse: torch.Tensor, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        (b, d), n = case.query.shape, len(case.key)
        toward, back, factor, mean = torch.empty(b, d), torch.empty(n, d), torch.empty(n), torch.empty(b)
        self.call("onca_spread", case.bag(), scale, lse, weight, toward, back, factor, mean)
        return toward, back, factor, mean

    def mutual(self, case: Case, scale: float, weight: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(lse, toward, mean) of a case whose queries are its keys."""
        lse, toward, mean = torch.empty(len(case.query)), torch.empty_like(case.query), torch.empty(len(case.query))
        self.call("onca_mutual_sums", case.bag(), scale, lse)
        self.call("onca_mutual", case.bag(), scale, lse, weight, toward, mean)
        return lse, toward, mean

    def hinge(self, case: Case, offset: torch.Tensor) -> tuple[torch.Tensor, ...]:
        b = len(case.query)
        hinge, active, toward, mean = (
            torch.empty(b),
            torch.empty(b, dtype=torch.int64),
            torch.empty_like(case.query),
            torch.empty(b),
        )
        self.call("onca_hinge", case.bag(), offset, hinge, active, toward, mean)
        return hinge, active, toward, mean


def _argument(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, float):
        return ctypes.c_float(value)
    if isinstance(value, int):
        return ctypes.c_int64(value)
    return ctypes.byref(value) if isinstance(value, ctypes.Structure) else value


@dataclass
class Exact:
    """The formulas in float64 on the same rounded inputs."""

    query: Array
    key: Array
    there: NDArray[np.bool_]
    query_factor: Array
    key_factor: Array

    @classmethod
    def of(cls, case: Case) -> Exact:
        def wide(t: torch.Tensor | None, n: int) -> Array:
            return np.ones(n) if t is None else t.double().numpy()

        (b, _), n = case.query.shape, len(case.key)
        there = np.ones((b, n), bool) if case.there is None else case.there
        return cls(
            case.query.double().numpy(),
            case.key.double().numpy(),
            there,
            wide(case.query_factor, b),
            wide(case.key_factor, n),
        )

    @property
    def score(self) -> Array:
        return (self.query @ self.key.T) * self.key_factor * self.query_factor[:, None]

    def lse(self, scale: float) -> Array:
        x = np.where(self.there, scale * self.score, -np.inf)
        top = np.max(x, axis=1, initial=-np.inf)
        top = np.where(np.isneginf(top), 0, top)
        with np.errstate(divide="ignore"):
            return np.log(np.exp(x - top[:, None]).sum(1)) + top

    def share(self, scale: float) -> Array:
        """The softmax over the present entries; 0 in rows without any."""
        lse = self.lse(scale)
        x = np.where(self.there, scale * self.score, -np.inf)
        return np.exp(x - np.where(np.isneginf(lse), 0, lse)[:, None])

    def slopes(self, by_score: Array) -> tuple[Array, Array, Array]:
        """(by query rows, by key rows, by key_factor) of a function whose slopes by the scores are given."""
        by_product = by_score * self.key_factor * self.query_factor[:, None]
        by_factor = (by_score * (self.query @ self.key.T) * self.query_factor[:, None]).sum(0)
        return by_product @ self.key, by_product.T @ self.query, by_factor
