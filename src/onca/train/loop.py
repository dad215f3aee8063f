"""Training: one straight loop of views, pools, method, step, after_step, that may stop and go on anywhere."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
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
from onca.train.checkpoint import load_checkpoint, save_checkpoint
from onca.train.interrupt import Interrupt, Interrupted
from onca.train.journal import Journal
from onca.train.network import Network, device
from onca.train.optimise import learning_rate, optimiser
from onca.train.pixels import Pixels
from onca.train.progress import Tick, Watch
from onca.train.run import Run
from onca.train.viewer import Viewer
from onca.views import Boxes, as_crop

SAVE_SECONDS = 60.0  # between checkpoints inside an epoch


class NotFinite(ValueError):
    """A loss or a weight that is NaN or infinite. The last good checkpoint is kept."""


@dataclass
class Training:
    """Everything a run changes while it trains, ready for its step `step` (from 0)."""

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


def restore(training: Training, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Puts a checkpoint's state into a training that was made from the same run.

    Raises:
        ValueError: the data set has changed since.
    """
    if facts["images"] != len(training.images):
        raise ValueError(
            f"{training.run.folder}: the training set has {len(training.images)} images now and had {facts['images']} "
            "when the checkpoint was written; restore the data, or start anew in another --runs"
        )
    training.host.load_state_dict(_under("host.", tensors))
    state = training.optimiser.state_dict()
    state["state"] = {}
    for name, value in _under("optimiser.", tensors).items():
        place, key = name.split(".", 1)
        state["state"].setdefault(int(place), {})[key] = value
    training.optimiser.load_state_dict(state)
    torch.set_rng_state(tensors["random.cpu"].cpu())
    if "random.cuda" in tensors and torch.cuda.is_available():
        torch.cuda.set_rng_state(tensors["random.cuda"].cpu())
    training.step, training.journal = facts["step"], facts["journal"]


def save(training: Training, journal: Journal) -> None:
    """Writes the checkpoint of a training between two steps.

    Raises:
        NotFinite: a weight is not finite; the older checkpoint is kept.
        NotSaved: the disk refuses; the older checkpoint is whole.
    """
    tensors = {f"host.{name}": value for name, value in training.host.state_dict().items()}
    for name, weight in tensors.items():
        if weight.is_floating_point() and not bool(weight.isfinite().all()):
            raise NotFinite(f"step {training.step}: {name} is not finite, {_kept(training)}")
    for place, values in training.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{place}.{key}": value for key, value in values.items() if isinstance(value, Tensor)}
    tensors["random.cpu"] = torch.get_rng_state()
    if training.pixels.device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state()
    facts = {
        "step": training.step,
        "epoch": training.step / training.per_epoch,
        "images": len(training.images),
        "size": training.viewer.recipe.size,
        "run": asdict(training.run),
        "journal": journal.state(),
        "torch": torch.__version__,
    }
    save_checkpoint(training.run.folder / "checkpoint", tensors, facts)


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


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _not_finite(training: Training, pools: Sequence[Pool], value: float) -> NotFinite:
    """The error for a loss that is not finite: the step, and the input and row that are not (a second look)."""
    cause = "every input is finite"
    for pool in pools:
        try:
            check_finite(training.method(pool), pool, training.method)
        except ValueError as problem:
            cause = str(problem)
            break
    return NotFinite(f"step {training.step + 1}: the loss is {value} ({cause}); {_kept(training)}")


def _kept(training: Training) -> str:
    found = load_checkpoint(training.run.folder / "checkpoint")
    return f"the checkpoint of step {found[1]['step']} is kept" if found else "there is no checkpoint yet"
