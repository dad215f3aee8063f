"""The floor: what raw pixels alone say of images."""

from __future__ import annotations

from onca.analyse.space import Space
from onca.data import ImageSet
from onca.data.hierarchy import Hierarchy

SIDE = 16


def pixels(images: ImageSet, hierarchy: Hierarchy | None = None) -> Space:
    """Images at 16 x 16 pixels (box filter, 8 bits), less their own mean, at unit length: rows [N,768].

    An image of one colour has no direction: its row is zero, and so is its similarity to everything.
    """
    raise NotImplementedError
