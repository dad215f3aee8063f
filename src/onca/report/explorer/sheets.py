"""Thumbnail sheets: many small pictures in a few large ones. n pictures, H x W pixels."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

COLUMNS, ROWS = 20, 20
QUALITY = 85  # of the JPEG
BLOCK = 16  # pixels that share colours in a JPEG; pictures that are not whole blocks keep theirs apart


@dataclass(frozen=True)
class Sheets:
    """Pictures in reading order, COLUMNS x ROWS of them on each sheet; the last sheet is as high as it must be.

    height, width: of one picture in pixels. data: each sheet as a data: URI. rows: of pictures on each sheet.
    """

    height: int
    width: int
    data: tuple[str, ...]
    rows: tuple[int, ...]


def sheets(pictures: Iterable[Tensor], longest: int) -> Sheets:
    """Blocks of uint8 [n,3,H,W], made so small that the longer side has at most `longest` pixels, as JPEG."""
    data, rows, shape = [], [], (0, 0)
    for tiles in _full(pictures):
        small = [_small(tile, longest) for tile in tiles]
        shape = small[0].height, small[0].width
        down = -(-len(small) // COLUMNS)
        sheet = Image.new("RGB", (COLUMNS * shape[1], down * shape[0]))
        for number, picture in enumerate(small):
            sheet.paste(picture, (number % COLUMNS * shape[1], number // COLUMNS * shape[0]))
        data.append(f"data:image/jpeg;base64,{base64.b64encode(_jpeg(sheet, shape)).decode()}")
        rows.append(down)
    return Sheets(*shape, tuple(data), tuple(rows))


def _full(pictures: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """The pictures one by one, as many as a sheet holds at a time."""
    waiting: list[Tensor] = []
    for block in pictures:
        for picture in block:
            waiting.append(picture)
            if len(waiting) == COLUMNS * ROWS:
                yield waiting
                waiting = []
    if waiting:
        yield waiting


def _small(pixels: Tensor, longest: int) -> Image.Image:
    picture = picture_of(pixels)
    scale = min(1.0, longest / max(picture.size))
    size = max(1, round(picture.width * scale)), max(1, round(picture.height * scale))
    return picture if size == picture.size else picture.resize(size, Image.Resampling.LANCZOS)


def picture_of(pixels: Tensor) -> Image.Image:
    """uint8 [3,H,W]."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def _jpeg(sheet: Image.Image, shape: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    whole = shape[0] % BLOCK == 0 and shape[1] % BLOCK == 0
    sheet.save(file, "JPEG", quality=QUALITY, subsampling=2 if whole else 0)
    return file.getvalue()


def in_blocks(count: int, size: int = 512) -> Iterator[Tensor]:
    """Rows 0 .. count - 1, so many at a time."""
    yield from torch.split(torch.arange(count), size)
