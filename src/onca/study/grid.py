"""A study as a grid of runs: the conditions of a paper, each at every seed, on the settings of a preset."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onca.part import nearest
from onca.study.papers import Condition, Paper, find
from onca.train import Run

PRESETS: dict[str, dict[str, Any]] = {
    # Two CPU cores, minutes: the defaults of Run with a narrower encoder and fewer images.
    "demo": {"data": "world", "size": 32, "images": 10_000, "encoder": "small(24)"},
    # One GPU, hours: MoCo's own CIFAR recipe (its official notebook), with v2's head.
    "small": {
        "data": "cifar100", "encoder": "resnet18(stem='small')", "head": "mlp", "dim": 128, "batch": 512, "queue": 4096,
        "momentum": 0.99, "lr": 0.06, "weight_decay": 5e-4, "schedule": "cosine", "epochs": 100,
    },
    # The paper's setting: MoCo v2 as 2003.04297 trains it.
    "paper": {
        "data": "imagenet", "size": 224, "encoder": "resnet50", "head": "mlp", "dim": 128, "batch": 256,
        "queue": 65_536, "momentum": 0.999, "lr": 0.03, "weight_decay": 1e-4, "schedule": "cosine", "epochs": 200,
        "splits": 8,
    },
}  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """One run of the grid, and the condition it stands for."""

    condition: Condition
    run: Run

    @property
    def title(self) -> str:
        return f"{self.condition.name}, seed {self.run.seed}"


@dataclass(frozen=True)
class Grid:
    """All runs of a study, seed by seed, so that whole replicates finish first."""

    paper: Paper
    preset: str
    host: str
    data: str
    seeds: tuple[int, ...]
    runs: str
    cells: tuple[Cell, ...]

    @property
    def folder(self) -> Path:
        """Named by paper, preset and the hash of data, host and seeds."""
        settled = json.dumps({"data": self.data, "host": self.host, "seeds": self.seeds}, sort_keys=True)
        return Path(self.runs) / f"{self.paper.name}-{self.preset}-{hashlib.sha256(settled.encode()).hexdigest()[:8]}"


def grid(
    name: str,
    preset: str = "demo",
    data: str | None = None,
    host: str = "moco",
    seeds: int | tuple[int, ...] = 3,
    runs: str = "runs",
    **changes: Any,
) -> Grid:
    """The runs of study `name`. `seeds`: how many (3 means 0, 1, 2), or which. `changes`: fields of every `Run`.

    Raises:
        ValueError: no such study, preset or field; no seed, or one twice.
    """
    paper = find(name)
    if preset not in PRESETS:
        raise ValueError(f"no preset {preset!r}; {nearest(preset, PRESETS)}")
    numbers = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"--seeds is how many (3 means 0, 1, 2) or which, each once; got {seeds}")
    base = Run(**{**PRESETS[preset], **({"data": data} if data else {}), "host": host, "runs": runs, **changes})
    conditions = paper.conditions(preset, host)
    cells = tuple(Cell(condition, _run(base, condition, seed)) for seed in numbers for condition in conditions)
    return Grid(paper, preset, host, base.data, numbers, runs, cells)


def _run(base: Run, condition: Condition, seed: int) -> Run:
    temperature = base.temperature if condition.temperature is None else condition.temperature
    return replace(base, method=condition.method, temperature=temperature, seed=seed)
