"""Two sides measured side by side, what they ran on, and the table that comes of it.

A pair is one call of ours and one of theirs, in turn first; other programs meet both alike. The figure of a row is the
median of the pairs' ratios, beside the least and the median of each side. Before the clock starts both sides must have
given the same results, and have run twice: what is loaded, built or mapped on first use belongs to neither. What a side
allocates anew in each call (a matrix of 67 MB, say, and its page faults) belongs to it.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any, Literal

import torch
from torch import Tensor

PAIRS = 9  # at least
SECONDS = 1.0  # short calls are paired until so much time has gone, at most MOST times
MOST = 101
SLACK = 0.2  # a target missed by more than this share fails `make bench`
BUSY = 1.2  # processor seconds a second from which a side ran on more than one thread
INSTALL = "not installed: pip install 'onca[bench]'"

Side = Callable[[], object]
Computes = Callable[[], Sequence[Tensor]]


class Unequal(ValueError):
    """Two sides that should compute the same do not: to time them would mean nothing."""


@dataclass(frozen=True)
class Target:
    """What a figure should reach, or, with `most`, should not pass."""

    value: float
    most: bool = False

    def missed(self, found: float) -> float:
        """By which share of the target: 0 when it is met."""
        gap = found - self.value if self.most else self.value - found
        return max(gap / self.value, 0.0)


@dataclass(frozen=True)
class Row:
    """One line. ours, theirs: seconds of each call, in pairs. differences: what the check of results found. threads:
    processor seconds a second of each side. more: whatever else was measured."""

    group: str
    name: str
    found: float | None = None
    unit: str = "x"
    target: Target | None = None
    ours: tuple[float, ...] = ()
    theirs: tuple[float, ...] = ()
    differences: dict[str, float] = field(default_factory=dict)
    threads: dict[str, float] = field(default_factory=dict)
    more: dict[str, Any] = field(default_factory=dict)
    note: str = ""
    state: Literal["measured", "not here", "unequal"] = "measured"

    @property
    def fails(self) -> bool:
        if self.state == "unequal":
            return True
        return self.target is not None and self.found is not None and self.target.missed(self.found) > SLACK


@dataclass(frozen=True)
class Table:
    """name: of its module. checked: which results were compared, how closely, and why not more closely."""

    name: str
    title: str
    rows: tuple[Row, ...]
    checked: str


def compare(
    group: str,
    name: str,
    ours: Side,
    theirs: Side,
    target: Target | None = None,
    *,
    over: bool = False,
    check: Callable[[], dict[str, float]] | None = None,
    note: str = "",
) -> Row:
    """A row whose figure is theirs / ours; over: ours / theirs.

    check: compares results, gives what they differ by, may raise Unequal.
    """
    row = Row(group, name, target=target, note=note)
    try:
        differences = check() if check else {}
    except Unequal as problem:
        return replace(row, state="unequal", note=f"not timed, {problem}")
    mine, other, threads = pairs(ours, theirs)
    above, below = (mine, other) if over else (other, mine)
    ratio = statistics.median(a / b for a, b in zip(above, below, strict=True))
    row = replace(row, found=ratio, ours=mine, theirs=other, differences=differences, threads=threads)
    crowd = ", ".join(f"{side}: {share:.1f} threads" for side, share in threads.items() if share > BUSY)
    return replace(row, note="; ".join(said for said in (note, crowd) if said))


def pairs(ours: Side, theirs: Side) -> tuple[tuple[float, ...], tuple[float, ...], dict[str, float]]:
    """Seconds of the calls of both sides, in pairs, and the processor seconds that a second of each took."""
    sides = {"ours": ours, "theirs": theirs}
    wall: dict[str, list[float]] = {"ours": [], "theirs": []}
    busy = dict.fromkeys(sides, 0.0)
    for side in (ours, theirs):
        side()
        side()
    began = time.perf_counter()
    with quiet():
        while (done := len(wall["ours"])) < PAIRS or (done < MOST and time.perf_counter() - began < SECONDS):
            for name in ("ours", "theirs") if done % 2 == 0 else ("theirs", "ours"):
                spent, used = clock(sides[name])
                wall[name].append(spent)
                busy[name] += used
    return tuple(wall["ours"]), tuple(wall["theirs"]), {name: busy[name] / sum(wall[name]) for name in sides}


def clock(side: Side) -> tuple[float, float]:
    """Seconds that one call takes, and processor seconds of the process while it does."""
    began, used = time.perf_counter(), time.process_time()
    side()
    return time.perf_counter() - began, time.process_time() - used


class quiet:
    """No garbage is collected while a clock runs."""

    def __enter__(self) -> None:
        gc.collect()
        gc.disable()

    def __exit__(self, *_: object) -> None:
        gc.enable()


def slope(loss: Callable[..., Tensor], *values: Tensor, keys: bool = False) -> Computes:
    """A call of `loss(*values)`, forward and backward: the loss, and its gradient by the first value (keys: by all)."""
    leaves = [value.detach().requires_grad_(keys or place == 0) for place, value in enumerate(values)]

    def call() -> tuple[Tensor, ...]:
        for leaf in leaves:
            leaf.grad = None
        value = loss(*leaves)
        torch.autograd.backward(value)
        return value.detach(), *(leaf.grad for leaf in leaves if leaf.grad is not None)

    return call


def agree(ours: Computes, theirs: Computes, *allowed: float) -> Callable[[], dict[str, float]]:
    """A check that results agree: the length of each one's difference, as a share of its length, is at most `allowed`
    (the last holds for all that follow); raises Unequal where it is not.

    Lengths, not largest entries: float32 products of other shapes differ in the last bit, so two entries that tie
    within it may change places at a window's edge. That moves single rows of a gradient by 1e-3, and nothing else.
    """

    def check() -> dict[str, float]:
        one, other = ours(), theirs()
        if len(one) != len(other):
            raise Unequal(f"{len(one)} results against {len(other)}")
        found = {}
        for place, (mine, its) in enumerate(zip(one, other, strict=True)):
            limit = allowed[min(place, len(allowed) - 1)]
            away = float((mine.double() - its.double()).norm() / its.double().norm())
            if not away <= limit:
                raise Unequal(f"results differ: result {place} by {away:.1e}, allowed {limit:.0e}")
            found[f"result {place}"] = away
        return found

    return check


def peer(name: str) -> ModuleType | None:
    """A module of another library, or None where it is not installed."""
    if importlib.util.find_spec(name.split(".")[0]) is None:
        return None
    return importlib.import_module(name)


def absent(group: str, name: str, target: Target | None = None) -> Row:
    """The row of a peer that is not installed."""
    return Row(group, name, target=target, note=INSTALL, state="not here")
