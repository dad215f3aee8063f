"""Encoded images of any source, and their decoding to uint8 tensors of one size. N images, n of them asked for."""

import io
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

Bad = Literal["refuse", "skip"]  # what becomes of an image that cannot be decoded
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".ppm", ".pgm", ".tif", ".tiff", ".webp"})
# what Pillow raises for damaged files: OSError (also: unknown format), SyntaxError (PNG), the rest for header fields
_DAMAGE = (OSError, SyntaxError, ValueError, EOFError, OverflowError, Image.DecompressionBombError)


class BadImage(ValueError):
    """An image that cannot be decoded; the message names it."""


class Pictures(Protocol):
    """N encoded images: anything Pillow can open."""

    def __len__(self) -> int: ...

    def open(self, place: int) -> Image.Image: ...

    def name(self, place: int) -> str: ...


@dataclass(frozen=True)
class Files:
    """Image files."""

    paths: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def open(self, place: int) -> Image.Image:
        return _from_bytes(self.paths[place].read_bytes())

    def name(self, place: int) -> str:
        return str(self.paths[place])


@dataclass(frozen=True, eq=False)
class Packed:
    """Image files one after the other in one array: the i-th is data[offsets[i]:offsets[i+1]]."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]
    path: Path

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def open(self, place: int) -> Image.Image:
        return _from_bytes(self.data[self.offsets[place] : self.offsets[place + 1]].tobytes())

    def name(self, place: int) -> str:
        return f"image {place} of {self.path}"


@dataclass(frozen=True, eq=False)
class Array:
    """Images that are decoded already, uint8 [N,H,W,3]."""

    values: NDArray[np.uint8]
    title: str

    def __len__(self) -> int:
        return len(self.values)

    def open(self, place: int) -> Image.Image:
        return Image.fromarray(self.values[place])

    def name(self, place: int) -> str:
        return f"image {place} of {self.title}"


@dataclass(frozen=True)
class Undecoded:
    """Pictures that are decoded when asked for: these places, brought to `size` (None: they all have `shape`)."""

    pictures: Pictures
    places: Tensor
    size: int | None
    shape: tuple[int, int]

    def __len__(self) -> int:
        return len(self.places)

    def take(self, rows: Tensor) -> Tensor:
        return decode(self.pictures, self.places[rows].tolist(), self.size, self.shape)

    def subset(self, rows: Tensor) -> "Undecoded":
        return replace(self, places=self.places[rows])


def decode(pictures: Pictures, places: Iterable[int], size: int | None, shape: tuple[int, int]) -> Tensor:
    """These images as uint8 [n,3,H,W], `shape` being (H, W).

    Errors: BadImage; ValueError for an image of another shape, where size is None.
    """
    places = list(places)
    out = np.empty((len(places), 3, *shape), dtype=np.uint8)  # numpy copies in this thread alone: see `Ahead`
    for row, place in enumerate(places):
        pixels = read(pictures, place, size)
        if pixels.shape[:2] != shape:
            raise ValueError(
                f"images differ in size: {pictures.name(place)} has {pixels.shape[1]} x {pixels.shape[0]} pixels, "
                f"others {shape[1]} x {shape[0]}. Name one size for all: --size {min(shape)} (size={min(shape)})"
            )
        out[row] = pixels.transpose(2, 0, 1)
    return torch.from_numpy(out)


def readable(pictures: Pictures, places: Iterable[int], size: int | None) -> tuple[list[int], tuple[str, ...]]:
    """The places whose image can be decoded, and the names of the others."""
    kept, bad = [], []
    for place in places:
        try:
            read(pictures, place, size)
        except BadImage:
            bad.append(pictures.name(place))
        else:
            kept.append(place)
    return kept, tuple(bad)


def read(pictures: Pictures, place: int, size: int | None) -> NDArray[np.uint8]:
    """One image as uint8 [H,W,3]; with a size, its largest centred square brought to size x size (Lanczos).

    Errors: BadImage.
    """
    try:
        image = pictures.open(place)
        if size is not None:
            image.draft("RGB", (2 * size, 2 * size))  # JPEG: decode no more detail than the resize below can use
        image = image.convert("RGB")
    except _DAMAGE as error:
        raise BadImage(
            f"{pictures.name(place)} cannot be decoded ({error}). Repair or remove it, "
            "or leave out all such images: --bad skip (bad='skip')"
        ) from error
    if size is not None and image.size != (size, size):
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        image = image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.LANCZOS)
    return np.array(image)


def _from_bytes(blob: bytes) -> Image.Image:
    if not blob:
        raise OSError("the file is empty")
    return Image.open(io.BytesIO(blob))
