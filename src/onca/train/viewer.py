"""The views of a batch: which image, which crop, which augmentation, drawn anew for every step and view."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from onca import views
from onca.data import ImageSet
from onca.data.time import neighbour_frames
from onca.train.batches import generator
from onca.train.pixels import Pixels
from onca.train.run import Run

CHUNK = 512  # images whose boxes are found together


@dataclass(frozen=True)
class Viewer:
    """Makes the views that a host asks for: its own, then `run.support` more.

    All that is random comes from (seed, step, view), so two runs of one seed see the same views wherever their
    settings agree. boxes: where the encoder looks in each image, for crops that follow it.
    """

    run: Run
    images: ImageSet
    pixels: Pixels
    recipe: views.Recipe
    own: int
    crop: views.Crop
    boxes: views.Boxes | None = None

    def make(self, rows: Tensor, step: int, epoch: float) -> tuple[Tensor, ...]:
        """float32 [B,3,size,size] in 0..1, one tensor a view, of the images in these rows."""
        pixels, *neighbours = [self.pixels.take(taken) for taken in self.takes(rows, step)]  # uint8 [B,3,H,W] each
        count, (height, width) = self.own + self.run.support, pixels.shape[-2:]
        drawn = [self._drawn(rows, height, width, step, view, epoch) for view in range(count)]
        if self.run.host == "looc":
            drawn[: self.own] = views.share(drawn[: self.own], self.run.kept)
        if self.run.plain_view:
            drawn[-1] = plain(len(rows), height, width, self.recipe.size)
        other = neighbours[0] if neighbours else pixels
        return tuple(views.apply(params, other if view == 1 else pixels) for view, params in enumerate(drawn))

    def _drawn(self, rows: Tensor, height: int, width: int, step: int, view: int, epoch: float) -> views.Params:
        params = views.draw(self.recipe, len(rows), height, width, generator(self.run.seed, step, view))
        if self.crop == views.random_crop:
            return params
        boxes = None if self.boxes is None else self.boxes.of(rows)
        draws = generator(self.run.seed, step, view)  # the same state again: crops of the same sizes, placed elsewhere
        return replace(params, crop=self.crop.draw(self.recipe, boxes, len(rows), height, width, draws, epoch))

    def takes(self, rows: Tensor, step: int) -> list[Tensor]:
        """The rows of the images that `make` looks at: the images themselves, then, with a gap, a frame close by in the
        same sequence as each."""
        if not self.run.gap:
            return [rows]
        draws = torch.rand(len(rows), generator=generator(self.run.seed, step, -1))
        return [rows, neighbour_frames(self.images, rows, self.run.gap, draws)]

    def locate(self, epoch: int, maps: Callable[[Tensor], Tensor]) -> dict[str, int]:
        """Finds where the encoder looks in every image, if that is due before this epoch and not done yet.

        maps: images float32 [n,3,size,size] in 0..1 -> the encoder's last maps [n,C,h,w]. Gives a note, how many of the
        maps were constant (their box is the whole image), or nothing.
        """
        if not isinstance(self.crop, views.contrastive_crop) or self.boxes is None:
            return {}
        if int(self.boxes.located) >= epoch or not self.crop.locates(epoch):
            return {}
        for rows in torch.split(torch.arange(len(self.images)), CHUNK):
            pixels = self.pixels.take(rows)
            height, width = pixels.shape[-2:]
            whole = views.apply(plain(len(rows), height, width, self.recipe.size), pixels)
            self.boxes.write(rows, maps(whole), height, width, self.crop.threshold)
        self.boxes.located.fill_(epoch)
        return {"constant_maps": int(self.boxes.constant.sum())}


def plain(count: int, height: int, width: int, size: int) -> views.Params:
    """Views that are the whole images, brought to `size` and otherwise as they are."""
    whole = torch.tensor([[0, 0, height, width]]).repeat(count, 1)
    return views.Params(size, ("crop",), whole)
