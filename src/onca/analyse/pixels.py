"""The floor: what raw pixels alone say of images."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from onca.analyse.space import Space
from onca.data import ImageSet
from onca.data.hierarchy import Hierarchy

SIDE = 16
BLOCK = 512  # images at a time


def pixels(images: ImageSet, hierarchy: Hierarchy | None = None) -> Space:
    """Images at 16 x 16 pixels (box filter, 8 bits), less their own mean, at unit length: rows [N,768].

    An image of one colour has no direction: its row is zero, and so is its similarity to everything.
    """
    return Space(
        rows=torch.cat([_rows(images, part) for part in torch.split(torch.arange(len(images)), BLOCK)]),
        index=images.index,
        label=images.label,
        names=images.names,
        source="raw pixels (16 x 16, less their mean)",
        images=images,
        hierarchy=hierarchy,
    )


def _rows(images: ImageSet, rows: Tensor) -> Tensor:
    """Unit rows float32 [n,768] of the images in these rows."""
    pictures = images.take(rows).permute(0, 2, 3, 1).numpy()
    small = [np.asarray(Image.fromarray(picture).resize((SIDE, SIDE), Image.Resampling.BOX)) for picture in pictures]
    flat = torch.from_numpy(np.stack(small)).flatten(1).double()
    return normalize(flat - flat.mean(1, keepdim=True), dim=1).float()
