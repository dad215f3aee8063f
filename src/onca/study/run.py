"""Running a study: what is done is skipped, what was cut off goes on, what fails is reported and stops nothing else."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from onca.study.grid import Cell, Grid
from onca.study.inside import analysed
from onca.study.plan import Condition
from onca.study.workers import News, work_through
from onca.train import Run, result_of
from onca.train.checkpoint import write_json
from onca.train.folder import locked
from onca.train.loss_share import Shares, read_loss_share
from onca.train.network import device

Listen = Callable[[Cell, News], None]

MEASURED = "measured.json"  # in a run's folder: what the study measured besides its result


@dataclass
class Outcome:
    """A study as far as it got; the fields are those that a report takes.

    rows: one a finished run: condition, method, temperature, seed, the numbers of its result.json, its folder.
    loss_share: temperature -> (percentile from, to, share of the summed exponentials). failures: run -> why. trials:
    rows of the runs on the validation part that choose settings.
    """

    name: str
    preset: str
    host: str
    conditions: tuple[Condition, ...]
    rows: tuple[Mapping[str, Any], ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)
    loss_share: Mapping[float, Shares] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    trials: tuple[Mapping[str, Any], ...] = ()


def run_study(grid: Grid, listen: Listen | None = None, workers: int | None = None) -> Outcome:
    """Trains and evaluates every run of the grid that is not done, then gathers the results.

    Runs that choose settings come first. `listen` hears of every step and result. workers: runs side by side; None is
    one a core on CPUs, one on a GPU.

    Raises:
        ValueError: another process is at work on this study; a run in its place was made with other epochs.
        KeyboardInterrupt: stopped; every run in progress has left a checkpoint.
    """
    workers = workers or cores(grid.base)
    unfinished(grid)  # refuses before anything is trained
    with locked(grid.folder):
        failures = _work(grid, _left(grid.trials), listen, workers)
        failures |= _work(grid, _left(grid.settled().cells), listen, workers)
        _measure(grid.settled())
        if grid.inside is not None and result_of(grid.inside.folder) is not None:
            analysed(grid.inside)
        outcome = gather(grid)
        outcome.failures.update(failures)
    return outcome


def _work(grid: Grid, todo: list[Cell], listen: Listen | None, workers: int) -> dict[str, str]:
    """Trains the runs of these cells; those that failed, and why."""
    by_folder = {cell.run.folder: cell for cell in todo}
    failures = {}
    for news in work_through(
        [cell.run for cell in todo], workers, grid.folder / "logs", grid.study.loss_bands, grid.inside
    ):
        cell = by_folder[news.run.folder]
        if news.kind == "failed":
            failures[cell.title] = str(news.facts["error"])
        if listen:
            listen(cell, news)
    return failures


def _measure(grid: Grid) -> None:
    """What the study measures of finished runs besides their results."""
    for cell in grid.cells:
        place = cell.run.folder / MEASURED
        if grid.study.measure and result_of(cell.run.folder) is not None and not place.exists():
            write_json(place, dict(grid.study.measure(cell.run.folder)))


def unfinished(grid: Grid) -> list[Cell]:
    """The cells whose run has no result yet, those that choose a setting first.

    Raises:
        ValueError: a run in its place was made with other epochs; going on with it would not give the run asked for.
    """
    return _left(grid.trials) + _left(grid.settled().cells)


def _left(cells: Sequence[Cell]) -> list[Cell]:
    todo = []
    for cell in cells:
        made = cell.run.folder / "run.json"
        epochs = json.loads(made.read_text())["epochs"] if made.exists() else cell.run.epochs
        if epochs != cell.run.epochs:
            raise ValueError(
                f"{cell.run.folder} ({cell.title}) was made with {epochs} epochs and this study asks for "
                f"{cell.run.epochs}: give the study another --runs, or remove that folder"
            )
        if result_of(cell.run.folder) is None:
            todo.append(cell)
    return todo


def gather(grid: Grid) -> Outcome:
    """What the folders of the grid's runs hold by now."""
    grid = grid.settled()
    rows, trials = (_rows(cells, Path(grid.base.runs)) for cells in (grid.cells, grid.trials))
    shares: dict[float, Shares] = {}
    for cell in grid.cells:
        found, temperature = read_loss_share(cell.run.folder), cell.run.temperature
        if found is not None and isinstance(temperature, float):
            shares.setdefault(temperature, found)
    told = provenance(grid)
    return Outcome(grid.study.name, grid.preset, grid.base.host, grid.conditions, rows, told, shares, {}, trials)


def _rows(cells: Sequence[Cell], runs: Path) -> tuple[dict[str, Any], ...]:
    return tuple(row(cell, result, runs) for cell in cells if (result := result_of(cell.run.folder)) is not None)


def row(cell: Cell, result: Mapping[str, Any], runs: Path) -> dict[str, Any]:
    """A run as one flat row; confusions become columns such as `genus_errors_within`. runs: what `run` is within."""
    flat = {name: value for name, value in result.items() if name != "confusions"}
    for level, confusion in result["confusions"].items():
        flat |= {f"{level}_errors_within": confusion["within"], f"{level}_errors_chance": confusion["chance"]}
    measured = cell.run.folder / MEASURED
    flat |= json.loads(measured.read_text()) if measured.exists() else {}
    run = cell.run
    told = {"condition": cell.condition.name, "method": run.method, "temperature": run.temperature, "seed": run.seed}
    settings = ", ".join(f"{name}={value}" for name, value in cell.condition.changes)
    where = str(run.folder.relative_to(runs))
    return {**told, **flat, "settings": settings, "compute": round(cell.compute, 4), "run": where}


def provenance(grid: Grid) -> dict[str, Any]:
    """Where the numbers come from: what all runs share, the machine and the versions."""
    every = [asdict(cell.run) for cell in grid.cells]
    shared = {name: value for name, value in every[0].items() if all(each[name] == value for each in every)}
    for name in ("method", "temperature", "seed", "runs", "precision", "device", "validate"):
        shared.pop(name, None)
    shared = {"data": grid.base.data, "epochs": grid.base.epochs} | shared
    place = device(grid.base.device)
    return {
        **shared,
        "machine": torch.cuda.get_device_name(place) if place.type == "cuda" else processor(),
        **{name: version(name) for name in ("onca", "torch", "torchvision")},
        "python": platform.python_version(),
    }


def processor() -> str:
    """The CPU's name and how many cores this process may use."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor() or platform.machine()}, {usable_cores()} cores"


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cores(run: Run) -> int:
    """How many runs go side by side: one on a GPU, one a core elsewhere."""
    return 1 if device(run.device).type == "cuda" else usable_cores()
