"""Contact sheets: some images of each class, or of each group, on one picture."""

import math
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from onca.data.descriptors import Images
from onca.data.imageset import ImageSet
from onca.data.sources import load

CAPTION = 13  # pixels of the line above a strip
GAP = 6


def sheet(
    source: str, path: str | Path, *, size: int | None = None, each: int = 6, classes: int = 64, seed: int = 0
) -> Path:
    """Draw the first `each` training images of each of the first `classes` classes as a PNG; returns its path.

    The strips run down the columns, so that neighbours in the hierarchy stand below each other. The colours are brought
    to a palette of 256: the picture is to be looked at.
    """
    path = check_png(path)
    if each < 1 or classes < 1:
        raise ValueError(f"each={each}, classes={classes}: both must be at least 1")
    images = load(source, size=size, images=None, seed=seed).train
    return draw(images, images.shape, _rows(images, each, classes), each, path)


def check_png(path: str | Path) -> Path:
    path = Path(path).expanduser()
    if path.suffix.lower() != ".png":
        raise ValueError(f"a contact sheet is a PNG: the name must end in .png, {path} does not")
    return path


def draw(images: Images, shape: tuple[int, int], shown: list[tuple[str, Tensor]], each: int, path: Path) -> Path:
    """Strips of up to `each` images of height and width `shape`, with their captions, written as a PNG."""
    height, width = shape
    zoom = max(1, 40 // height)
    strip_width, strip_height = max(each * width * zoom, 120) + GAP, height * zoom + CAPTION + GAP
    columns = _columns(len(shown), strip_width, strip_height)
    down = -(-len(shown) // columns)
    canvas = Image.new("RGB", (columns * strip_width + GAP, down * strip_height + GAP), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(10)
    for k, (name, rows) in enumerate(shown):
        x, y = GAP + k // down * strip_width, GAP + k % down * strip_height
        pen.text((x, y), name, fill="black", font=font)
        for n, picture in enumerate(images.take(rows)):
            tile = Image.fromarray(picture.permute(1, 2, 0).contiguous().numpy())
            canvas.paste(
                tile.resize((width * zoom, height * zoom), Image.Resampling.NEAREST),
                (x + n * width * zoom, y + CAPTION),
            )
    canvas.quantize(256).save(path, optimize=True)
    return path


def _rows(images: ImageSet, each: int, classes: int) -> list[tuple[str, Tensor]]:
    """Name and rows of the strips; images without labels fill strips of their own."""
    if not images.names:
        return [
            (f"images {int(rows[0])} ...", rows)
            for rows in torch.split(torch.arange(min(len(images), each * classes)), each)
        ]
    strips = []
    for k, name in enumerate(images.names[:classes]):
        rows = (images.label == k).nonzero().flatten()[:each]
        if len(rows):
            strips.append((name, rows))
    return strips


def _columns(strips: int, width: int, height: int) -> int:
    """As many columns as make the sheet about as wide as it is high."""
    return max(1, min(strips, round(math.sqrt(strips * height / width))))
