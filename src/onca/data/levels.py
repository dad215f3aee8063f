"""How much two labels have in common in a hierarchy. C classes, L levels."""

from __future__ import annotations

import torch
from torch import Tensor

from onca.data.imageset import ImageSet


def depth_table(images: ImageSet) -> Tensor:
    """Depth of the lowest common ancestor of two labels, int64 [C,C]: 0 where they have nothing in common, L within a
    class. The levels are those of the set that are no finer than the labels, coarse to fine by number of names.

    Where a class stands in the hierarchy is read off its images; a class without one has something in common with
    itself alone.

    Raises:
        ValueError: the set has no level beside its labels, or a level does not divide the one above it.
    """
    levels = [(name, label) for name, (label, names) in images.levels.items() if len(names) < len(images.names)]
    if not levels:
        raise ValueError(
            f"{images.source} has no level above its labels: the depth of a common ancestor needs a hierarchy "
            "(X_labels and X_names in a pack, the embedded world)"
        )
    levels.sort(key=lambda level: len(images.levels[level[0]][1]))
    classes = len(images.names)
    depth = torch.zeros(classes, classes, dtype=torch.int64)
    for above, below in zip(levels, [*levels[1:], ("label", images.label)], strict=True):
        _check_nested(images, above, below)
    for number, level in enumerate(levels, start=1):
        parent = _parents(images.label, level[1], classes)
        depth[(parent[:, None] == parent) & (parent >= 0)] = number
    return depth.fill_diagonal_(len(levels) + 1)


def _parents(fine: Tensor, coarse: Tensor, count: int) -> Tensor:
    """The coarse class of the images of each of `count` fine classes (the largest of them), -1 of none."""
    known = (fine >= 0) & (coarse >= 0)
    return torch.full((count,), -1).scatter_reduce(0, fine[known], coarse[known], "amax")


def _check_nested(images: ImageSet, above: tuple[str, Tensor], below: tuple[str, Tensor]) -> None:
    """Errors: ValueError naming a class of the finer level that has images in two classes of the coarser one."""
    known = (above[1] >= 0) & (below[1] >= 0)
    names = images.names if below[0] == "label" else images.levels[below[0]][1]
    parent = _parents(below[1], above[1], len(names))
    astray = (known & (parent[below[1].clamp_min(0)] != above[1])).nonzero().flatten()
    if len(astray):
        row = int(astray[0])
        fine, coarse = int(below[1][row]), images.levels[above[0]][1]
        raise ValueError(
            f"{images.source}: level {below[0]!r} does not divide level {above[0]!r}: {names[fine]!r} has images in "
            f"{coarse[int(above[1][row])]!r} and in {coarse[int(parent[fine])]!r}. Leave one of the levels out"
        )
