"""Where a training step's time goes, and what the encoder's layout and precision bring: `python -m benchmarks.step
[--json FILE]`.

The demo's step: 256 images, its encoder, a full queue of 4,096 keys; `encoders` is forward and backward, `loss` the
method on its pools, `rest` momentum update, optimiser and queue. MoCo's step: ResNet-18 for small images, 64 images of
32 pixels, both views ready, against the same step in float32 and torch's default layout.
"""

from __future__ import annotations

import copy
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, islice

import torch
from torch import Tensor, nn

import onca
from benchmarks import data
from benchmarks.measure import Computes, Row, Table, Target, agree, compare
from benchmarks.table import main
from onca.data import Splits
from onca.hosts import Batch, MoCo
from onca.study.grid import PRESETS
from onca.train import Run, load_data
from onca.train.batches import batches
from onca.train.loop import Training, make_batch, start
from onca.train.optimise import optimiser

WARM_UP, STEPS = 32, 40  # 32 fill a queue and its reserve
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
SHARE = Target(30, most=True)  # percent of a step that is not encoders
TOLERANCE = {torch.float32: (1e-3, 2e-2), torch.bfloat16: (3e-2, 2e-1)}
CHECKED = (
    "The figure of the demo's step is the median share, over {steps} steps, of all but the encoders. MoCo's step, "
    "checked before timing: the first loss within 1e-3 and the gradient of the last layer within 2e-2 of its "
    "length in float32; 3e-2 and 2e-1 in bf16, which rounds all that passes through the network to 8 bits."
)


class Clock:
    """Adds up the seconds of what runs inside `with clock(name)`."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)

    @contextmanager
    def __call__(self, part: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - began


def step(training: Training, rows: Tensor) -> dict[str, float]:
    """What `loop.advance` does, with a clock: seconds of each part."""
    clock = Clock()
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


def shares(runs: str, images: int, steps: int) -> list[Row]:
    """The demo's step with each method, on the CPU."""
    setting = {"encoder": ENCODER, "images": images, "size": 32, "runs": runs, "device": "cpu"}
    pictures = load_data(Run(**setting))
    return [share(Run(**setting, method=method), pictures, steps) for method in METHODS]


def orders(training: Training) -> Iterator[Tensor]:
    """The rows of one full batch after the other, epoch after epoch."""
    size, run = len(training.images), training.run
    for epoch in count():
        yield from (rows for rows in batches(size, run.batch, 1, run.seed, epoch) if len(rows) == run.batch)


def share(run: Run, pictures: Splits, steps: int) -> Row:
    training = start(run, pictures)
    training.host.train()
    full = islice(orders(training), WARM_UP + steps)
    times = [step(training, rows) for rows in full][WARM_UP:]
    rest = statistics.median(100 * (1 - one["encoders"] / sum(one.values())) for one in times)
    middle = {part: statistics.median(1e3 * one[part] for one in times) for part in PARTS}
    said = ", ".join(f"{part} {spent:.1f} ms" for part, spent in middle.items())
    whole = tuple(sum(one.values()) for one in times)
    note = f"{said}; {run.batch / statistics.median(whole):,.0f} images/s"
    group = f"the demo's step, {run.encoder}, batch {run.batch}, {run.queue:,} keys: all but the encoders"
    return Row(group, run.method, rest, "%", SHARE, ours=whole, note=note, more={"parts": times})


class Plain(nn.Module):
    """An encoder in float32 and torch's default layout, behind the same pixel statistics."""

    def __init__(self, encoder: nn.Module, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.encoder = copy.deepcopy(encoder).float().to(memory_format=torch.contiguous_format)
        self.mean, self.std = mean, std

    def forward(self, images: Tensor) -> Tensor:
        return self.encoder((images - self.mean) / self.std)


def moco_step(host: MoCo, weights: torch.optim.Optimizer, batch: Batch, method: onca.Method) -> Computes:
    """A step on one batch, again and again: its loss, and the gradient of the last layer."""
    *_, last = (layer for layer in host.encoder.modules() if isinstance(layer, nn.Linear))

    def call() -> list[Tensor]:
        host.before_step()
        loss = host.loss(host.pools(batch), method)
        weights.zero_grad()
        torch.autograd.backward(loss)
        weights.step()
        host.after_step()
        assert last.weight.grad is not None
        return [loss.detach(), last.weight.grad.clone()]

    return call


def moco(runs: str, size: int, encoder: str) -> Row:
    """A step of ours, as training sets it up, against the same host around a plain encoder."""
    run = Run(encoder=encoder, batch=size, images=10 * size, size=32, runs=runs, device="cpu", lr=0.01)
    training = start(run, load_data(run))
    network, host = training.network, training.host
    assert isinstance(host, MoCo)
    bare = Plain(network.encoder, network.mean, network.std)
    plain = MoCo(bare, onca.Queue(run.queue, run.dim), run.momentum, run.temperature)
    batch, keys = make_batch(training, torch.arange(size)), data.rows(run.queue, run.dim, 0)
    for one in (host, plain):
        one.train()
        one.memory.enqueue(keys)
    ours = moco_step(host, training.optimiser, batch, training.method)
    theirs = moco_step(plain, optimiser(run, plain.parameters()), batch, training.method)
    precision = str(network.dtype).removeprefix("torch.")
    check = agree(ours, theirs, *TOLERANCE[network.dtype])
    group = f"MoCo's step, {encoder}, 32 pixels, batch {size}, {run.queue:,} keys"
    note = f"ours in {precision}, channels last"
    return compare(group, "float32 in the default layout", ours, theirs, Target(2.8), check=check, note=note)


def table(images: int = 6000, steps: int = STEPS, size: int = 64, encoder: str = "resnet18(stem='small')") -> Table:
    """Shares of the demo's step, and MoCo's step against the default layout."""
    with tempfile.TemporaryDirectory() as runs:
        rows = [*shares(runs, images, steps), moco(runs, size, encoder)]
    return Table("step", "training steps", tuple(rows), CHECKED.format(steps=steps))


if __name__ == "__main__":
    main(table)
