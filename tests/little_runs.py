"""Packs of small images for tests that need a data source by name; runs on them that are cut off."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from torch import Tensor

from onca.data import pack
from onca.train import Run, Tick
from onca.train.checkpoint import load_checkpoint

PARTS = {"train": 512, "val": 16, "test": 64}


def write_packs(place: Path) -> str:
    """Writes train.npz, val.npz and test.npz, four classes of colour with a block of another one; gives `npz:PLACE`."""
    draw = random.Random(0)
    for part, count in PARTS.items():
        for number in range(count):
            kind = number % 4
            folder = place / part / f"colour {kind}"
            folder.mkdir(parents=True, exist_ok=True)
            colour = tuple((60 * kind + 40 * channel + draw.randrange(60)) % 256 for channel in range(3))
            picture = Image.new("RGB", (12, 12), colour)
            picture.paste((draw.randrange(256), 0, 0), (0, 0, draw.randrange(1, 12), draw.randrange(1, 12)))
            picture.save(folder / f"{number}.png")
        pack(place / part, place / f"{part}.npz")
    return f"npz:{place}"


class Crash(Exception):
    """Stands for whatever ends a process without a word."""


def crash_at(step: int | None) -> Callable[[Tick], None]:
    """What looks on in `train` and cuts the run off in a step, if any."""

    def watch(tick: Tick) -> None:
        if tick.step == step:
            raise Crash

    return watch


def state(run: Run) -> dict[str, Tensor]:
    """All that the checkpoint of a run holds."""
    found = load_checkpoint(run.folder / "checkpoint")
    assert found is not None
    return found[0]
