"""The demo's training step: images/s, and where its time goes: `python -m benchmarks.step`.

One thread, 4,096 keys, the demo's encoder and batch. The least of 40 steps with a full queue; `encoders` is forward and
backward, `loss` the method on its pools, `rest` momentum update, optimiser and queue.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch

from onca.study.grid import PRESETS
from onca.train import Run, load_data
from onca.train.batches import batches
from onca.train.loop import Training, make_batch, start

WARM_UP, STEPS = 20, 40
ENCODER = str(PRESETS["demo"]["encoder"])
METHODS = (
    "infonce",
    "chain(keep(window(95, 100)), infonce)",
    "chain(keep(window(90, 95)), infonce)",
    "chain(drop(window(95, 100)), infonce)",
    "chain(drop(hardest(0.1), refill=True), infonce)",
    "chain(drop(same_class, refill=True), infonce)",
)
PARTS = ("views", "encoders", "loss", "rest")


def measure(method: str, runs: str) -> dict[str, str | float]:
    """Times the parts of single steps of the demo's run with `method`; the least of each."""
    run = Run(encoder=ENCODER, method=method, images=6000, size=32, runs=runs)
    training = start(run, load_data(run))
    training.host.train()
    rows = [row for epoch in range(4) for row in batches(len(training.images), run.batch, 1, run.seed, epoch)]
    times = [step(training, some) for some in rows[: WARM_UP + STEPS] if len(some) == run.batch][-STEPS:]
    parts = {part: 1e3 * min(one[part] for one in times) for part in PARTS}
    whole = sum(parts.values())
    milliseconds = {f"{part} ms": value for part, value in parts.items()}
    rest = 100 * (1 - parts["encoders"] / whole)
    return {"name": method, **milliseconds, "% not encoders": rest, "images/s": 1e3 * run.batch / whole}


def step(training: Training, rows: torch.Tensor) -> dict[str, float]:
    """What `loop.advance` does, with a clock: seconds of each part."""
    clock = Clock(training.pixels.device)
    with clock("views"):
        batch = make_batch(training, rows)
    with clock("rest"):
        training.host.before_step()
    with clock("encoders"):
        pools = training.host.pools(batch)
    with clock("loss"):
        loss = training.host.loss(pools, training.method)
    with clock("encoders"):
        training.optimiser.zero_grad()
        torch.autograd.backward(loss)
    with clock("rest"):
        training.optimiser.step()
        training.host.after_step()
    training.step += 1
    return clock.seconds


class Clock:
    """Adds up the seconds of what runs inside `with clock(name)`."""

    def __init__(self, device: torch.device) -> None:
        self.wait: Callable[[], None] = torch.cuda.synchronize if device.type == "cuda" else lambda: None
        self.seconds = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        self.wait()
        begun = time.perf_counter()
        yield
        self.wait()
        self.seconds[part] += time.perf_counter() - begun


def main() -> list[dict[str, str | float]]:
    """Milliseconds of each part of the step for every method, its images/s, and the share that is not encoders."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as runs:
        return [measure(method, runs) for method in METHODS]


if __name__ == "__main__":
    for row in main():
        figures = [f"{value:8.1f} {unit}" for unit, value in row.items() if unit != "name"]
        print(f"{row['name']:48}", *figures)
