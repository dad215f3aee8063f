"""Engines: what goes over keys. The torch engine is the walks' own code; others serve keys that all queries share."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from types import TracebackType

from torch import Tensor

from onca.engine.kernels import Absent, Kernels, NotFinite, Selected, Spread, View

__all__ = ["Kernels", "NotFinite", "Selected", "Spread", "View", "chosen", "engine", "in_use", "note", "traced"]

NAMES = ("auto", "torch", "native", "triton")
LEAST = 64  # keys below which a walk in torch is over before an engine has been called

_wanted = "auto"
_trace: list[tuple[str, str]] | None = None


class engine:
    """`onca.engine("torch")` sets which engine serves from now on; in a `with` statement, until its end.

    name: "auto" is triton for tensors on CUDA and native on the CPU, where they are there; "torch", "native", "triton"
    force one. What an engine does not cover runs in torch all the same: `onca explain METHOD` tells. One setting for
    the whole process.

    Raises ValueError for an unknown name, or an engine that cannot run here, with the reason.
    """

    def __init__(self, name: str) -> None:
        global _wanted
        if name not in NAMES:
            raise ValueError(f"engine {name!r} is not known; take one of {', '.join(NAMES)}")
        if name in ("native", "triton"):
            _loaded(name)
        self.before, _wanted = _wanted, name

    def __enter__(self) -> engine:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        global _wanted
        _wanted = self.before


def chosen(query: Tensor, keys: Tensor) -> tuple[Kernels | None, str]:
    """The engine that serves queries [B,D] against shared keys [N,D], or None (torch) and the reason, in words.

    Raises ValueError: the engine is there and broken, or was compiled from other sources."""
    if _wanted == "torch":
        return None, "as asked"
    name = _wanted if _wanted != "auto" else "triton" if keys.device.type == "cuda" else "native"
    if _wanted == "auto" and len(keys) < LEAST:
        return None, f"fewer than {LEAST} keys"
    try:
        kernels = _loaded(name)
    except Absent:
        return None, f"no {name} engine here"  # `in_use` says why
    reason = kernels.serves(query, keys)
    return (None, reason) if reason else (kernels, "")


def in_use(device: str = "cpu") -> str:
    """What the engine is that shared keys on this device are served by now, e.g. "native (avx512)"."""
    name = _wanted if _wanted != "auto" else "triton" if device == "cuda" else "native"
    if name == "torch":
        return name
    try:
        return str(_loaded(name))
    except Absent as problem:
        return f"torch ({problem})"


@cache
def _loaded(name: str) -> Kernels:
    """Raises ValueError: it cannot run here. Imported late: importing onca loads nothing that torch has not loaded."""
    if name == "native":
        from onca.engine.native import Native

        return Native()
    gpu = import_module("onca.engine.gpu")
    kernels: Kernels = gpu.Triton()
    return kernels


# What served what, for `onca explain`.


@contextmanager
def traced() -> Iterator[list[tuple[str, str]]]:
    """Collects (walk, what served it) of all walks inside."""
    global _trace
    before, _trace = _trace, []
    try:
        yield _trace
    finally:
        _trace = before


def note(walk: str, served: str) -> None:
    if _trace is not None:
        _trace.append((walk, served))
