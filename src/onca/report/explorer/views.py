"""Augmented views of the images that are explored: their positives."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Views:
    """V views of each of N images, and where they lie.

    pixels   uint8 [N,V,3,H,W]
    rows     float32 [N,V,D] of length one, for each space
    against  the same for each space of the second run
    """

    pixels: Tensor
    rows: tuple[Tensor, ...]
    against: tuple[Tensor, ...] = ()
