"""The audit of a run: at its checkpoint, or while it trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from onca.audit.audit import Audit
from onca.audit.embeddings import twin_finding
from onca.audit.finding import Finding, write_audit
from onca.audit.leak import leak
from onca.pool import unit

if TYPE_CHECKING:
    from onca.data import Splits
    from onca.train import Run
    from onca.train.loop import Training

FILE = "audit.json"  # in the folder of a run
EMBEDDED = 10_000  # images that are embedded, at most
CHUNK = 500  # of them at a time


def of_run(run: Run, data: Splits, watch: Callable[[int, int], None] | None = None) -> Audit:
    """The audit of a run that is about to train on these data: an observer for `onca.train.train`, which writes
    RUN/audit.json at each checkpoint. `finish` adds what only a checkpoint can tell. watch: told of the images among
    which near-duplicates have been looked for, and of all of them."""
    return Audit(duplicates=_groups(data, watch), file=run.folder / FILE, source=f"run {run.name}, while it trained")


def _groups(data: Splits, watch: Callable[[int, int], None] | None = None) -> Tensor:
    """The group of near-duplicates of each row of the training set [I]."""
    from onca.data.duplicates import near_duplicates

    return near_duplicates(data.train, watch=watch)[data.train.index]


@torch.no_grad()
def _embedded(training: Training) -> Tensor:
    """Unit rows of up to so many training images, without augmentation, by the trained encoder in evaluation mode."""
    from onca import views
    from onca.train.viewer import plain

    rows = torch.arange(0, len(training.images), -(-len(training.images) // EMBEDDED))
    found = []
    training.host.eval()
    for some in torch.split(rows, CHUNK):
        pixels = training.pixels.take(some)
        height, width = pixels.shape[-2:]
        whole = plain(len(some), height, width, training.viewer.recipe.size)
        found.append(unit(training.network(views.apply(whole, pixels)).float().cpu()))
    training.host.train()
    return torch.cat(found)


def _at_checkpoint(training: Training) -> list[Finding]:
    """What only the encoders can tell."""
    return [leak(training), twin_finding(_embedded(training))]


def finish(audit: Audit, run: Run, data: Splits) -> list[Finding]:
    """The findings of a run that has trained, with those that its checkpoint adds; writes RUN/audit.json.

    Raises:
        ValueError: no checkpoint.
    """
    from onca.train.loop import start

    with torch.random.fork_rng():
        findings = [*audit.findings(), *_at_checkpoint(start(run, data))]
    write_audit(run.folder / FILE, findings, audit.source, audit.extent)
    return findings


def audit_run(
    folder: str | Path,
    steps: int = 8,
    queries: int = 64,
    data: Splits | None = None,
    watch: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Audits a run at its checkpoint: the pools of `steps` batches, made as in training, with its memory as it is.

    Nothing of the run changes; RUN/audit.json is written. data: where it is loaded already. watch: called with the
    steps that are done and all of them.

    Raises:
        ValueError: no run, or no checkpoint there.
    """
    from onca.train import load_data, load_run
    from onca.train.batches import batches
    from onca.train.checkpoint import load_checkpoint
    from onca.train.loop import make_batch, start
    from onca.train.network import device
    from onca.train.state import restore

    place = Path(folder)
    run = load_run(place)
    held = load_checkpoint(place / "checkpoint", device(run.device))
    if held is None:
        raise ValueError(f"{folder} holds no checkpoint yet: train first ({run.command})")
    data = data or load_data(run)
    with torch.random.fork_rng():
        training = start(run, data)
        try:
            restore(training, *held)  # from this folder, whatever its name: an older version named runs otherwise
        except RuntimeError as problem:
            raise ValueError(f"{folder} holds the checkpoint of another version: {problem}") from problem
        training.host.train()
        audit = Audit(queries=queries, every=1, duplicates=_groups(data))
        epoch = training.step // training.per_epoch
        order = [
            rows
            for more in range(steps)
            for rows in batches(len(data.train), run.batch, run.splits, run.seed, epoch + more)
        ]
        for number, rows in enumerate(order[:steps]):
            with torch.no_grad():
                pools = training.host.pools(make_batch(training, rows))
                training.host.loss(pools, training.method)
            audit.see(pools, training.method, step=training.step + 1)
            if watch:
                watch(number + 1, steps)
        findings = [*audit.findings(), *_at_checkpoint(training)]
    source = f"run {run.name} at its checkpoint, epoch {training.step / training.per_epoch:g}"
    write_audit(place / FILE, findings, source, audit.extent)
    return findings
