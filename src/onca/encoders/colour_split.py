"""CMC's pair of encoders: one sees lightness, the other the two channels of colour (1906.05849)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from onca.encoders.encoder import Encoder, check_head, make_backbone, make_head
from onca.part import nearest

Weights = tuple[tuple[float, float, float], ...]

# sRGB (IEC 61966-2-1) to XYZ; each row is divided by its sum, the white of D65, so that grey is exactly a = b = 0.
XYZ: Weights = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
YCBCR: Weights = (  # ITU-R BT.601, full range, as in JPEG
    (0.299, 0.587, 0.114),
    (-0.299 / 1.772, -0.587 / 1.772, 0.5),
    (0.5, -0.587 / 1.402, -0.114 / 1.402),
)
EDGE = 6 / 29  # where the cube root of CIE Lab becomes a line


def lab(images: Tensor) -> Tensor:
    """RGB in 0..1 [n,3,H,W] -> CIE Lab of D65, L in 0..100, a and b in about -108..98."""
    linear = torch.where(images <= 0.04045, images / 12.92, ((images.clamp_min(0) + 0.055) / 1.055) ** 2.4)
    ratio = _mixed(linear, tuple((r / (r + g + b), g / (r + g + b), b / (r + g + b)) for r, g, b in XYZ))
    root = torch.where(ratio > EDGE**3, ratio.clamp_min(EDGE**3) ** (1 / 3), ratio / (3 * EDGE**2) + 4 / 29)
    x, y, z = root.unbind(1)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), 1)


def ycbcr(images: Tensor) -> Tensor:
    """RGB in 0..1 [n,3,H,W] -> Y in 0..1, Cb and Cr in -0.5..0.5 (ITU-R BT.601, full range)."""
    return _mixed(images, YCBCR)


def _mixed(images: Tensor, weights: Weights) -> Tensor:
    """Sums of channels. Written out: a matrix product would lose digits under autocast and TF32."""
    red, green, blue = images.unbind(1)
    return torch.stack([r * red + g * green + b * blue for r, g, b in weights], 1)


def _scaled_lab(images: Tensor) -> Tensor:
    return lab(images) / images.new_tensor([50, 100, 100])[:, None, None] - images.new_tensor([1, 0, 0])[:, None, None]


def _scaled_ycbcr(images: Tensor) -> Tensor:
    return 2 * ycbcr(images) - images.new_tensor([1, 0, 0])[:, None, None]


SPACES: dict[str, Callable[[Tensor], Tensor]] = {"lab": _scaled_lab, "ycbcr": _scaled_ycbcr}


class ColourSplit(Encoder):
    """RGB in 0..1 [n,3,H,W] -> embeddings [n,2 dim], that of lightness and that of colour side by side.

    Features are those of both backbones side by side. `name`, `head`, `dim`: of each half, see `make`. space: "lab", or
    "ycbcr", which CMC's authors found better by 0.5 to 1 point. Channels are scaled to about -1..1 (the official code
    standardises them by constants); images must come as they are, without mean and deviation taken off.

    Raises:
        ValueError: as `make`; a space that is not known.
    """

    def __init__(self, name: str, head: str, dim: int, space: str = "lab") -> None:
        if space not in SPACES:
            raise ValueError(f"colour space {space!r} is not known; {nearest(str(space), SPACES)}")
        check_head(head, dim)
        backbones, widths = zip(*(make_backbone(name, channels) for channels in (1, 2)), strict=True)
        heads = [make_head(head, width, dim) for width in widths]
        super().__init__(_Backbones(list(backbones), space), _Heads(heads, list(widths)), sum(widths))

    def maps(self, images: Tensor) -> Tensor:
        """The last maps of both backbones, channels side by side."""
        assert isinstance(self.backbone, _Backbones)
        halves = zip(self.backbone.halves, self.backbone.split(images), strict=True)
        return torch.cat([Encoder(half, nn.Identity(), 0).maps(part) for half, part in halves], 1)


class _Backbones(nn.Module):
    def __init__(self, halves: list[nn.Module], space: str) -> None:
        super().__init__()
        self.halves = nn.ModuleList(halves)
        self.space = space

    def extra_repr(self) -> str:
        return f"space={self.space!r}"

    def split(self, images: Tensor) -> tuple[Tensor, Tensor]:
        converted = SPACES[self.space](images)
        return converted[:, :1], converted[:, 1:]

    def forward(self, images: Tensor) -> Tensor:
        parts = zip(self.halves, self.split(images), strict=True)
        return torch.cat([half(part) for half, part in parts], 1)  # [n, sum of widths]


class _Heads(nn.Module):
    def __init__(self, halves: list[nn.Module], widths: list[int]) -> None:
        super().__init__()
        self.halves = nn.ModuleList(halves)
        self.widths = widths

    def forward(self, features: Tensor) -> Tensor:
        parts = zip(self.halves, torch.split(features, self.widths, 1), strict=True)
        return torch.cat([half(part) for half, part in parts], 1)  # [n, 2 dim]
