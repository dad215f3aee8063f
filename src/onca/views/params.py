"""The two halves of a view: draw the parameters of all images, then apply them."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from . import native
from .blur import apply_blur, draw_blur
from .colour import Jitter, apply_grey, apply_jitter, draw_grey, draw_jitter
from .crop import apply_crop, draw_crop
from .geometry import apply_flip, apply_rotation, draw_flip, draw_rotation
from .recipes import Recipe

_VALUES_AT_ONCE_CPU = 1 << 18
_VALUES_AT_ONCE_ELSEWHERE = 1 << 26
"""Most float32 values of images in work at once. On a CPU arrays of 1 MB stay in the cache, and calling torch still
costs little (with a quarter of it views take 1.5 times as long); elsewhere it only bounds the memory."""


@dataclass(frozen=True)
class Params:
    """What was drawn for the views of n images, one row an image; an op that is absent from the recipe is None.

    Rows are chosen with ``params[rows]``. Parameters are shared or set by replacing a field, since each op has one:
    ``dataclasses.replace(fresh, jitter=query.jitter)`` is a view with the query's colours and everything else its own
    (LooC, 2008.05659), ``replace(params, crop=boxes)`` one with crops chosen elsewhere (ContrastiveCrop, 2202.03278).
    They may stay on the CPU while the images are on a GPU, which then never has to be waited for.
    """

    size: int  # pixels a side of the finished view
    order: tuple[str, ...]  # ops in the order in which they act
    crop: Tensor  # int64 [n,4]: top, left, height, width in pixels of the image
    rotation: Tensor | None = None  # float32 [n], degrees counter-clockwise
    flip: Tensor | None = None  # bool [n]
    jitter: Jitter | None = None
    grey: Tensor | None = None  # bool [n]
    blur: Tensor | None = None  # float32 [n], sigma in pixels, 0 is none
    blur_taps: int = 1  # pixels the blur kernel is wide

    def __len__(self) -> int:
        return len(self.crop)

    def __getitem__(self, rows: Tensor | slice) -> Params:
        def chosen(drawn: Any) -> Any:
            return drawn[rows] if isinstance(drawn, (Tensor, Jitter)) else drawn

        return Params(*(chosen(getattr(self, field.name)) for field in fields(self)))


def draw(recipe: Recipe, count: int, height: int, width: int, generator: torch.Generator) -> Params:
    """Draws parameters for the views of `count` images of height x width pixels, on the generator's device.

    All that is random comes from `generator`: its state decides every parameter. The order of the jitter's ops is drawn
    once for all images, everything else for each image.
    """
    if height < 1 or width < 1:
        raise ValueError(f"images of {height} x {width} pixels have nothing to crop")
    crop = draw_crop(count, height, width, recipe.crop_scale, recipe.crop_ratio, generator)
    rotation = flip = jitter = grey = blur = None
    if recipe.flip_chance > 0:
        flip = draw_flip(count, recipe.flip_chance, generator)
    if recipe.jitter_chance > 0:
        jitter = draw_jitter(count, recipe.jitter_strength, recipe.jitter_chance, generator)
    if recipe.grey_chance > 0:
        grey = draw_grey(count, recipe.grey_chance, generator)
    if recipe.blur_chance > 0:
        blur = draw_blur(count, recipe.blur_sigma, recipe.blur_chance, generator)
    if recipe.rotation_chance > 0:
        rotation = draw_rotation(count, recipe.rotation_angles, recipe.rotation_chance, generator)
    return Params(recipe.size, recipe.order, crop, rotation, flip, jitter, grey, blur, recipe.blur_taps)


def apply(params: Params, pixels: Tensor) -> Tensor:
    """Makes the views: images [n, 3, H, W], uint8 or floating in 0..1, to float32 [n, 3, size, size] in 0..1,
    contiguous, on the images' device.

    float32 also under autocast; where float32 products are allowed to be TF32 or bfloat16, crop and blur are no more
    exact than those. On a CPU the native engine, where in use, makes them several times as fast as torch, equal up to
    float32 rounding; it turns no images, so views with rotation are torch's. A batch of another shape than the
    parameters were drawn for is a ValueError.
    """
    if pixels.ndim != 4 or pixels.shape[1] != 3 or len(pixels) != len(params):
        raise ValueError(f"{len(params)} views need images [{len(params)}, 3, H, W], not {list(pixels.shape)}")
    if pixels.dtype != torch.uint8 and not pixels.is_floating_point():
        raise ValueError(f"images of {pixels.dtype} have no known scale: give uint8, or floating values in 0..1")
    if native.serves(params, pixels):
        return native.apply(params, pixels)
    views = torch.empty(len(params), 3, params.size, params.size, dtype=torch.float32, device=pixels.device)
    most = _VALUES_AT_ONCE_CPU if pixels.device.type == "cpu" else _VALUES_AT_ONCE_ELSEWHERE
    step = max(1, most // (3 * max(params.size**2, pixels.shape[2] * pixels.shape[3])))
    with torch.autocast(pixels.device.type, enabled=False):
        for start in range(0, len(params), step):
            rows = slice(start, start + step)
            views[rows] = _apply(params[rows], pixels[rows])
    return views


def _apply(params: Params, pixels: Tensor) -> Tensor:
    # A mirrored crop is free, and a flip may be moved across every op but a rotation.
    with_crop = params.rotation is None or params.order.index("flip") < params.order.index("rotation")
    images = apply_crop(pixels, params.crop, params.size, params.flip if with_crop else None)
    for op in params.order:
        if op == "flip" and params.flip is not None and not with_crop:
            images = apply_flip(images, params.flip)
        elif op == "rotation" and params.rotation is not None:
            images = apply_rotation(images, params.rotation)
        elif op == "jitter" and params.jitter is not None:
            images = apply_jitter(images, params.jitter)
        elif op == "grey" and params.grey is not None:
            images = apply_grey(images, params.grey)
        elif op == "blur" and params.blur is not None:
            images = apply_blur(images, params.blur, params.blur_taps)
    return images
