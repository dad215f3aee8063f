"""The images of a set as the loop takes them: on the device where they fit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from onca.data import ImageSet
from onca.data.ahead import Ahead

SAMPLE = 10_000  # images that pixel statistics are taken from where images are decoded anew each time
CHUNK = 1024  # images looked at together


class Pixels:
    """The images of a set, on the device where they fit in memory: `take(rows)` gives uint8 [n,3,H,W]."""

    def __init__(self, images: ImageSet, device: torch.device) -> None:
        self.images, self.device = images, device
        self.held = images.pixels.to(device) if isinstance(images.pixels, Tensor) else None
        self.decoder: ImageSet | Ahead = images

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Tensor) -> Tensor:
        if self.held is not None:
            return self.held[rows.to(self.device)]
        return self.decoder.take(rows).to(self.device)

    @contextmanager
    def ahead(self, coming: Iterable[Tensor]) -> Iterator[None]:
        """While entered, images that do not fit are decoded before `take` asks for them, rows in the order of `coming`.

        An image that cannot be decoded raises in the `take` that asks for it.
        """
        if self.images.undecoded is None:
            yield
            return
        try:
            with Ahead(self.images.undecoded, coming) as self.decoder:
                yield
        finally:
            self.decoder = self.images

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [3] of each channel over 0..1, from counts of grey levels (exact)."""
        step = 1 if self.held is not None else -(-len(self) // SAMPLE)
        counts = torch.zeros(3, 256, dtype=torch.int64)
        chunks = torch.split(torch.arange(0, len(self), step), CHUNK)
        with self.ahead(chunks):
            for rows in chunks:
                for channel, levels in enumerate(self.take(rows).transpose(0, 1)):
                    counts[channel] += torch.bincount(levels.flatten(), minlength=256).cpu()
        share = counts.double() / counts.sum(1, keepdim=True)
        level = torch.arange(256, dtype=torch.float64) / 255
        mean = share @ level
        deviation = ((share * (level - mean[:, None]) ** 2).sum(1)).sqrt()
        return mean.float(), deviation.clamp_min(1 / 255).float()
