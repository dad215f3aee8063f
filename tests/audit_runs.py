"""Small real runs for the tests of the audit: clean ones of every host, and ones with a fault planted."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from onca.audit import Finding, audit_run, of_run
from onca.data import ImageSet, Splits
from onca.data.world import World
from onca.train import Run
from onca.train.folder import record
from onca.train.loop import Training, fit, start

IMAGES = 320


@functools.cache
def little_world(images: int = IMAGES, size: int = 16) -> Splits:
    """A world of 16 classes; its test and validation parts are a few images that nobody looks at."""
    world = World(families=4, genera=2, species=2, size=size)
    drawn = world.images(torch.arange(images))
    label, names = torch.arange(images) % 16, tuple(f"kind {number}" for number in range(16))
    train = ImageSet(drawn, label, torch.arange(images), names, {}, "little world")
    few = train.subset(torch.arange(32))
    return Splits(train=train, validation=few, test=few)


def with_copies(data: Splits, copies: int) -> Splits:
    """The same, its last `copies` images being the first ones once more, under indices of their own."""
    images = data.train
    rows = torch.arange(len(images))
    rows[-copies:] = torch.arange(copies)
    pixels = images.take(rows)
    made = ImageSet(pixels, images.label[rows], images.index, images.names, {}, "little world with copies")
    return Splits(train=made, validation=data.validation, test=data.test)


def little_run(runs: str | Path, **changes: Any) -> Run:
    """A run of a second or two."""
    small = {
        "encoder": "small(4)",
        "dim": 16,
        "batch": 32,
        "queue": 128,
        "epochs": 3,
        "splits": 4,
        "lr": 0.03,
        "device": "cpu",
    }
    return Run(**{"data": "world", **small, "runs": str(runs), **changes})


def audited(
    run: Run, data: Splits, plant: Callable[[Training], None] | None = None, every: int = 1
) -> tuple[dict[str, Finding], Training]:
    """Trains a run while an audit looks on: its findings by name, and the training."""
    training = start(run, data)
    if plant is not None:
        plant(training)
    audit = of_run(run, data)
    audit.every, audit.queries = every, 32
    training.observers = (audit,)
    run.folder.mkdir(parents=True, exist_ok=True)
    record(run)
    fit(training)
    return {finding.name: finding for finding in audit.findings()}, training


def alarms_of(found: dict[str, Finding]) -> dict[str, str]:
    return {name: finding.sentence for name, finding in found.items() if finding.outcome == "alarm"}


MOCO = (
    *("infonce", "chain(keep(hardest(50)), infonce)", "chain(drop(hardest(1)), infonce)", "triplet(0.5)"),
    *("chain(drop(hardest(5), refill=True), infonce)", "chain(mochi(n=32, s=16, s2=4), infonce)"),
    *("chain(drop(near_duplicate), infonce)", "chain(harden(0.5), infonce)", "chain(keep(window(20, 95)), infonce)"),
)
SIMCLR = ("infonce", "chain(attract(same_class), supcon)", "debiased(0.02)", "chain(drop(same_class), infonce)")


def clean_settings() -> Iterator[dict[str, Any]]:
    """Settings of runs without a fault, the most different ones first."""
    first = [
        {"host": "moco"},
        {"host": "simclr", "temperature": 0.5, "method": "hcl(beta=0.5, tau_plus=0.02)"},
        {"host": "npid", "epochs": 4},
        {"host": "cmc", "epochs": 4},
        {"host": "looc", "spaces": "rotation,colour"},
        {"host": "npid", "method": "nce", "draws": 64, "epochs": 4, "lr": 0.003},  # its slopes are sums over negatives
        {"host": "moco", "symmetric": True},
        {"host": "moco", "memory": "lasting(hardest(5))"},
        {"host": "moco", "support": 3, "method": "fnc(k=5, threshold=0.9)"},
        {"host": "moco", "support": 3, "method": "chain(own_views(1, 1), infonce)"},
    ]
    more = [
        *({"host": "moco", "method": method} for method in MOCO),
        *({"host": "simclr", "method": method, "temperature": 0.5} for method in SIMCLR),
    ]
    for seed in itertools.count():
        yield from ({**settings, "seed": seed} for settings in (first + more))


def clean(runs: Path, settings: dict[str, Any]) -> dict[str, str]:
    """The alarms that a clean run raises, while it trains and at its checkpoint."""
    run, data = little_run(runs, **settings), little_world()
    found, _ = audited(run, data)
    at_checkpoint = {f"checkpoint: {f.name}": f for f in audit_run(run.folder, steps=4, queries=32, data=data)}
    return alarms_of(found | at_checkpoint)
