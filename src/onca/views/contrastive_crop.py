"""Crops whose centres lie where the encoder looks (ContrastiveCrop, 2202.03278).

Maps of the encoder's last stage become a heat map, the heat map a box, and the centres of an image's crops are then
drawn inside its box. Sizes and ratios of the crops stay those of a random resized crop.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .crop import draw_extents

WHOLE = (0.0, 0.0, 1.0, 1.0)  # of an image: the shares of its height and width where it begins and ends


def heat_maps(features: Tensor, height: int, width: int) -> Tensor:
    """Where the encoder looks, 0..1 in each image: maps [n,C,h,w] after their ReLU -> [n,height,width].

    Sum over channels, less its minimum, divided by its maximum, then bilinear (align_corners False). float64 stays,
    narrower dtypes come out as float32. A constant map is 0 everywhere (0/0 in the official code).
    """
    total = features.to(torch.promote_types(features.dtype, torch.float32)).sum(1)  # [n,h,w]
    above = total - total.amin((1, 2), keepdim=True)
    top = above.amax((1, 2), keepdim=True)
    share = above / torch.where(top > 0, top, 1)
    return functional.interpolate(share[:, None], (height, width), mode="bilinear", align_corners=False)[:, 0]


def boxes_of(maps: Tensor, threshold: float) -> tuple[Tensor, Tensor]:
    """The smallest box around all that exceeds `threshold` in each heat map [n,H,W].

    Returns boxes float32 [n,4], (h_min, w_min, h_max, w_max) as shares: first row / H, first column / W, last row / H,
    last column / W, the last ones not increased by one, as in the official code, so that 1 is never reached. And bool
    [n]: nothing exceeds the threshold, as in a constant map (the official code stops there with an IndexError); the
    box is then the whole image.
    """
    hot = maps > threshold
    first, last = [], []
    for lines in (hot.any(2), hot.any(1)):  # [n,H], [n,W]
        length = lines.shape[1]
        first.append(lines.byte().argmax(1).float() / length)
        last.append((length - 1 - lines.flip(1).byte().argmax(1)).float() / length)
    nothing = ~hot.flatten(1).any(1)
    boxes = torch.stack((*first, *last), 1)
    return torch.where(nothing[:, None], boxes.new_tensor(WHOLE), boxes), nothing


def place_crop(
    extent: Tensor, fits: Tensor, boxes: Tensor, row: Tensor, column: Tensor, height: int, width: int
) -> Tensor:
    """Crops from recorded draws: int64 [n,4], (top, left, height, width).

    extent int64 [n,2] and fits bool [n] as `crop_extents` gives them; boxes [n,4] in shares; row, column [n] in 0..1:
    where between the box's ends the centre lies. In pixels, for a side of length L and a crop of length l: the top
    lies at lo + int((hi - lo) * row), lo = clip(int(L * h_min) - l // 2, 0, L - l), hi likewise. A crop that fits
    nowhere stands in the middle of the image.
    """
    side = torch.tensor([height, width], device=extent.device)
    room = side - extent
    low, high = (
        torch.minimum(((edge * side).long() - extent // 2).clamp_min(0), room) for edge in (boxes[:, :2], boxes[:, 2:])
    )
    share = torch.stack((row, column), 1).nan_to_num()  # NaN: not drawn, because nothing fits
    corner = low + ((high - low) * share).long()
    return torch.cat((torch.where(fits[:, None], corner, room // 2), extent), 1)


def draw_contrastive_crop(
    boxes: Tensor,
    height: int,
    width: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    alpha: float,
    generator: torch.Generator,
) -> Tensor:
    """Crops of images of height x width pixels, their centres in `boxes` [n,4]: int64 [n,4], as `draw_crop` gives them.

    Sizes are drawn as `draw_crop` draws them, from a generator in the same state the same ones. Where in the box a
    centre lies is Beta(alpha, alpha), rows and columns apart: below 1 the box's border is likelier than its middle
    (variance 1 / (4 (2 alpha + 1)) of the box's side, squared).
    """
    extent, fits = draw_extents(len(boxes), height, width, scale, ratio, generator)
    row, column = _beta(alpha, (len(boxes), 2), generator).unbind(1)
    return place_crop(extent, fits, boxes.to(generator.device), row, column, height, width)


def _beta(alpha: float, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Draws of Beta(alpha, alpha), float64. torch.distributions takes no generator.

    G / (G + G') of two Gamma(alpha) draws, each made of a Gamma(alpha + 1) draw times U^(1/alpha), in logarithms: a
    small alpha would leave 0 / 0 otherwise.
    """
    shapes = torch.full((2, *shape), alpha + 1, dtype=torch.float64, device=generator.device)
    first, second = torch._standard_gamma(shapes, generator).log()
    one, other = (
        torch.rand(shapes.shape, dtype=torch.float64, device=generator.device, generator=generator).log() / alpha
    )
    return torch.sigmoid(first + one - second - other)


class Boxes(nn.Module):
    """Where the encoder last looked in each of `images` images; travels in a checkpoint.

    boxes [I,4] in shares (h_min, w_min, h_max, w_max), the whole image at first; constant bool [I], whose last map was
    constant; located: the epoch before which boxes were last found, -1 none.
    """

    boxes: Tensor
    constant: Tensor
    located: Tensor

    def __init__(self, images: int) -> None:
        super().__init__()
        self.register_buffer("boxes", torch.tensor(WHOLE).repeat(images, 1))
        self.register_buffer("constant", torch.zeros(images, dtype=torch.bool))
        self.register_buffer("located", torch.tensor(-1))

    def of(self, rows: Tensor) -> Tensor | None:
        """Boxes [n,4] of the images in these rows; None as long as none was ever found."""
        return None if int(self.located) < 0 else self.boxes[rows.to(self.boxes.device)]

    @torch.no_grad()
    def write(self, rows: Tensor, features: Tensor, height: int, width: int, threshold: float) -> None:
        """Finds the boxes of the images in these rows anew, from the encoder's maps [n,C,h,w] of the whole images."""
        boxes, constant = boxes_of(heat_maps(features, height, width), threshold)
        rows = rows.to(self.boxes.device)
        self.boxes[rows], self.constant[rows] = boxes.to(self.boxes.device), constant.to(self.boxes.device)
