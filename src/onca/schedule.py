"""Numbers that change with the epoch. Any number of an expression, a temperature too, may be a schedule.

Time is the epoch as a float from 0: in the middle of the first epoch it is 0.5.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from onca.part import Part, spell


class Schedule(Part):
    """A number for each epoch."""

    kind = "schedule"

    def __call__(self, epoch: float) -> float:
        raise NotImplementedError  # abstract


Number = int | float | Schedule


def check_number(owner: Any, value: Any, argument: str) -> None:
    """Raises ValueError when `value` is neither a finite number nor a schedule."""
    if isinstance(value, Schedule):
        return
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{owner}: {argument} must be a number or a schedule; got {spell(value)}")


def number_at(value: Number, epoch: float | None, owner: Any) -> int | float:
    """The number itself, or what the schedule gives at `epoch`.

    Raises:
        ValueError: a schedule, and no epoch to ask it for.
    """
    if not isinstance(value, Schedule):
        return value
    if epoch is None:
        raise ValueError(f"{owner} holds the schedule {value}: give epoch= (a float from 0)")
    return value(epoch)


@dataclass(frozen=True, eq=False, repr=False)
class after(Schedule, name="after"):
    """0 up to and including `epoch`, then `value` (InvP's warm-up, 2010.11694: strictly later than T)."""

    epoch: float
    value: float

    def __post_init__(self) -> None:
        check_number(self, self.epoch, "epoch")
        check_number(self, self.value, "value")

    def __call__(self, epoch: float) -> float:
        return number_at(self.value, epoch, self) if epoch > self.epoch else 0.0


@dataclass(frozen=True, eq=False, repr=False)
class ramp(Schedule, name="ramp"):
    """A straight line from `start` at epoch 0 to `end` at `epochs`, and `end` from there on."""

    start: float
    end: float
    epochs: float

    def __post_init__(self) -> None:
        _check_course(self)

    def __call__(self, epoch: float) -> float:
        return self.start + (self.end - self.start) * _share(epoch, self.epochs)


@dataclass(frozen=True, eq=False, repr=False)
class cosine_decay(Schedule, name="cosine_decay"):
    """Half a cosine from `start` at epoch 0 to `end` at `epochs`, and `end` from there on."""

    start: float
    end: float
    epochs: float

    def __post_init__(self) -> None:
        _check_course(self)

    def __call__(self, epoch: float) -> float:
        share = _share(epoch, self.epochs)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * share)) / 2 if share < 1 else self.end


def _check_course(course: ramp | cosine_decay) -> None:
    for argument in ("start", "end", "epochs"):
        check_number(course, getattr(course, argument), argument)
        if isinstance(getattr(course, argument), Schedule):
            raise ValueError(f"{course}: {argument} must be a plain number")
    if course.epochs <= 0:
        raise ValueError(f"{course}: epochs must be more than 0")


def _share(epoch: float, epochs: float) -> float:
    return min(max(epoch / epochs, 0.0), 1.0)
