"""Views of images, as batched tensor code in two halves: draw parameters, then apply them, each image with its own.

    recipe = onca.views.recipe("moco_v2", size=32)
    params = onca.views.draw(recipe, count, height, width, generator)
    view = onca.views.apply(params, pixels)         # uint8 [n,3,H,W] -> float32 [n,3,32,32] in 0..1

Each op also stands alone, `draw_crop` and `apply_crop` and so on, and equals torchvision's functional op given the
same parameters.
"""

from .blur import apply_blur, draw_blur
from .colour import Jitter, apply_grey, apply_jitter, brightness, contrast, draw_grey, draw_jitter, hue, saturation
from .crop import apply_crop, crop_extents, draw_crop
from .geometry import apply_flip, apply_rotation, draw_flip, draw_rotation
from .params import Params, apply, draw
from .recipes import OPS, SMALL, Recipe, recipe

__all__ = [
    "OPS",
    "SMALL",
    "Jitter",
    "Params",
    "Recipe",
    "apply",
    "apply_blur",
    "apply_crop",
    "apply_flip",
    "apply_grey",
    "apply_jitter",
    "apply_rotation",
    "brightness",
    "contrast",
    "crop_extents",
    "draw",
    "draw_blur",
    "draw_crop",
    "draw_flip",
    "draw_grey",
    "draw_jitter",
    "draw_rotation",
    "hue",
    "recipe",
    "saturation",
]
