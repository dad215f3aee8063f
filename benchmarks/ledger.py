"""What the ledger costs the demo's step: `python -m benchmarks.ledger [--json FILE]`, about 4 minutes.

Two trainings of one run go step by step in turn, one with a ledger at its default rate. The figure is the time that the
ledger takes, writing included, as a share of the time that the other one takes.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import torch

from benchmarks.measure import Row, Table, Target, quiet
from benchmarks.step import ENCODER, orders
from benchmarks.table import main
from onca.data import Splits
from onca.ledger import Ledger, record
from onca.method import Method
from onca.pool import Pool
from onca.train import Run, load_data
from onca.train.loop import Training, advance, start

WARM_UP, STEPS = 20, 160  # 160: as many as the demo has
EPOCH = 40  # steps, after which a run writes
METHODS = (
    "infonce",
    "chain(keep(window(90, 95)), infonce)",
    "chain(drop(hardest(0.1) & same_class, refill=True), infonce)",
    "hcl(beta=1)",
    "chain(mochi(n=256, s=256, s2=32), infonce)",
)
SHARE = Target(3, most=True)  # percent
CHECKED = "Both trainings end at the same weights, to the bit; a figure without that is refused."


class Clocked:
    """A ledger, and the seconds that it takes."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.seconds = ledger, 0.0

    def see(self, pools: Sequence[Pool], method: Method, step: int, epoch: float) -> None:
        began = time.perf_counter()
        self.ledger.see(pools, method, step, epoch)
        self.seconds += time.perf_counter() - began

    def save(self, step: int) -> None:
        began = time.perf_counter()
        self.ledger.save(step)
        self.seconds += time.perf_counter() - began


def clocked(training: Training, rows: torch.Tensor) -> float:
    """Seconds of one step."""
    began = time.perf_counter()
    advance(training, rows, 0.01)
    training.step += 1
    return time.perf_counter() - began


def overhead(run: Run, pictures: Splits, steps: int) -> Row:
    seen, plain = start(run, pictures), start(run, pictures)
    watch = Clocked(Ledger(run.folder / "ledger", seed=run.seed))
    for training in (seen, plain):
        training.host.train()
    times: dict[str, list[float]] = {"with": [], "without": []}
    with quiet():
        for number, rows in enumerate(islice(orders(seen), WARM_UP + steps)):
            if number == WARM_UP:
                seen.observers = (watch,)
            sides = [("with", seen), ("without", plain)]
            spent = {name: clocked(training, rows) for name, training in (sides if number % 2 else sides[::-1])}
            if number >= WARM_UP:
                for name, seconds in spent.items():
                    times[name].append(seconds)
                if (number + 1 - WARM_UP) % EPOCH == 0 or number + 1 == WARM_UP + steps:
                    watch.save(number + 1)
    group = f"a ledger beside the demo's step, {run.encoder}, batch {run.batch}, {run.queue:,} keys"
    if not all(torch.equal(a, b) for a, b in zip(seen.host.parameters(), plain.host.parameters(), strict=True)):
        return Row(group, run.method, note="not timed: the ledger changed the run", state="unequal")
    share = 100 * watch.seconds / sum(times["without"])
    size = sum(path.stat().st_size for path in Path(run.folder / "ledger").iterdir())
    ratio = statistics.median(times["with"]) / statistics.median(times["without"])
    note = (
        f"{1e3 * watch.seconds / steps:.2f} ms a step on average; median step with / without: {ratio:.3f}; one step of "
        f"{record.EVERY}, {record.QUERIES} queries; {size / 1e3:.0f} kB"
    )
    return Row(
        group, run.method, share, "%", SHARE, ours=tuple(times["with"]), theirs=tuple(times["without"]), note=note
    )


def table(images: int = 6000, steps: int = STEPS, encoder: str = ENCODER, which: Sequence[str] = METHODS) -> Table:
    """The demo's step with and without a ledger, by method, on the CPU."""
    with tempfile.TemporaryDirectory() as runs:
        setting = {"encoder": encoder, "images": images, "size": 32, "runs": runs, "device": "cpu"}
        pictures = load_data(Run(**setting))
        rows = [overhead(Run(**setting, method=method), pictures, steps) for method in which]
    return Table("ledger", "what the ledger costs", tuple(rows), CHECKED)


if __name__ == "__main__":
    main(table)
