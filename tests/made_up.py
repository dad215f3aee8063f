"""Made-up results of studies, so that tables and pages can be tested without training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onca.report import StudyResult
from onca.study import PRESETS, find
from onca.study.plan import Condition
from onca.train import Run


def base(name: str, preset: str = "demo", host: str = "moco", ask: str | None = None) -> Run:
    """The run that a preset of a study describes."""
    return Run(**{**PRESETS[preset], **find(name, ask).presets[preset], "host": host})


def compared(
    gains: Mapping[str, float], ask: str | None = None, seeds: int = 5, host: str = "moco", noise: float = 0.15
) -> StudyResult:
    """The study of methods with a gain in points for some conditions, a shift a seed, and noise of a run."""
    study, draw = find("methods", ask), np.random.default_rng(1)
    conditions = tuple(c.settled(c.choices[0]) if c.choices else c for c in _conditions(ask, host))
    shift = draw.normal(0, 1.5, seeds)
    rows = tuple(
        _row(c, seed, 41 + shift[seed] + gains.get(c.name, 0.0) + draw.normal(0, noise), ask == "looc")
        for c in conditions
        for seed in range(seeds)
    )
    tried = [(c, choice) for c in _conditions(ask, host) for choice in c.choices]
    trials = tuple(
        {**_row(c.settled(choice), 1000, 40 - 0.3 * place), "split": "validation", "images": 2000}
        for place, (c, choice) in enumerate(tried)
    )
    return StudyResult(study.name, "demo", host, conditions, rows, {"data": "world", "epochs": 4}, trials=trials)


def _conditions(ask: str | None, host: str) -> tuple[Condition, ...]:
    return find("methods", ask).conditions("demo", base("methods", host=host, ask=ask))


def _row(condition: Condition, seed: int, top1: float, turned: bool = False) -> dict[str, object]:
    return {
        "condition": condition.name, "method": condition.method, "temperature": 0.1, "seed": seed,
        "linear_top1": float(top1), "linear_top5": float(top1 + 35), "knn_top1": float(top1 - 14), "split": "test",
        "images": 4000, "seconds": 14.0, "compute": 1.0, **({"rotation_top1": float(top1 + 20)} if turned else {}),
        "settings": ", ".join(f"{name}={value}" for name, value in condition.changes), "run": "3f2a91bc",
    }  # fmt: skip
