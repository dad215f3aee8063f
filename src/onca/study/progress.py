"""One bar for a whole study, and a line for every run that ends."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from onca.study.grid import Cell
from onca.study.workers import News


class StudyBar:
    """Hears the news of a study's runs and shows them on standard error."""

    def __init__(self, title: str, runs: int, file: TextIO | None = None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.runs, self.ended, self.started = runs, 0, time.monotonic()
        self.steps: dict[str, tuple[int, float]] = {}  # run -> steps done, images per second
        self.console = Console(file=file or sys.stderr, highlight=False)
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[runs]} runs  {task.fields[rate]:,.0f} images/s"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
        )
        self.progress = Progress(*columns, console=self.console, speed_estimate_period=120)
        self.task = self.progress.add_task(title, total=None, runs=f"0/{runs}", rate=0.0)

    def __enter__(self) -> StudyBar:
        if self.console.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self.console.is_terminal:
            self.progress.stop()

    def __call__(self, cell: Cell, news: News) -> None:
        facts, name = news.facts, news.run.name
        if news.kind == "tick":
            self.steps[name] = (facts["step"], facts["images_per_second"])
            self.progress.update(self.task, total=facts["steps"] * self.runs)
        else:
            self.ended += 1
            self.steps[name] = (self.steps.get(name, (0, 0.0))[0], 0.0)
        done, rate = (sum(numbers) for numbers in zip(*self.steps.values(), strict=True))
        self.progress.update(self.task, completed=done, rate=rate, runs=f"{self.ended}/{self.runs}")
        if news.kind != "tick":
            self._say(cell, news)

    def _say(self, cell: Cell, news: News) -> None:
        facts = news.facts
        if news.kind == "failed":
            text = f"failed: {cell.title}: {facts['error']}"
        elif facts["result"]["linear_top1"] is None:
            text = f"no labels to evaluate with  {cell.title}"
        else:
            result = facts["result"]
            text = f"linear {result['linear_top1']:5.2f} %  kNN {result['knn_top1']:5.2f} %  {result['seconds']:3.0f} s"
            text += f"  {cell.title}{self._left()}"
        self.console.print(f"{self.ended:3}/{self.runs}  {text}", markup=False, soft_wrap=True)

    def _left(self) -> str:
        """The time that is left, in words, where no bar shows it."""
        if self.console.is_terminal:
            return ""
        left = (time.monotonic() - self.started) / self.ended * (self.runs - self.ended)
        return f" (about {left / 60:.0f} min left)"
