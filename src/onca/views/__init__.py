"""Views of images, as batched tensor code in two halves: draw parameters, then apply them, each image with its own.

    recipe = onca.views.recipe("moco_v2", size=32)
    params = onca.views.draw(recipe, count, height, width, generator)
    view = onca.views.apply(params, pixels)         # uint8 [n,3,H,W] -> float32 [n,3,32,32] in 0..1

Each op also stands alone, `draw_crop` and `apply_crop` and so on, and equals torchvision's functional op given the
same parameters. Where crops are cut is a policy, `as_crop("contrastive_crop(warmup=5, interval=5)")`: a part that draws
the crops that then stand in the parameters. `looc_views` draws views that share one augmentation with the first.
"""

from .blur import apply_blur, draw_blur
from .colour import Jitter, apply_grey, apply_jitter, brightness, contrast, draw_grey, draw_jitter, hue, saturation
from .contrastive_crop import Boxes, boxes_of, draw_contrastive_crop, heat_maps, place_crop
from .crop import apply_crop, crop_extents, draw_crop
from .crop_policy import Crop, as_crop, contrastive_crop, fixed_crop, random_crop
from .geometry import apply_flip, apply_rotation, draw_flip, draw_rotation
from .leave_one_out import AUGMENTATIONS, leave_one_out, looc_views, share
from .params import Params, apply, draw
from .recipes import OPS, SMALL, Recipe, recipe

__all__ = [
    "AUGMENTATIONS",
    "OPS",
    "SMALL",
    "Boxes",
    "Crop",
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
    "as_crop",
    "boxes_of",
    "brightness",
    "contrast",
    "contrastive_crop",
    "crop_extents",
    "draw",
    "draw_blur",
    "draw_contrastive_crop",
    "draw_crop",
    "draw_flip",
    "draw_grey",
    "draw_jitter",
    "draw_rotation",
    "fixed_crop",
    "heat_maps",
    "hue",
    "leave_one_out",
    "looc_views",
    "place_crop",
    "random_crop",
    "recipe",
    "saturation",
    "share",
]
