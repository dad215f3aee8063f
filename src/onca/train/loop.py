"""Training: one straight loop of views, pools, method, step, after_step, that may stop and go on anywhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from onca.data import ImageSet, Splits, load
from onca.drop_in import check_finite
from onca.hosts import Batch, Host
from onca.method import as_method
from onca.objectives import Method
from onca.pool import Pool
from onca.train import assemble
from onca.train.batches import batches, sizes
from onca.train.checkpoint import load_checkpoint
from onca.train.interrupt import Interrupt, Interrupted
from onca.train.journal import Journal
from onca.train.network import Network, device
from onca.train.observe import Observer, show
from onca.train.optimise import learning_rate, optimiser
from onca.train.pixels import Pixels
from onca.train.progress import Tick, Watch
from onca.train.run import Run
from onca.train.state import NotFinite, kept, restore, save, snapshot
from onca.train.viewer import Viewer
from onca.views import Boxes, as_crop

SAVE_SECONDS = 60.0  # between checkpoints inside an epoch


@dataclass
class Training:
    """Everything a run changes while it trains, ready for its step `step` (from 0), and who looks on.

    every: epochs between two snapshots, None: none are taken.
    """

    run: Run
    images: ImageSet
    pixels: Pixels
    viewer: Viewer
    network: Network
    host: Host
    method: Method
    optimiser: torch.optim.Optimizer
    per_epoch: int
    step: int = 0
    journal: Mapping[str, Any] | None = None  # where metrics.jsonl stood at the checkpoint
    observers: tuple[Observer, ...] = ()
    every: int | None = None

    @property
    def steps(self) -> int:
        return self.per_epoch * self.run.epochs


DATA = ("size", "images", "classes", "bad")  # what decides, beside the source, which images a run sees


def load_data(run: Run) -> Splits:
    """The data of a run. Subsets and splits belong to the data, so they are the same for every seed."""
    return load(run.data, **{name: getattr(run, name) for name in DATA})


def plain(run: Run) -> Run:
    """The run that has nothing but the data of this one: equal for runs that share their data."""
    return Run(data=run.data, **{name: getattr(run, name) for name in DATA})


def start(run: Run, data: Splits) -> Training:
    """A run at the point its checkpoint holds, or at its beginning.

    Random numbers are drawn in this order: backbone, head, then what the host draws, all from torch's global generator
    seeded with `run.seed`; orders and views come from generators of their own (`batches.generator`).
    """
    place = device(run.device)
    pixels = Pixels(data.train, place)
    mean, std = pixels.statistics()
    torch.manual_seed(run.seed)
    method = as_method(run.method)
    network = assemble.network(run, mean, std, place)
    host = assemble.host(run, network, method, len(data.train), place)
    host.known = assemble.known(run, method, data.train, place)
    weights = optimiser(run, host.parameters())
    recipe = assemble.recipe(run, run.size or min(data.train.shape))
    boxes = next((child for child in host.children() if isinstance(child, Boxes)), None)
    viewer = Viewer(run, data.train, pixels, recipe, host.own_views, as_crop(run.crop), boxes)
    per_epoch = len(sizes(len(data.train), run.batch, run.splits))
    training = Training(run, data.train, pixels, viewer, network, host, method, weights, per_epoch)
    found = load_checkpoint(run.folder / "checkpoint", place)
    if found:
        restore(training, *found)
    return training


def fit(training: Training, watch: Watch | None = None, save_seconds: float = SAVE_SECONDS) -> None:
    """Trains from where `training` stands to the run's last epoch, with checkpoints on the way.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the checkpoint is that of the last whole step.
        NotFinite: the loss of a step is NaN or infinite; the message names step and row, the last checkpoint stays.
    """
    run, saved, order, ordered = training.run, time.monotonic(), [], -1
    found: dict[str, Any] = {}
    assemble.warn_of_long_queue(run, len(training.images))
    training.host.train()
    if training.step == 0:
        snapshot(training)
    with (
        Journal(run.folder / "metrics.jsonl", training.journal) as journal,
        Interrupt() as interrupt,
        training.pixels.ahead(coming(training)),
    ):
        while training.step < training.steps:
            epoch, place = divmod(training.step, training.per_epoch)
            if epoch != ordered:
                order, ordered = batches(len(training.images), run.batch, run.splits, run.seed, epoch), epoch
                found = training.viewer.locate(epoch, training.network.maps)
            lr = learning_rate(run, training.step, training.per_epoch)
            loss, notes = advance(training, order[place], lr)
            training.step += 1
            training.host.remember(loss, last=place == training.per_epoch - 1)
            journal.step(training.step, training.per_epoch, len(order[place]), lr, {"loss": loss, **notes, **found})
            found = {}
            if watch:
                watch(Tick(training.step, training.steps, journal.rate(), loss))
            if interrupt.asked or place == training.per_epoch - 1 or time.monotonic() - saved >= save_seconds:
                save(training, journal)
                saved = time.monotonic()
                journal.pause()
            if interrupt.asked:
                raise Interrupted(
                    f"stopped after step {training.step} of {training.steps}; the checkpoint is written. "
                    f"To go on: {run.command} --resume"
                )
        training.journal = journal.state()


def coming(training: Training) -> Iterator[Tensor]:
    """The rows of all images that the steps still to be done look at, in their order."""
    run, first, per_epoch = training.run, training.step, training.per_epoch
    for epoch in range(first // per_epoch, run.epochs):
        order = batches(len(training.images), run.batch, run.splits, run.seed, epoch)
        for step in range(max(first, epoch * per_epoch), (epoch + 1) * per_epoch):
            yield from training.viewer.takes(order[step - epoch * per_epoch], step)


def advance(training: Training, rows: Tensor, lr: float) -> tuple[float, dict[str, Any]]:
    """One step on the images `rows`: its loss, and what the method noted."""
    batch = make_batch(training, rows)
    for group in training.optimiser.param_groups:
        group["lr"] = lr
    training.host.before_step()
    pools = training.host.pools(batch)
    loss = training.host.loss(pools, training.method)
    value = float(loss.detach())
    if not math.isfinite(value):
        raise _not_finite(training, pools, value)
    training.optimiser.zero_grad()
    torch.autograd.backward(loss)
    training.optimiser.step()
    show(training.observers, pools, training.method, training.step + 1, batch.epoch, training.pixels.device)
    training.host.after_step()
    return value, training.host.notes


def make_batch(training: Training, rows: Tensor) -> Batch:
    """The views of the images in these rows. An image's index is its row in the training set."""
    place, epoch = training.pixels.device, training.step / training.per_epoch
    return Batch(
        views=training.viewer.make(rows, training.step, epoch),
        index=rows.to(place),
        label=training.images.label[rows].to(place),
        epoch=epoch,
        step=training.step,
    )


def _not_finite(training: Training, pools: Sequence[Pool], value: float) -> NotFinite:
    """The error for a loss that is not finite: the step, and the input and row that are not (a second look)."""
    cause = "every input is finite"
    for pool in pools:
        try:
            check_finite(training.method(pool), pool, training.method)
        except ValueError as problem:
            cause = str(problem)
            break
    return NotFinite(f"step {training.step + 1}: the loss is {value} ({cause}); {kept(training)}")
