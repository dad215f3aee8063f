"""Random resized crop: boxes drawn as torchvision draws them, each cut out and resized as two small matrix products."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_TRIES = 10


def draw_crop(
    count: int,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> Tensor:
    """Boxes of a random resized crop in images of height x width pixels: int64 [count, 4], (top, left, height, width).

    The share of the area is uniform in `scale`, the ratio width/height uniform in its logarithm, the place uniform; of
    ten tries the first box that fits is taken, else the largest centred one whose ratio is allowed.
    """
    extent, fits = draw_extents(count, height, width, scale, ratio, generator)
    place = torch.rand(count, 2, dtype=torch.float64, device=generator.device, generator=generator)
    room = torch.tensor([height, width], device=extent.device) - extent
    corner = torch.minimum((place * (room + 1)).long(), room)
    return torch.cat((torch.where(fits[:, None], corner, room // 2), extent), 1)


def draw_extents(
    count: int,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Sizes of the boxes of `draw_crop`, as `crop_extents` gives them."""

    def uniform(low: float, high: float) -> Tensor:
        draws = torch.rand(count, _TRIES, dtype=torch.float64, device=generator.device, generator=generator)
        return draws * (high - low) + low

    share = uniform(*scale)
    log_ratio = uniform(math.log(ratio[0]), math.log(ratio[1]))
    return crop_extents(share, log_ratio, height, width, ratio)


def crop_extents(
    share: Tensor, log_ratio: Tensor, height: int, width: int, ratio: tuple[float, float]
) -> tuple[Tensor, Tensor]:
    """Box sizes from recorded draws: share of the area and log of width/height, [n, tries], NaN for a try not made.

    Returns (height, width) in pixels, int64 [n, 2], of the first try that fits into the image, and whether one did,
    bool [n]; where none did, the size is that of the largest box whose ratio lies in `ratio`.
    """
    area, aspect = share * (height * width), log_ratio.exp()
    tall, wide = (area / aspect).sqrt().round(), (area * aspect).sqrt().round()
    fit = (tall > 0) & (tall <= height) & (wide > 0) & (wide <= width)
    first = fit.int().argmax(1, keepdim=True)
    fits = fit.gather(1, first)
    whole = (
        min(height, round(width / ratio[0])),
        min(width, round(height * ratio[1])),
    )
    drawn = torch.cat((tall.gather(1, first), wide.gather(1, first)), 1)
    return torch.where(fits, drawn, drawn.new_tensor(whole)).long(), fits.squeeze(1)


def apply_crop(images: Tensor, box: Tensor, size: int, flip: Tensor | None = None) -> Tensor:
    """Cuts `box` [n, 4] out of the images [n, 3, H, W] and resizes it to size x size, bilinear with antialiasing.

    uint8 images come out as float32 in 0..1, floating ones keep their scale. Where `flip` [n] is true the crop is
    mirrored left to right, at no cost. A box that reaches out of its image is a ValueError. In the result's memory the
    channels lie first, which lets the colour ops take one channel of all images as one piece.
    """
    count, channels, height, width = images.shape
    check_boxes(box, height, width)
    box = box.to(images.device, non_blocking=True)
    top, left, tall, wide = box.unbind(1)
    down = _resample(top, tall, height, size)  # [n,size,H]
    across = _resample(left, wide, width, size, flip)  # [n,size,W]
    if not images.is_floating_point():
        down = down / 255
        images = images.to(torch.float32)
    half = torch.bmm(images.reshape(count, channels * height, width), across.mT.to(images.dtype))
    half = half.view(count, channels, height, size)
    result = half.new_empty(channels, count, size, size)
    for channel in range(channels):
        torch.bmm(down.to(images.dtype), half[:, channel], out=result[channel])
    return result.transpose(0, 1)


def check_boxes(box: Tensor, height: int, width: int) -> None:
    """Raises ValueError where one of the boxes [n, 4] reaches out of an image of height x width pixels, or is empty."""
    edge = box.new_tensor([height, width])
    if not bool(((box[:, :2] >= 0) & (box[:, 2:] > 0) & (box[:, :2] + box[:, 2:] <= edge)).all()):
        raise ValueError(f"a crop box (top, left, height, width) reaches out of its image of {height} x {width} pixels")


def _resample(start: Tensor, extent: Tensor, length: int, size: int, flip: Tensor | None = None) -> Tensor:
    """How much each of `length` pixels of one axis counts in each of `size` output pixels: float32 [n, size, length].

    The triangle of torch's antialiased interpolation, two output pixels wide and at least two input pixels, cut off at
    the crop's edge. Positions are counted from the crop's start and rounded to float32 where torch does that: finer
    ones give other weights, by up to half a unit in the last place of a position.
    """
    step = (extent.to(torch.float32) / size)[:, None, None]
    output = torch.arange(size, device=start.device, dtype=torch.float32)[:, None] + 0.5
    if flip is not None:
        output = torch.where(flip.to(start.device, non_blocking=True)[:, None, None], size - output, output)
    pixel = torch.arange(length, device=start.device) - start[:, None]
    outside = (pixel < 0) | (pixel >= extent[:, None])
    place = (pixel + 0.5).masked_fill(outside, math.inf)[:, None, :]
    distance = (place - step * output).abs_().mul_(1 / step.clamp_min(1))  # in output pixels, or input ones if larger
    weight = (1 - distance).clamp_(min=0)
    return weight.div_(weight.sum(2, keepdim=True))
