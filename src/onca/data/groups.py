"""What `onca data duplicates` shows: how many near-duplicates a source has and where, and the largest groups."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from onca.data.duplicates import BITS, OUTLINE, Pairs, components, duplicate_pairs
from onca.data.imageset import ImageSet
from onca.data.sheet import check_png, draw
from onca.data.sources import load

EACH = 8  # images of a group on the sheet


@dataclass(frozen=True)
class Joined:
    """The parts of a source as one: training, validation, then test images."""

    parts: dict[str, ImageSet]

    @property
    def label(self) -> Tensor:
        return torch.cat([part.label for part in self.parts.values()])

    @property
    def part(self) -> Tensor:
        """Which part each image is of, int64 [N]."""
        return torch.arange(len(self.parts)).repeat_interleave(torch.tensor([len(p) for p in self.parts.values()]))

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts.values())

    def take(self, rows: Tensor) -> Tensor:
        first = next(iter(self.parts.values()))
        out = torch.empty(len(rows), 3, *first.shape, dtype=torch.uint8)
        start = 0
        for part in self.parts.values():
            inside = (rows >= start) & (rows < start + len(part))
            if bool(inside.any()):
                out[inside] = part.take(rows[inside] - start)
            start += len(part)
        return out


def show_duplicates(
    source: str,
    path: str | Path = "duplicates.png",
    *,
    size: int | None = None,
    outline: float = OUTLINE,
    bits: int = BITS,
    groups: int = 60,
) -> Path:
    """Prints how many near-duplicates a source has, within its parts and across them, and draws the largest groups.

    outline, bits: as in `duplicate_pairs`. groups: how many are drawn, 8 images of each. Returns the path of the PNG.
    Errors: ValueError for a source that cannot be read, thresholds out of range, or a name that does not end in .png.
    """
    path = check_png(path)
    if groups < 1:
        raise ValueError(f"groups={groups}: there must be at least one to draw")
    splits = load(source, size=size)
    images = Joined({"train": splits.train, "validation": splits.validation, "test": splits.test})
    pairs = duplicate_pairs(images, outline=outline, bits=bits)
    found = members(components(len(images), pairs.rows))
    print("\n".join(table(images, pairs, found)))
    if found:
        shown = [(caption(splits.train.names, images, rows), rows[:EACH]) for rows in found[:groups]]
        draw(images, splits.train.shape, shown, EACH, path)
        print(path)
    return path


def members(group: Tensor) -> list[Tensor]:
    """The rows of each group [N] of two or more images, the largest group first."""
    order = group.argsort(stable=True)
    counts = group[order].bincount()
    rows = [part for part in torch.split(order, counts[counts > 0].tolist()) if len(part) > 1]
    return sorted(rows, key=len, reverse=True)


def table(images: Joined, pairs: Pairs, found: list[Tensor]) -> list[str]:
    """The lines that are printed: counts by part, by size of group, and how labels agree."""
    label, part, names = images.label, images.part, list(images.parts)
    in_group, beside_train = torch.zeros(len(images)).bool(), torch.zeros(len(images)).bool()
    for rows in found:
        in_group[rows] = True
        beside_train[rows] = bool((part[rows] == 0).any())
    first, second = pairs.rows.T
    agree = int(((label[first] == label[second]) & (label[first] >= 0)).sum())
    known = int(((label[first] >= 0) & (label[second] >= 0)).sum())
    lines = [f"{len(images):,} images, {len(found):,} groups of near-duplicates, {len(pairs):,} pairs"]
    same, turned = int(pairs.identical.sum()), int(pairs.mirrored.sum())
    lines.append(
        f"{same:,} pairs are the same pixels, {turned:,} mirrored; of {known:,} with known labels {agree:,} agree"
    )
    lines += ["", f"{'part':<12}{'images':>9}{'in a group':>12}{'with one in train':>19}"]
    for number, name in enumerate(names):
        own = part == number
        beside = f"{int((own & beside_train).sum()):,}" if number else ""
        lines.append(f"{name:<12}{int(own.sum()):>9,}{int((own & in_group).sum()):>12,}{beside:>19}")
    lines += ["", f"{'size':<12}{'groups':>9}{'of one label':>14}"]
    sizes = Counter(len(rows) for rows in found)
    alike = Counter(
        len(rows) for rows in found if bool((label[rows] == label[rows[0]]).all()) and int(label[rows][0]) >= 0
    )
    lines += [f"{size:<12}{sizes[size]:>9,}{alike[size]:>14,}" for size in sorted(sizes)]
    return lines


def caption(names: tuple[str, ...], images: Joined, rows: Tensor) -> str:
    """How many images, their labels and parts."""
    labels = [names[k] for k in sorted(set(images.label[rows].tolist())) if k >= 0]
    parts = [list(images.parts)[k] for k in sorted(set(images.part[rows].tolist()))]
    return f"{len(rows)}: {', '.join(labels) or 'no label'} ({', '.join(parts)})"
