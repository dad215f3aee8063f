"""Near-duplicates planted at a known rate: which of them are found, and how many pairs that are found are right.

`python -m benchmarks.duplicates [SOURCE] [--rate R] [--outline C]`, some two minutes for 50,000 images. Of the training
images a share R, spread evenly over the kinds of change below, stands in the set a second time, changed. Recall: the
share of those that are in one group with their original. Precision: of the pairs that hold a planted image, the share
whose other image is its original, or was in one group with the original before anything was planted. A set's own pairs
that only now pass count as wrong here, right ones too; what the rule gets wrong in the set itself is not seen here, and
must be looked at (`onca data duplicates`). Intervals are Wilson's, 95 %, over planted images and over pairs.
"""

from __future__ import annotations

import argparse
import io
import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from onca.audit.interval import Estimate, wilson
from onca.data import ImageSet, load
from onca.data.duplicates import OUTLINE, components, duplicate_pairs

Change = Callable[[Tensor, torch.Generator], Tensor]  # float [3,H,W] from 0 to 255, to the same


def mirrored(image: Tensor, draw: torch.Generator) -> Tensor:
    return image.flip(-1)


def shifted(by: int) -> Change:
    """By so many pixels to the left, right, top or bottom; the edge repeats."""

    def change(image: Tensor, draw: torch.Generator) -> Tensor:
        down, across = ((0, by), (0, -by), (by, 0), (-by, 0))[_whole(4, draw)]
        height, width = image.shape[1:]
        wide = functional.pad(image[None], (by, by, by, by), mode="replicate")[0]
        return wide[:, by + down : by + down + height, by + across : by + across + width]

    return change


def cropped(area: float) -> Change:
    """A crop of that share of the area and of the image's own shape, anywhere, resized to the image's size."""

    def change(image: Tensor, draw: torch.Generator) -> Tensor:
        height, width = (round(side * math.sqrt(area)) for side in image.shape[1:])
        top, left = (_whole(side - kept + 1, draw) for side, kept in zip(image.shape[1:], (height, width), strict=True))
        return _resized(image[:, top : top + height, left : left + width], *image.shape[1:])

    return change


def rotated(degrees: float) -> Change:
    """About the middle, to either side; the edge repeats."""

    def change(image: Tensor, draw: torch.Generator) -> Tensor:
        angle = math.radians(degrees) * (1 - 2 * _whole(2, draw))
        turn = torch.tensor([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]])
        grid = functional.affine_grid(turn[None], [1, *image.shape], align_corners=False)
        return functional.grid_sample(image[None], grid, padding_mode="border", align_corners=False)[0]

    return change


def jpeg(quality: int) -> Change:
    def change(image: Tensor, draw: torch.Generator) -> Tensor:
        stream = io.BytesIO()
        Image.fromarray(image.byte().permute(1, 2, 0).numpy()).save(stream, "JPEG", quality=quality)
        return (
            torch.frombuffer(bytearray(Image.open(stream).tobytes()), dtype=torch.uint8)
            .view(*image.shape[1:], 3)
            .permute(2, 0, 1)
            .float()
        )

    return change


def through(share: float) -> Change:
    """Made smaller to that share of each side, and back."""

    def change(image: Tensor, draw: torch.Generator) -> Tensor:
        height, width = (round(side * share) for side in image.shape[1:])
        return _resized(_resized(image, height, width), *image.shape[1:])

    return change


def toned(times: float, plus: float = 0.0) -> Change:
    return lambda image, draw: image * times + plus


def grey(image: Tensor, draw: torch.Generator) -> Tensor:
    return image.mean(0, keepdim=True).expand_as(image)


def then(first: Change, second: Change) -> Change:
    return lambda image, draw: second(first(image, draw).clamp(0, 255).round(), draw)


KINDS: dict[str, Change] = {
    "mirrored": mirrored,
    "JPEG, quality 90": jpeg(90),
    "JPEG, quality 70": jpeg(70),
    "JPEG, quality 40": jpeg(40),
    "made smaller to 3/4, and back": through(0.75),
    "made smaller to 1/2, and back": through(0.5),
    "darker, x 0.7": toned(0.7),
    "brighter, x 1.3": toned(1.3),
    "less contrast, x 0.6": toned(0.6, 51),
    "grey": grey,
    "mirrored, then JPEG 70": then(mirrored, jpeg(70)),
    "shifted by 1 pixel": shifted(1),
    "shifted by 2 pixels": shifted(2),
    "shifted by 4 pixels": shifted(4),
    "crop of 90 % of the area": cropped(0.9),
    "crop of 80 % of the area": cropped(0.8),
    "crop of 60 % of the area": cropped(0.6),
    "rotated by 5 degrees": rotated(5),
}


