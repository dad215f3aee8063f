"""A study as a grid of runs: its conditions, each at every seed, on the settings of a preset."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from onca.part import nearest
from onca.study.compute import at_equal_compute, share
from onca.study.plan import Condition, Study
from onca.study.studies import find
from onca.train import Run, result_of

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

TRIAL_SEED = 1000  # of the runs that choose a setting: none of a study's own seeds, so that no result rests on it


@dataclass(frozen=True)
class Cell:
    """One run of the grid, the condition it stands for, and its compute as a share of that of the preset's run."""

    condition: Condition
    run: Run
    compute: float = 1.0

    @property
    def title(self) -> str:
        chosen_on = ", choice" if self.run.validate else ""
        return f"{self.condition.name}{chosen_on}, seed {self.run.seed}"


@dataclass(frozen=True)
class Grid:
    """All runs of a study, seed by seed, so that whole replicates finish first.

    trials: the runs on the validation part that come before, one for each setting of each condition that chooses.
    """

    study: Study
    preset: str
    base: Run
    seeds: tuple[int, ...]
    cells: tuple[Cell, ...]
    trials: tuple[Cell, ...] = ()

    @property
    def folder(self) -> Path:
        """Named by study, preset and the hash of data, host and seeds."""
        told = {"data": self.base.data, "host": self.base.host, "seeds": self.seeds}
        digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:8]
        return Path(self.base.runs) / f"{self.study.name}-{self.preset}-{digest}"

    @property
    def conditions(self) -> tuple[Condition, ...]:
        return tuple(dict.fromkeys(cell.condition for cell in self.cells))

    @property
    def inside(self) -> Run | None:
        """The run that is looked into: the first one, or none."""
        return self.cells[0].run if self.study.inside else None

    def settled(self) -> Grid:
        """The grid with every choice made that its trials allow by now: the best linear top-1, of equals the first."""
        best: dict[str, tuple[float, Condition]] = {}
        for cell in self.trials:
            found = result_of(cell.run.folder)
            if found is None or found["linear_top1"] is None:
                continue
            if cell.condition.name not in best or found["linear_top1"] > best[cell.condition.name][0]:
                best[cell.condition.name] = (found["linear_top1"], cell.condition)
        made = []
        for cell in self.cells:
            chosen = best.get(cell.condition.name)
            made.append(_cell(self.base, chosen[1], cell.run.seed) if chosen else cell)
        return replace(self, cells=tuple(made))


def grid(
    name: str,
    preset: str = "demo",
    data: str | None = None,
    host: str = "moco",
    seeds: int | tuple[int, ...] | None = None,
    runs: str = "runs",
    ask: str | None = None,
    **changes: Any,
) -> Grid:
    """The runs of study `name`. `changes`: fields of every `Run`.

    Args:
        seeds: how many (3 means 0, 1, 2), or which; None is as many as the study takes.
        ask: one of the study's further questions instead.

    Raises:
        ValueError: no such study, question, preset or field; no seed, or one twice.
    """
    study = find(name, ask)
    if preset not in study.presets:
        raise ValueError(f"no preset {preset!r} of the study {study.name}; {nearest(preset, study.presets)}")
    seeds = study.seeds if seeds is None else seeds
    numbers = tuple(range(seeds)) if isinstance(seeds, int) else tuple(seeds)
    if not numbers or len(set(numbers)) < len(numbers):
        raise ValueError(f"--seeds is how many (3 means 0, 1, 2) or which, each once; got {seeds}")
    if TRIAL_SEED in numbers:
        raise ValueError(f"--seeds: {TRIAL_SEED} is the seed of the runs that choose settings; take others")
    settings = {**PRESETS[preset], **study.presets[preset], **({"data": data} if data else {}), **changes}
    base = Run(**{**settings, "host": host, "runs": runs})
    conditions = study.conditions(preset, base)
    cells = tuple(_cell(base, condition, seed) for seed in numbers for condition in conditions)
    trials = tuple(_cell(base, each, TRIAL_SEED, validate=True) for each in _choices(conditions))
    return Grid(study, preset, base, numbers, cells, trials)


def _choices(conditions: tuple[Condition, ...]) -> Iterator[Condition]:
    for condition in conditions:
        for choice in condition.choices:
            yield condition.settled(choice)


def _cell(base: Run, condition: Condition, seed: int, **more: Any) -> Cell:
    changes: dict[str, Any] = {**dict(condition.changes), **more}
    if condition.temperature is not None:
        changes["temperature"] = condition.temperature
    run = replace(base, method=condition.method, seed=seed, **changes)
    if "epochs" in changes:  # a folder does not tell runs of other lengths apart
        run = replace(run, runs=str(Path(base.runs) / f"epochs-{run.epochs}"))
    else:
        run = at_equal_compute(run, base)
    return Cell(condition, run, share(run, base))
