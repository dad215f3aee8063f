"""Numbers that change with the epoch. Any number of an expression, a temperature too, may be a schedule.

Time is the epoch as a float from 0: in the middle of the first epoch it is 0.5.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from onca.part import Part, spell


class Schedule(Part):
    """A number for each epoch; `history` holds the mean losses of the epochs that are over, for those that adapt."""

    kind = "schedule"

    def __call__(self, epoch: float, history: Sequence[float] = ()) -> float:
        raise NotImplementedError  # abstract


Number = int | float | Schedule


def check_number(owner: Any, value: Any, argument: str) -> None:
    """Raises ValueError when `value` is neither a finite number nor a schedule."""
    if isinstance(value, Schedule):
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{owner}: {argument} must be a number or a schedule; got {spell(value)}")


def number_at(value: Number, epoch: float | None, owner: Any, history: Sequence[float] = ()) -> int | float:
    """The number itself, or what the schedule gives at `epoch` after these losses.

    Raises:
        ValueError: a schedule, and no epoch to ask it for.
    """
    if not isinstance(value, Schedule):
        return value
    if epoch is None:
        raise ValueError(f"{owner} holds the schedule {value}: give epoch= (a float from 0)")
    return value(epoch, history)


@dataclass(frozen=True, eq=False, repr=False)
class after(Schedule, name="after"):
    """0 up to and including `epoch`, then `value` (InvP's warm-up, 2010.11694: strictly later than T)."""

    epoch: float
    value: float

    def __post_init__(self) -> None:
        check_number(self, self.epoch, "epoch")
        check_number(self, self.value, "value")

    def __call__(self, epoch: float, history: Sequence[float] = ()) -> float:
        return number_at(self.value, epoch, self, history) if epoch > self.epoch else 0.0


@dataclass(frozen=True, eq=False, repr=False)
class ramp(Schedule, name="ramp"):
    """A straight line from `start` at epoch 0 to `end` at `epochs`, and `end` from there on."""

    start: float
    end: float
    epochs: float

    def __post_init__(self) -> None:
        _check_course(self)

    def __call__(self, epoch: float, history: Sequence[float] = ()) -> float:
        return self.start + (self.end - self.start) * _share(epoch, self.epochs)


@dataclass(frozen=True, eq=False, repr=False)
class cosine_decay(Schedule, name="cosine_decay"):
    """Half a cosine from `start` at epoch 0 to `end` at `epochs`, and `end` from there on."""

    start: float
    end: float
    epochs: float

    def __post_init__(self) -> None:
        _check_course(self)

    def __call__(self, epoch: float, history: Sequence[float] = ()) -> float:
        share = _share(epoch, self.epochs)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * share)) / 2 if share < 1 else self.end


@dataclass(frozen=True, eq=False, repr=False)
class staircase(Schedule, name="staircase"):
    """start - size * floor(epoch / (epochs / levels)), never beyond `end` (Ring's step policy, 2010.02037)."""

    start: float
    end: float
    size: float
    epochs: float
    levels: int = 10

    def __post_init__(self) -> None:
        _check_course(self, "size", "levels")
        if self.size < 0 or self.levels < 1:
            raise ValueError(f"{self}: size must be 0 or more, levels 1 or more")

    def __call__(self, epoch: float, history: Sequence[float] = ()) -> float:
        steps = self.size * math.floor(epoch / (self.epochs / self.levels))
        return max(self.start - steps, self.end) if self.start > self.end else min(self.start + steps, self.end)


@dataclass(frozen=True, eq=False, repr=False)
class exponential_decay(Schedule, name="exponential_decay"):
    """end + (start - end) e^(-rate * epoch) before `epochs`, and `end` from there on (2010.02037)."""

    start: float
    end: float
    rate: float
    epochs: float

    def __post_init__(self) -> None:
        _check_course(self, "rate")

    def __call__(self, epoch: float, history: Sequence[float] = ()) -> float:
        return self.end + (self.start - self.end) * math.exp(-self.rate * epoch) if epoch < self.epochs else self.end


@dataclass(frozen=True, eq=False, repr=False)
class gaussian_ramp(Schedule, name="gaussian_ramp"):
    """value * exp(-sharpness * (1 - epoch / epochs)^2), and `value` from `epochs` on: the other warm-up of
    InvP's code (2010.11694).
    """

    value: float
    epochs: float
    sharpness: float = 5.0

    def __post_init__(self) -> None:
        for argument in ("value", "epochs", "sharpness"):
            _check_plain(self, argument)
        if self.epochs <= 0:
            raise ValueError(f"{self}: epochs must be more than 0")

    def __call__(self, epoch: float, history: Sequence[float] = ()) -> float:
        return self.value * math.exp(-self.sharpness * max(1 - epoch / self.epochs, 0) ** 2)


@dataclass(frozen=True, eq=False, repr=False)
class adaptive(Schedule, name="adaptive"):
    """Goes down by `delta` after an epoch whose loss was below the mean of up to `window` epochs before it, and up
    by `delta` after one whose loss was above; from `start`, within `least` to `most` (2010.02037).

    The first epoch moves nothing. A pure function of the history, so it has no state of its own. lower_is_better=False
    is for a history of accuracies.
    """

    start: float
    least: float
    delta: float
    most: float = 100.0
    window: int = 10
    lower_is_better: bool = True
    own_needs: ClassVar[frozenset[str]] = frozenset({"history"})

    def __post_init__(self) -> None:
        for argument in ("start", "least", "delta", "most", "window"):
            _check_plain(self, argument)
        if not self.least <= self.start <= self.most or self.delta < 0 or self.window < 1:
            raise ValueError(f"{self}: least <= start <= most, delta 0 or more, window 1 or more")

    def __call__(self, epoch: float, history: Sequence[float] = ()) -> float:
        value = self.start
        for place in range(1, len(history)):
            before = history[max(0, place - self.window) : place]
            gain = sum(before) / len(before) - history[place]
            gain = gain if self.lower_is_better else -gain
            value += self.delta * ((gain < 0) - (gain > 0))
            value = min(max(value, self.least), self.most)
        return value


def _check_plain(course: Schedule, argument: str) -> None:
    check_number(course, getattr(course, argument), argument)
    if isinstance(getattr(course, argument), Schedule):
        raise ValueError(f"{course}: {argument} must be a plain number")


def _check_course(course: ramp | cosine_decay | staircase | exponential_decay, *more: str) -> None:
    for argument in ("start", "end", "epochs", *more):
        _check_plain(course, argument)
    if course.epochs <= 0:
        raise ValueError(f"{course}: epochs must be more than 0")


def _share(epoch: float, epochs: float) -> float:
    return min(max(epoch / epochs, 0.0), 1.0)
