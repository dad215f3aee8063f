"""metrics.jsonl: what a run did, a line every few steps and one for every epoch."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

EVERY = 50  # steps between two lines


class Journal:
    """Appends to metrics.jsonl. A resumed run first cuts off what was written after its checkpoint.

    A line of kind "step" holds that step's loss and notes and the rate since the line before, a line of kind "epoch"
    the means over the epoch. `epoch` counts passes as a float from 0, `step` counts steps from 1.
    """

    def __init__(self, path: Path, state: Mapping[str, Any] | None = None) -> None:
        state = state or {"bytes": 0, "sums": {}, "counts": {}, "seconds": 0.0, "images": 0}
        self.sums: dict[str, float] = dict(state["sums"])  # of the epoch so far
        self.counts: dict[str, int] = dict(state["counts"])
        self.seconds: float = state["seconds"]  # of training, all sittings together
        self.images: int = state["images"]  # of the epoch so far
        self.epoch_seconds: float = state.get("epoch_seconds", 0.0)
        path.touch()
        os.truncate(path, min(state["bytes"], path.stat().st_size))
        self.file = path.open("a")
        self.last = time.perf_counter()
        self.recent: list[tuple[float, int]] = []  # seconds and images of the steps since the last line

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, so that the lines after a resume are those of an uninterrupted run."""
        self.file.flush()
        return {
            "bytes": self.file.tell(),
            "sums": self.sums,
            "counts": self.counts,
            "seconds": self.seconds,
            "epoch_seconds": self.epoch_seconds,
            "images": self.images,
        }

    def step(self, step: int, per_epoch: int, images: int, lr: float, values: Mapping[str, Any]) -> None:
        """Takes the numbers of step `step` (from 1); `values` holds the loss and what the method noted."""
        now = time.perf_counter()
        self.recent.append((now - self.last, images))
        self.seconds += now - self.last
        self.epoch_seconds += now - self.last
        self.images += images
        self.last = now
        numbers = {name: number for name, value in values.items() if (number := _number(value)) is not None}
        for name, number in numbers.items():
            self.sums[name] = self.sums.get(name, 0.0) + number
            self.counts[name] = self.counts.get(name, 0) + 1
        place = {"epoch": round(step / per_epoch, 4), "step": step}
        if step % EVERY == 0:
            self._write({"kind": "step", **place, **numbers, "lr": lr, "images_per_second": round(self.rate(), 1)})
            self.recent.clear()
        if step % per_epoch == 0:
            means = {name: total / self.counts[name] for name, total in self.sums.items()}
            rate = round(self.images / self.epoch_seconds, 1)
            self._write({"kind": "epoch", **place, **means, "lr": lr, "images_per_second": rate})
            self.sums, self.counts, self.images, self.epoch_seconds = {}, {}, 0, 0.0

    def rate(self) -> float:
        """Images per second of the steps since the last line."""
        return sum(images for _, images in self.recent) / max(sum(seconds for seconds, _ in self.recent), 1e-9)

    def pause(self) -> None:
        """Time until now is no training time (a checkpoint, an evaluation)."""
        self.last = time.perf_counter()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()

    def _write(self, line: Mapping[str, Any]) -> None:
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()


def _number(value: Any) -> float | None:
    """A note as a number: a tensor's mean, a number itself; None for what is neither."""
    if isinstance(value, Tensor):
        return float(value.detach().float().mean()) if value.numel() else None
    return float(value) if isinstance(value, int | float) else None
