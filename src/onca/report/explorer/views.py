"""Augmented views of the images that are explored: their positives. N images, V views, D dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from onca import views
from onca.data import ImageSet
from onca.evaluate import features
from onca.train.network import Network

COUNT = 2  # as many as training makes a pair of


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


def draw_views(images: ImageSet, recipe: views.Recipe, count: int = COUNT, seed: int = 0) -> Tensor:
    """Views of every image, uint8 [N,V,3,size,size]: what training would see, drawn from `seed`."""
    draws = torch.Generator().manual_seed(seed)
    found = []
    for rows in torch.split(torch.arange(len(images)), 512):
        pixels = images.take(rows)
        height, width = pixels.shape[-2:]
        drawn = [views.draw(recipe, len(rows), height, width, draws) for _ in range(count)]
        found.append(torch.stack([views.apply(params, pixels) for params in drawn], 1).mul(255).round().byte())
    return torch.cat(found)


def rows_of(pixels: Tensor, networks: Sequence[Network], layer: str = "head") -> tuple[Tensor, ...]:
    """Where views [N,V,3,H,W] lie in the space of each network, float32 [N,V,D] of length one."""
    flat = pixels.flatten(0, 1)
    unknown = torch.full((len(flat),), -1)
    images = ImageSet(flat, unknown, torch.arange(len(flat)), (), {}, "views")
    found = []
    for network in networks:
        statistics = network.mean.flatten().tolist(), network.std.flatten().tolist()
        bf16 = network.dtype == torch.bfloat16
        rows = features(network.encoder, images, *statistics, layer=layer, bf16=bf16)
        found.append(normalize(rows.double(), dim=1).float().cpu().view(*pixels.shape[:2], -1))
    return tuple(found)
