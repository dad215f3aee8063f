"""The state of a training between two steps: written to its checkpoint, and put back from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from onca.train.checkpoint import load_checkpoint, save_checkpoint
from onca.train.journal import Journal
from onca.train.snapshot import due, write_snapshot

if TYPE_CHECKING:
    from onca.train.loop import Training


class NotFinite(ValueError):
    """A loss or a weight that is NaN or infinite. The last good checkpoint is kept."""


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
    """Writes the checkpoint of a training between two steps, after the snapshot that is due and what observers keep.

    Raises:
        NotFinite: a weight is not finite; the older checkpoint is kept.
        NotSaved: the disk refuses; the older checkpoint is whole.
    """
    tensors = {f"host.{name}": value for name, value in training.host.state_dict().items()}
    for name, weight in tensors.items():
        if weight.is_floating_point() and not bool(weight.isfinite().all()):
            raise NotFinite(f"step {training.step}: {name} is not finite, {kept(training)}")
    if training.step % training.per_epoch == 0:
        snapshot(training)
    for observer in training.observers:
        observer.save(training.step)
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


def snapshot(training: Training) -> None:
    """Writes the snapshot of the epochs that are over, where one is due."""
    epoch = training.step // training.per_epoch
    if due(training.every, epoch, training.run.epochs):
        facts = {"step": training.step, "images": len(training.images), "size": training.viewer.recipe.size}
        write_snapshot(training.run.folder, epoch, training.host.state_dict(), facts)


def kept(training: Training) -> str:
    found = load_checkpoint(training.run.folder / "checkpoint")
    return f"the checkpoint of step {found[1]['step']} is kept" if found else "there is no checkpoint yet"


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
