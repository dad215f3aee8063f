"""The commands that begin with `onca data`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import tyro

from onca.data import list_sources, pack, show_duplicates
from onca.data import sheet as draw_sheet


def list_all() -> None:
    """List the sources of images, and which of them are here."""
    for row in list_sources():
        print(f"{row.source}\n    {row.holds}\n    {row.where}")


def sheet(
    source: tyro.conf.Positional[str],
    file: tyro.conf.Positional[str] = "sheet.png",
    size: int | None = None,
    each: int = 6,
    classes: int = 64,
) -> Path:
    """Draw a contact sheet: some training images of each class.

    For example:
      onca data sheet world coats.png
      onca data sheet npz:../data/cifar100 --each 10 --classes 20

    Args:
        source: of images (`onca data list`).
        file: the picture to write, a PNG.
        size: pixels of an image's side (None: their own).
        each: images of a class.
        classes: how many classes.
    """
    path = draw_sheet(source, file, size=size, each=each, classes=classes)
    print(path)
    return path


def pack_folder(
    folder: tyro.conf.Positional[str], file: tyro.conf.Positional[str], bad: Literal["refuse", "skip"] = "refuse"
) -> dict[str, int]:
    """Pack a folder of images, a sub-folder a class, into one file.

    For example:
      onca data pack photographs photographs.npz
      onca train --data npz:photographs.npz --size 64

    Args:
        folder: of images.
        file: the pack to write.
        bad: images that cannot be decoded: refuse names the first, skip leaves them out.
    """
    counts = pack(folder, file, bad=bad)
    print(f"{file}: " + ", ".join(f"{number:,} {what}" for what, number in counts.items()))
    return counts


def duplicates(
    source: tyro.conf.Positional[str],
    file: tyro.conf.Positional[str] = "duplicates.png",
    size: int | None = None,
    groups: int = 60,
) -> Path:
    """Find near-duplicates, count them and draw the largest groups.

    For example:
      onca data duplicates npz:../data/cifar10
      onca train --data npz:../data/cifar10 \\
        --method "chain(drop(near_duplicate), infonce)"

    Args:
        source: of images (`onca data list`).
        file: the picture to write, a PNG.
        size: pixels of an image's side (None: their own).
        groups: how many are drawn.
    """
    return show_duplicates(source, file, size=size, groups=groups)
