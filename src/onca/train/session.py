"""`train`: a run from its beginning, or from where it was cut off, to its result."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from onca.data import Splits
from onca.engine import in_use
from onca.train.assemble import check
from onca.train.checkpoint import write_json
from onca.train.evaluation import measure
from onca.train.folder import locked, record, refuse_new
from onca.train.loop import SAVE_SECONDS, fit, load_data, start
from onca.train.observe import Observer
from onca.train.progress import Watch
from onca.train.run import Run
from onca.train.snapshot import snapshots as kept_snapshots


def train(
    run: Run,
    *,
    resume: bool = False,
    save_seconds: float = SAVE_SECONDS,
    watch: Watch | None = None,
    data: Splits | None = None,
    observers: Sequence[Observer] = (),
    snapshots: int | None = None,
) -> dict[str, Any]:
    """Trains `run`, evaluates it once after its last epoch, and returns what result.json then holds.

    A run that is done already is not trained again; where something was to be recorded, a warning says so. torch's
    global random state is left as it was.

    Args:
        resume: go on from the checkpoint. On a CPU with one thread the result is that of an uninterrupted run, to the
            bit. With more `epochs` than the run was started for, training goes on with the longer schedule of the
            learning rate; that is not what a run of so many epochs from the start would have given.
        save_seconds: time between checkpoints inside an epoch; every epoch ends with one.
        watch: called after every step. data: the data where it is loaded already.
        observers: shown the pools of every step; the run is the same with and without.
        snapshots: keep the encoders' weights every so many epochs, and those before the first and after the last one.

    Raises:
        ValueError: the folder holds an unfinished run and `resume` is False, or holds nothing to resume; another
            process is at work in it; data, device or expression do not fit.
        Interrupted: stopped by Ctrl-C or SIGTERM, checkpoint written.
        NotFinite, NotSaved: the loss is not finite, a file cannot be written; the last good checkpoint is kept.
    """
    if snapshots is not None and snapshots < 1:
        raise ValueError(f"--snapshots is a number of epochs, 1 or more; got {snapshots}")
    done = result_of(run.folder)
    if done is not None and done["epochs"] == run.epochs:
        _warn_of_nothing_seen(run, bool(observers), snapshots)
        return done
    if resume and not run.folder.exists():
        refuse_new(run)
    _may_start(run, done, resume)
    check(run)
    data = data or load_data(run)
    with locked(run.folder), torch.random.fork_rng():
        record(run)
        training = start(run, data)
        training.observers, training.every = tuple(observers), snapshots
        if training.step > training.steps:
            epochs = training.step // training.per_epoch
            raise ValueError(f"{run.folder} has trained {epochs} epochs already: --epochs must not be fewer")
        fit(training, watch, save_seconds)
        assert training.journal is not None
        seconds = training.journal["seconds"]
        measured = measure(training.network, data, split="validation" if run.validate else "test")
        result = {
            **measured,
            "seconds": round(seconds + measured["seconds"], 2),
            "training_seconds": round(seconds, 2),
            "images_per_second": round(len(data.train) * run.epochs / max(seconds, 1e-9), 1),
            "epochs": run.epochs,
            "device": str(training.pixels.device),
            "precision": str(training.network.dtype).removeprefix("torch."),
            "engine": in_use(training.pixels.device.type),
            "torch": torch.__version__,
        }
        write_json(run.folder / "result.json", result)
    return result


def begun(run: Run) -> bool:
    """Whether the run's folder holds a checkpoint to go on from."""
    return (run.folder / "checkpoint" / "checkpoint.json").exists()


def result_of(folder: Path) -> dict[str, Any] | None:
    """What result.json of a finished run holds, or None."""
    path = folder / "result.json"
    if not path.exists():
        return None
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def _may_start(run: Run, done: dict[str, Any] | None, resume: bool) -> None:
    if resume or not begun(run):
        return
    state = f"a run of {done['epochs']} epochs" if done else "an unfinished run"
    raise ValueError(f"{run.folder} holds {state}: --resume goes on with it, another --runs starts beside it")


def _warn_of_nothing_seen(run: Run, observed: bool, snapshots: int | None) -> None:
    if observed or (snapshots is not None and not kept_snapshots(run.folder)):
        warnings.warn(
            f"{run.folder} is trained already: nothing was recorded now. What is recorded is recorded while a run "
            "trains; in another --runs it can be trained once more",
            stacklevel=3,
        )
