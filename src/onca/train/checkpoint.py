"""Checkpoints: one safetensors file and one JSON file that names it.

The JSON file is the checkpoint: it is replaced in one step, after the tensors it names are on the disk, and only then
are the older tensors removed. Whatever happens in between (a kill, a full disk), the older checkpoint stays whole.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

FACTS = "checkpoint.json"


class NotSaved(ValueError):
    """Writing failed. What was there before is whole."""


def write(path: Path, content: bytes) -> None:
    """Puts `content` at `path` in one step: readers, and a crash, see the old file or the new one, nothing between.

    Raises:
        NotSaved: the disk is full, or refuses; the old file is whole.
    """
    beside = path.with_name(path.name + ".part")
    try:
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        _settle(path.parent)
    except OSError as problem:
        beside.unlink(missing_ok=True)
        raise NotSaved(
            f"cannot write {path}: {problem.strerror or problem}; what was there before is whole"
        ) from problem


def write_json(path: Path, value: Any) -> None:
    """`value` as readable JSON at `path`, in one step."""
    write(path, (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def _settle(folder: Path) -> None:
    """Makes a rename in `folder` last through a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def save_checkpoint(folder: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Replaces the checkpoint in `folder` by `tensors` and `facts` (text and numbers; `step` names the tensors' file).

    Raises:
        NotSaved: a file could not be written; the checkpoint that was there is whole.
    """
    folder.mkdir(parents=True, exist_ok=True)
    name = f"step-{facts['step']}.safetensors"
    write(folder / name, save({key: value.detach().cpu().contiguous() for key, value in tensors.items()}))
    write_json(folder / FACTS, {**facts, "tensors": name})
    for old in folder.glob("*.safetensors*"):
        if old.name != name:
            old.unlink()


def load_checkpoint(
    folder: Path, device: torch.device | str = "cpu"
) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Tensors and facts of the checkpoint in `folder`, or None where there is none.

    Raises:
        ValueError: the files are damaged.
    """
    path = folder / FACTS
    if not path.exists():
        return None
    try:
        facts = json.loads(path.read_text())
        return load_file(folder / facts["tensors"], device=str(device)), facts
    except (OSError, KeyError, json.JSONDecodeError, SafetensorError) as problem:
        raise ValueError(
            f"the checkpoint in {folder} cannot be read ({problem}); remove the folder to start over"
        ) from problem
