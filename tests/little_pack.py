"""Packs of small images for tests that need a data source by name."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image

from onca.data import pack

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
