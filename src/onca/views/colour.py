"""Colour ops on RGB images in 0..1, each image with its own factor; formulas are torchvision's.

Shapes: images [n, 3, h, w], floating; factors [n]. The factor that changes nothing is 1 (0 for hue). Every op leaves
its input as it was.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Jitter:
    """Factors of the colour jitter, float32 [n] each, and the order in which the four ops act, the same for all images.

    An image without jitter has the neutral factors 1, 1, 1 and 0. An op that `order` does not name is left out.
    """

    brightness: Tensor
    contrast: Tensor
    saturation: Tensor
    hue: Tensor  # share of a full turn, -0.5 to 0.5
    order: tuple[str, ...]

    @property
    def applied(self) -> Tensor:
        """Which images are jittered: bool [n]."""
        return (self.brightness != 1) | (self.contrast != 1) | (self.saturation != 1) | (self.hue != 0)

    def __getitem__(self, rows: Tensor | slice) -> Jitter:
        return replace(self, **{op: getattr(self, op)[rows] for op in JITTERS})


def draw_jitter(
    count: int, strength: tuple[float, float, float, float], chance: float, generator: torch.Generator
) -> Jitter:
    """Draws which images are jittered, with `chance`; their brightness, contrast and saturation factors, uniform in
    1 -/+ strength (not below 0); their hue shifts, uniform in -/+ strength; and one order for all. An op of strength 0
    is left out.
    """

    def uniform() -> Tensor:
        return torch.rand(count, device=generator.device, generator=generator)

    chosen = uniform() < chance
    factors = {}
    for op, spread in zip(JITTERS, strength, strict=True):
        neutral = 0.0 if op == "hue" else 1.0
        low = -spread if op == "hue" else max(1 - spread, 0.0)
        factors[op] = torch.where(chosen, low + (neutral + spread - low) * uniform(), neutral)
    present = [op for op, spread in zip(JITTERS, strength, strict=True) if spread > 0]
    shuffled = torch.randperm(len(present), device=generator.device, generator=generator).tolist()
    return Jitter(**factors, order=tuple(present[place] for place in shuffled))


def apply_jitter(images: Tensor, jitter: Jitter) -> Tensor:
    """Brightness, contrast, saturation and hue in the jitter's order."""
    for op in jitter.order:
        images = JITTERS[op](images, getattr(jitter, op))
    return images


def draw_grey(count: int, chance: float, generator: torch.Generator) -> Tensor:
    """Which images lose their colour: bool [count]."""
    return torch.rand(count, device=generator.device, generator=generator) < chance


def apply_grey(images: Tensor, grey: Tensor) -> Tensor:
    """Gives the images whose `grey` [n] is true their luma in all three channels."""
    return _blend(images, _luma(images), 1 - grey.float())  # exact, since the weights are 0 and 1


def brightness(images: Tensor, factor: Tensor) -> Tensor:
    """Scales all channels; clamps to 0..1."""
    return (images * _column(factor, images)).clamp_(0, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Scales the distance to the image's mean luma; clamps to 0..1."""
    return _blend(images, _luma(images.mean((2, 3), keepdim=True)), factor).clamp_(0, 1)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Scales the distance to each pixel's luma; clamps to 0..1."""
    return _blend(images, _luma(images), factor).clamp_(0, 1)


def hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turns the hue of HSV by `shift` of a full turn, value and saturation kept.

    No conversion and no case per sextant: with hue counted in sextants from cyan, z in [-3, 3], the channels are
    red = low + span t(z), green = high - span t(z + 1), blue = high - span t(z - 1), t(z) = min(max(|z|, 1), 2) - 1,
    and |z| = 2 - ((green - red) + (blue - low)) / span, with the sign of blue - green.
    """
    red, green, blue = images.unbind(1)
    high = torch.maximum(torch.maximum(red, green), blue)
    low = torch.minimum(torch.minimum(red, green), blue)
    span = high - low
    z = (green - red).add_(blue - low).div_(span.clamp_min(torch.finfo(images.dtype).tiny)).neg_().add_(2)
    z = torch.copysign(z, blue - green).add_(6 * _column(shift, images)[:, 0])
    z.sub_((z / 6).round_(), alpha=6)

    turned = z.new_empty(3, *z.shape)
    for channel, place in enumerate((z, z + 1, z - 1)):
        torch.abs(place, out=turned[channel])
    turned.clamp_(1, 2).sub_(1).mul_(span)
    turned[0].add_(low)
    torch.sub(high, turned[1:], out=turned[1:])
    return turned.transpose(0, 1)


def _blend(images: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    factor = _column(factor, images)
    return (images * factor).add_(other * (1 - factor))


def _luma(images: Tensor) -> Tensor:
    red, green, blue = images[:, 0:1], images[:, 1:2], images[:, 2:3]
    return (red * 0.2989).add_(green, alpha=0.587).add_(blue, alpha=0.114)


def _column(factor: Tensor, images: Tensor) -> Tensor:
    return factor.to(images, non_blocking=True)[:, None, None, None]


JITTERS = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
