"""What an image looks like in numbers, without training: its outlines and its colours. n images.

Outlines are histograms of gradient orientations (Dalal and Triggs 2005), colours a histogram of colours (Swain and
Ballard 1991); the square root of each bin is taken, so that a cosine is the Bhattacharyya coefficient of two histograms
(Arandjelovic and Zisserman 2012). Every image is brought to 32 x 32 pixels by area means first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from onca.data.embeddings import read_embeddings
from onca.data.imageset import ImageSet

SIDE = 32  # pixels
CELLS, ORIENTATIONS = 8, 8  # cells a side, and bins over half a turn
SHADES = 4  # bins of each of red, green and blue
WAVES = 8  # of the brightness, in each direction
SMOOTH = (0.2, 0.6, 0.2)  # weights of three neighbouring pixels: what JPEG and resizing leave is not an outline
NOISE = 2.0  # grey levels across two pixels that are no edge, so that a plain image has none
GREY = (0.299, 0.587, 0.114)
BLOCK = 128  # images at a time: what is made of them fits into the cache

DESCRIPTORS = "descriptors"  # the name of this table: external("descriptors")


class Images(Protocol):
    """N images: an ImageSet, or several joined."""

    def __len__(self) -> int: ...

    def take(self, rows: Tensor) -> Tensor: ...


def outlines(pixels: Tensor) -> Tensor:
    """Where edges lie and which way they run: uint8 [n,3,H,W] -> unit rows [n,512]; zero for an image without edges."""
    bright = _grey(pixels)
    across, down = torch.tensor(SMOOTH).view(1, 1, 1, 3), torch.tensor(SMOOTH).view(1, 1, 3, 1)
    bright = functional.pad(bright, (2, 2, 2, 2), mode="replicate")
    bright = functional.conv2d(functional.conv2d(bright, across), down)[:, 0]  # n,SIDE+2,SIDE+2
    dx = bright[:, 1:-1, 2:] - bright[:, 1:-1, :-2]
    dy = bright[:, 2:, 1:-1] - bright[:, :-2, 1:-1]
    turn = torch.atan2(dy, dx) / math.pi * ORIENTATIONS  # an edge and its negative run the same way
    bins = torch.arange(ORIENTATIONS).view(1, -1, 1, 1)
    away = (turn[:, None] - bins + ORIENTATIONS / 2).remainder(ORIENTATIONS) - ORIENTATIONS / 2
    strength = (torch.hypot(dx, dy) - NOISE).clamp_min(0)
    shared = strength[:, None] * (1 - away.abs()).clamp_min(0)  # by the two nearest bins
    cells = _cells()
    return _root((cells @ (shared @ cells.T)).flatten(1))


def mirrored_outlines() -> Tensor:
    """Where the outlines of an image stand when it is mirrored, int64 [512]: `outlines(pixels.flip(-1))` are
    `outlines(pixels)[:, mirrored_outlines()]`, since cells change sides and edges lean the other way."""
    places = torch.arange(ORIENTATIONS * CELLS**2).view(ORIENTATIONS, CELLS, CELLS)
    return places.flip(2)[-torch.arange(ORIENTATIONS) % ORIENTATIONS].flatten()


def colours(pixels: Tensor) -> Tensor:
    """How much of the image has which colour: uint8 [n,3,H,W] -> unit rows [n,64]."""
    shade = (_small(pixels) * (SHADES / 256)).long().clamp_max(SHADES - 1)
    place = (shade[:, 0] * SHADES + shade[:, 1]) * SHADES + shade[:, 2]
    counts = torch.zeros(len(pixels), SHADES**3).scatter_add_(1, place.flatten(1), torch.ones(len(pixels), SIDE * SIDE))
    return _root(counts)


def descriptors(pixels: Tensor) -> Tensor:
    """Outlines and colours with equal weight, unit rows [n,576]."""
    return functional.normalize(torch.cat([outlines(pixels), colours(pixels)], 1))


def perceptual_hash(pixels: Tensor) -> Tensor:
    """The 63 lowest waves of the brightness, +1 above their median and -1 else, float32 [n,63] (pHash, Zauner 2010)."""
    return hash_of(waves(pixels))


def waves(pixels: Tensor) -> Tensor:
    """How much there is of the lowest cosine waves of the brightness: uint8 [n,3,H,W] -> [n,63], without the mean."""
    wave = math.pi / SIDE * torch.outer(torch.arange(WAVES), torch.arange(SIDE) + 0.5)
    return (wave.cos() @ _grey(pixels)[:, 0] @ wave.cos().T).flatten(1)[:, 1:]


def mirrored_waves(low: Tensor) -> Tensor:
    """`waves` [n,63] of the mirrored images: odd waves from left to right change their sign."""
    odd = torch.arange(1, WAVES**2) % WAVES % 2
    return low * (1 - 2 * odd)


def hash_of(low: Tensor) -> Tensor:
    """The hash whose waves [n,63] these are."""
    return torch.where(low > low.median(1, keepdim=True).values, 1.0, -1.0)


def each(
    describe: Callable[[Tensor], Tensor], images: Images, told: Callable[[float], None] = lambda share: None
) -> Tensor:
    """`describe` of all images, some at a time: [N,F]. told: called with the share that is done."""
    found = []
    for number, rows in enumerate(torch.split(torch.arange(len(images)), BLOCK), 1):
        found.append(describe(images.take(rows)))
        told(min(1.0, number * BLOCK / max(1, len(images))))
    return torch.cat(found)


def external_table(source: str, images: ImageSet) -> Tensor:
    """The table behind `external(source)`: unit rows float32 [I,F] by image index, zero where the set has no image.

    source: "descriptors", or a file of embeddings from any encoder, as `read_embeddings` says.

    Raises:
        ValueError: no such file, no rows of numbers, or an image of the set without a row.
    """
    count = int(images.index.max()) + 1 if len(images) else 0
    if source == DESCRIPTORS:
        rows = each(descriptors, images)
    else:
        rows = read_embeddings(Path(source).expanduser(), images.index)
    table = torch.zeros(count, rows.shape[1])
    table[images.index] = functional.normalize(rows)
    return table


def _grey(pixels: Tensor) -> Tensor:
    return (_small(pixels) * torch.tensor(GREY).view(1, 3, 1, 1)).sum(1, keepdim=True)


def _small(pixels: Tensor) -> Tensor:
    return functional.adaptive_avg_pool2d(pixels.float(), SIDE)


def _cells() -> Tensor:
    """Weights [CELLS,SIDE] that share each pixel between the two cells whose middles are nearest."""
    middle = (torch.arange(CELLS) + 0.5) * SIDE / CELLS
    away = (torch.arange(SIDE) + 0.5 - middle[:, None]).abs() * CELLS / SIDE
    return (1 - away).clamp_min(0)


def _root(histogram: Tensor) -> Tensor:
    return functional.normalize(histogram.clamp_min(0).sqrt())
