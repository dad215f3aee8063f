"""The embedded world: generated, labelled animal coats, so that everything runs without a download."""

from dataclasses import dataclass

import torch
from torch import Tensor

from onca.data.imageset import ImageSet, Splits
from onca.data.world import patterns, render

TRAIN, VALIDATION, TEST = 20_000, 2_000, 4_000  # images, unless the caller asks for other
_FIRST = {
    "train": 0,
    "validation": 1 << 30,
    "test": 1 << 31,
}  # number of the first image of a part: ranges that never meet
FRAMES = 64  # at most, of an animal
_LIMIT = {"families": len(patterns.FAMILIES), "genera": 4, "species": len(patterns.DETAILS)}


@dataclass(frozen=True)
class World:
    """A world of families x genera x species classes, drawn at size x size pixels.

    frames: each animal is seen in so many frames of a sequence in which it moves; the first is the picture that the
    world without frames has of it. Image i is frame i modulo `frames` of animal i // frames.
    An image is a function of (seed, number): the same alone, in a batch, and in every process on the same kind of
    processor (elsewhere a value can differ by one grey level). Errors: ValueError for a number out of range.
    """

    families: int = 4
    genera: int = 4
    species: int = 4
    size: int = 32
    seed: int = 0
    frames: int = 1

    def __post_init__(self) -> None:
        for name, most in _LIMIT.items():
            if not 1 <= getattr(self, name) <= most:
                raise ValueError(
                    f"world({name}={getattr(self, name)}): {name} must be 1 to {most}, as many as there are patterns"
                )
        if not 8 <= self.size <= 512:
            raise ValueError(f"world(size={self.size}): size must be 8 to 512 pixels")
        if not 1 <= self.frames <= FRAMES:
            raise ValueError(f"world(frames={self.frames}): frames must be 1 to {FRAMES}")
        if not 0 <= self.seed < 1 << 32:
            raise ValueError(f"world(seed={self.seed}): seed must be 0 to {(1 << 32) - 1}")

    def __str__(self) -> str:
        shown = f"families={self.families}, genera={self.genera}, species={self.species}"
        moving = f", frames={self.frames}" if self.frames > 1 else ""  # as it was written before there were frames
        return f"world({shown}, size={self.size}, seed={self.seed}{moving})"

    def images(self, numbers: Tensor) -> Tensor:
        """The images with these numbers (int64 [n]), uint8 [n,3,size,size]; each block they lie in is drawn whole."""
        out = torch.empty(len(numbers), 3, self.size, self.size, dtype=torch.uint8)
        in_block = numbers // render.BLOCK
        for number in sorted(set(in_block.tolist())):
            rows = (in_block == number).nonzero().flatten()
            block = render.block(
                number, self.seed, self.families, self.genera, self.species, self.size, frames=self.frames
            )
            out[rows] = block[numbers[rows] % render.BLOCK]
        return out

    def splits(self, images: int | None = None) -> Splits:
        """Training (`images`, else 20,000), validation (2,000) and test images (4,000): disjoint ranges of numbers."""
        return Splits(
            train=self._part("train", TRAIN if images is None else images),
            validation=self._part("validation", VALIDATION),
            test=self._part("test", TEST),
        )

    def _part(self, part: str, count: int) -> ImageSet:
        index = torch.arange(count)
        family, genus, species = self._names()
        number = index + _FIRST[part] * self.frames
        animal = number // self.frames
        label = animal % len(species)
        levels = {
            "family": (label // (self.genera * self.species), family),
            "genus": (label // self.species, genus),
            "species": (label, species),
        }
        return ImageSet(
            self.images(number),
            label,
            index,
            species,
            levels,
            str(self),
            sequence=animal - _FIRST[part] if self.frames > 1 else None,
            frame=number % self.frames if self.frames > 1 else None,
        )

    def _names(self) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        chosen = {family: fields[: self.genera] for family, fields in list(patterns.FAMILIES.items())[: self.families]}
        genera = tuple(f"{family}/{field.__name__}" for family, fields in chosen.items() for field in fields)
        details = [detail.__name__ for detail in patterns.DETAILS[: self.species]]
        return tuple(chosen), genera, tuple(f"{genus}/{detail}" for genus in genera for detail in details)
