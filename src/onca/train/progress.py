"""What a person sees of a run: a bar in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TextIO

PLAIN_SECONDS = 15.0  # between two plain lines


@dataclass(frozen=True)
class Tick:
    """Where a run is: steps done of all its steps, images per second, and the last loss."""

    step: int
    steps: int
    images_per_second: float
    loss: float


Watch = Callable[[Tick], None]


class Bar:
    """Shows ticks on standard error, with images/s, loss and the time that is left."""

    def __init__(self, title: str, file: TextIO | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self.title = title
        self.console = Console(file=file or sys.stderr)
        self.plain = time.monotonic()
        self.started: float | None = None
        self.begun = 0
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.completed:.0f}/{task.total:.0f} steps  {task.fields[rate]:,.0f} images/s"),
            TextColumn("loss {task.fields[loss]:.3f}"),
            TimeRemainingColumn(compact=True),
        )
        self.progress = Progress(*columns, console=self.console, transient=False)
        self.task = self.progress.add_task(title, total=None, start=False, rate=0.0, loss=float("nan"), visible=False)

    def __enter__(self) -> Bar:
        if self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.console.is_terminal:
            self.progress.stop()

    def __call__(self, tick: Tick) -> None:
        if self.console.is_terminal:
            if self.started is None:
                self.started = time.monotonic()
                self.progress.reset(self.task, total=tick.steps, completed=tick.step, visible=True)
            self.progress.update(self.task, completed=tick.step, rate=tick.images_per_second, loss=tick.loss)
            return
        now = time.monotonic()
        if self.started is None:
            self.started, self.begun = now, tick.step
        if now - self.plain >= PLAIN_SECONDS or tick.step == tick.steps:
            self.plain = now
            left = (now - self.started) / max(tick.step - self.begun, 1) * (tick.steps - tick.step)
            print(
                f"{self.title}: step {tick.step}/{tick.steps}, loss {tick.loss:.3f}, "
                f"{tick.images_per_second:,.0f} images/s, {left:.0f} s left",
                file=self.console.file,
                flush=True,
            )
