"""Labelled images as one value. N images, n of them asked for, C channels (3), H x W pixels."""

from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from onca.data.pictures import Undecoded

Levels = dict[str, tuple[Tensor, tuple[str, ...]]]  # name of a level -> (label int64 [N], names of its classes)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with labels: all decoded in `pixels`, or decoded when `take` asks for them.

    pixels   uint8 [N,3,H,W], or None when they would not fit into memory: `take(rows)` serves both
    label    int64 [N], -1 where unknown
    index    int64 [N], the image's identity: its position in the part it comes from (train.npz, say), whatever was
             left out of that part
    names    of the classes
    levels   the hierarchy, coarse to fine by number of names; the labels themselves are one of the levels
    source   the text that names where they come from
    skipped  names of images that were left out because they could not be decoded
    sequence int64 [N], the moving sequence (a video, say) that the image belongs to, -1 to none; None: there are none
    frame    int64 [N], its place in time within its sequence; given with `sequence`
    wnids    WordNet id of each class; (): not known
    """

    pixels: Tensor | None
    label: Tensor
    index: Tensor
    names: tuple[str, ...]
    levels: Levels
    source: str
    undecoded: Undecoded | None = None
    skipped: tuple[str, ...] = ()
    sequence: Tensor | None = None
    frame: Tensor | None = None
    wnids: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if (self.pixels is None) == (self.undecoded is None):
            raise ValueError("an ImageSet has either pixels or undecoded pictures")
        if self.pixels is not None and (self.pixels.dtype != torch.uint8 or self.pixels.shape[1:2] != (3,)):
            raise ValueError(f"pixels must be uint8 [N,3,H,W], not {self.pixels.dtype} {tuple(self.pixels.shape)}")
        stored = len(self.pixels if self.pixels is not None else self.undecoded or ())
        if not stored == len(self.label) == len(self.index):
            raise ValueError(
                f"{stored} images, {len(self.label)} labels, {len(self.index)} indices: must be equally many"
            )
        if (self.sequence is None) != (self.frame is None):
            raise ValueError("sequence and frame belong together, one of them is missing")
        for name, value in (("sequence", self.sequence), ("frame", self.frame)):
            if value is not None and value.shape != self.index.shape:
                raise ValueError(f"{name} must be [{stored}], one number an image; it is {list(value.shape)}")
        if self.wnids and len(self.wnids) != len(self.names):
            raise ValueError(f"{len(self.wnids)} WordNet ids for {len(self.names)} classes: there must be as many")
        for level, (label, names) in {"label": (self.label, self.names), **self.levels}.items():
            if len(label) and not -1 <= int(label.min()) <= int(label.max()) < len(names):
                raise ValueError(
                    f"{level}: labels {int(label.min())} to {int(label.max())}, but there are {len(names)} names"
                )

    def __len__(self) -> int:
        return len(self.label)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the images in pixels."""
        if self.undecoded is not None:
            return self.undecoded.shape
        assert self.pixels is not None
        return self.pixels.shape[2], self.pixels.shape[3]

    @cached_property
    def timeline(self) -> tuple[Tensor, Tensor, Tensor]:
        """What `neighbour_frames` looks things up in, all int64 [N]: ascending times, in which two sequences lie
        further apart than two frames can; the row at each of them; the place of each row among them."""
        assert self.sequence is not None and self.frame is not None
        number = torch.unique(self.sequence, return_inverse=True)[1]
        time = number * (2 * (int(self.frame.max()) + 1) + 1) + self.frame
        order = time.argsort(stable=True)
        place = torch.empty_like(order).scatter_(0, order, torch.arange(len(order)))
        return time[order], order, place

    def take(self, rows: Tensor) -> Tensor:
        """The images in these rows (int64 [n]), uint8 [n,3,H,W]."""
        if self.undecoded is not None:
            return self.undecoded.take(rows)
        assert self.pixels is not None
        return self.pixels[rows]

    def subset(self, rows: Tensor) -> "ImageSet":
        """The set of these rows, in this order; each image keeps its index."""
        return replace(
            self,
            pixels=None if self.pixels is None else self.pixels[rows],
            undecoded=None if self.undecoded is None else self.undecoded.subset(rows),
            label=self.label[rows],
            index=self.index[rows],
            levels={level: (label[rows], names) for level, (label, names) in self.levels.items()},
            sequence=None if self.sequence is None else self.sequence[rows],
            frame=None if self.frame is None else self.frame[rows],
        )


@dataclass(frozen=True)
class Splits:
    """What trains, what choices are made on, and what is reported once."""

    train: ImageSet
    validation: ImageSet
    test: ImageSet