@dataclass(frozen=True)
class Planted:
    """What was found of what was planted."""

    source: str
    images: int
    planted: int
    own: int  # pairs of the set itself
    pairs: int  # that hold a planted image
    right: int  # of those
    precision: Estimate
    recall: dict[str, tuple[int, Estimate]]  # by kind: how many were planted, and the share that was found

    def lines(self) -> list[str]:
        """The table as it is printed."""
        head = f"{self.source}: {self.planted:,} of {self.images:,} images stand there again, changed"
        rows = [f"{kind:<32}{count:>8,}   {_percent(share)}" for kind, (count, share) in self.recall.items()]
        right = f"right are {self.right:,} of {self.pairs:,} pairs with a planted image: {_percent(self.precision)} %"
        return [head, "", f"{'change':<32}{'planted':>8}   found, %", *rows, "", right]


def planted(images: ImageSet, source: str, rate: float, *, outline: float = OUTLINE, seed: int = 0) -> Planted:
    """Plants a share `rate` of the images, as many of each kind, and looks for near-duplicates before and after.

    Errors: ValueError for a rate that plants none of a kind, or more than there are.
    """
    each = int(rate * len(images) / len(KINDS))
    if not 1 <= each * len(KINDS) <= len(images):
        raise ValueError(f"rate={rate}: of {len(images)} images {each} of each of {len(KINDS)} kinds would be planted")
    draw = torch.Generator().manual_seed(seed)
    original = torch.randperm(len(images), generator=draw)[: each * len(KINDS)]
    kind = torch.arange(len(KINDS)).repeat_interleave(each)
    changes = list(KINDS.values())
    pixels = images.take(torch.arange(len(images)))
    copies = [changes[k](pixels[row].float(), draw) for k, row in zip(kind.tolist(), original.tolist(), strict=True)]
    both = torch.cat([pixels, torch.stack(copies).clamp(0, 255).round().byte()])

    own = duplicate_pairs(images, outline=outline)
    known = components(len(images), own.rows)
    known = torch.cat([known, known[original]])  # a planted image belongs to its original's group
    rows = duplicate_pairs(_set(both), outline=outline).rows
    group = components(len(both), rows)
    found = group[len(images) :] == group[original]
    rows = rows[rows[:, 1] >= len(images)]
    right = int((known[rows[:, 0]] == known[rows[:, 1]]).sum())
    recall = {name: (each, wilson(int(found[kind == k].sum()), each)) for k, name in enumerate(KINDS)}
    return Planted(source, len(images), len(original), len(own), len(rows), right, wilson(right, len(rows)), recall)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.duplicates", description=__doc__)
    parser.add_argument("source", nargs="?", default="world", help="of images (onca data list)")
    parser.add_argument("--rate", type=float, default=0.2, help="the share that is planted (0.2)")
    parser.add_argument("--outline", type=float, default=OUTLINE, help=f"the least cosine of outlines ({OUTLINE})")
    parser.add_argument("--images", type=int, help="of the training images so many")
    parser.add_argument("--json", type=Path, help="writes everything raw to this file")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    result = planted(load(asked.source, images=asked.images).train, asked.source, asked.rate, outline=asked.outline)
    print("\n".join(result.lines()))
    if asked.json:
        asked.json.write_text(json.dumps(asdict(result), indent=1) + "\n", encoding="utf-8")


def _set(pixels: Tensor) -> ImageSet:
    count = len(pixels)
    return ImageSet(pixels, torch.full((count,), -1), torch.arange(count), (), {}, "planted")


def _resized(image: Tensor, height: int, width: int) -> Tensor:
    return functional.interpolate(image[None], (height, width), mode="bilinear", antialias=True)[0]


def _whole(below: int, draw: torch.Generator) -> int:
    return int(torch.randint(below, (), generator=draw))


def _percent(share: Estimate) -> str:
    return f"{100 * share.number:5.1f}  [{100 * share.low:.1f}, {100 * share.high:.1f}]"


if __name__ == "__main__":
    main()
