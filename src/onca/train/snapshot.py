"""Snapshots: the weights of a run's encoders at the ends of epochs, in RUN/snapshots/epoch-0004.safetensors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from onca.train import assemble
from onca.train.checkpoint import load_checkpoint, write
from onca.train.folder import load_run
from onca.train.network import Network, device

FOLDER = "snapshots"
ENCODERS = {"query": "encoder.", "momentum": "key_encoder."}  # under which names a host keeps their weights

Which = Literal["query", "momentum"]


def due(every: int | None, epoch: int, epochs: int) -> bool:
    """Whether a run of so many epochs takes a snapshot when `epoch` are over: every so many, the first and the last."""
    return every is not None and (epoch % every == 0 or epoch == epochs)


def write_snapshot(folder: Path, epoch: int, weights: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Writes what a host's state_dict holds of its encoders, whole or not at all.

    folder: of the run. facts: text and numbers, kept in the same file.

    Raises:
        NotSaved: the disk refuses.
    """
    kept = {
        name: value.detach().cpu().contiguous()
        for name, value in weights.items()
        if name.startswith(tuple(ENCODERS.values()))
    }
    (folder / FOLDER).mkdir(exist_ok=True)
    write(_path(folder, epoch), save(kept, {"facts": json.dumps({"epoch": epoch, **facts})}))


def snapshots(folder: str | Path) -> list[int]:
    """The epochs of which the run in `folder` has snapshots, in rising order; 0 is before training."""
    found = [re.fullmatch(r"epoch-(\d+)\.safetensors", path.name) for path in (Path(folder) / FOLDER).glob("*")]
    return sorted(int(match[1]) for match in found if match)


def load_snapshot(folder: str | Path, epoch: int | None = None, encoder: Which = "query") -> Network:
    """An encoder of the run in `folder` as it was when `epoch` epochs were over, in evaluation mode.

    epoch: one of `snapshots(folder)`; None is the run's checkpoint. encoder: query, or momentum: the slowly following
    copy that makes MoCo's and LooC's keys.

    Raises:
        ValueError: no run there, no snapshot of that epoch, no such encoder, a damaged file.
    """
    run = load_run(Path(folder))
    place = device(run.device)
    tensors = _weights(Path(folder), epoch, place)
    prefix = ENCODERS[encoder]
    weights = {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
    if not weights:
        raise ValueError(f"{folder}: host {run.host} has no momentum encoder; take the query encoder")
    with torch.random.fork_rng():
        network = assemble.network(run, torch.zeros(3), torch.ones(3), place)
    network.load_state_dict(weights)
    return network.eval()


def snapshot_facts(folder: str | Path, epoch: int) -> dict[str, Any]:
    """What is known of a snapshot: epoch, step, images (that trained) and size (pixels of their sides).

    Raises:
        ValueError: no snapshot of that epoch, a damaged file.
    """
    return _read(Path(folder), epoch, torch.device("cpu"))[1]


def _weights(folder: Path, epoch: int | None, place: torch.device) -> dict[str, Tensor]:
    if epoch is not None:
        return _read(folder, epoch, place)[0]
    found = load_checkpoint(folder / "checkpoint", place)
    if found is None:
        raise ValueError(f"{folder} holds no checkpoint yet: train first ({load_run(folder).command})")
    return {name.removeprefix("host."): value for name, value in found[0].items()}


def _read(folder: Path, epoch: int, place: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    path = _path(folder, epoch)
    if not path.exists():
        there = ", ".join(map(str, snapshots(folder)))
        have = f"there are those of epochs {there}" if there else "it has none: train with --snapshots 1"
        raise ValueError(f"{folder} has no snapshot of epoch {epoch}; {have}")
    try:
        with safe_open(path, "pt", device=str(place)) as file:
            names = file.keys()  # the open file itself cannot be walked
            return {name: file.get_tensor(name) for name in names}, json.loads(file.metadata()["facts"])
    except (OSError, SafetensorError, KeyError, TypeError, json.JSONDecodeError) as problem:
        raise ValueError(f"the snapshot {path} cannot be read ({problem}); remove it to go on without it") from problem


def _path(folder: Path, epoch: int) -> Path:
    return folder / FOLDER / f"epoch-{epoch:04d}.safetensors"
