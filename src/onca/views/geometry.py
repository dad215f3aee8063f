"""Flips and rotations, each image with its own."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def draw_flip(count: int, chance: float, generator: torch.Generator) -> Tensor:
    """Which images are mirrored left to right: bool [count]."""
    return torch.rand(count, device=generator.device, generator=generator) < chance


def apply_flip(images: Tensor, flip: Tensor) -> Tensor:
    """Mirrors left to right the images [n, 3, h, w] whose `flip` [n] is true."""
    return torch.where(flip.to(images.device, non_blocking=True)[:, None, None, None], images.flip(3), images)


def draw_rotation(count: int, angles: tuple[float, ...], chance: float, generator: torch.Generator) -> Tensor:
    """Angles in degrees counter-clockwise: float32 [count], one of `angles` with `chance`, else 0."""
    turned = torch.rand(count, device=generator.device, generator=generator) < chance
    choice = torch.randint(len(angles), (count,), device=generator.device, generator=generator)
    return torch.tensor(angles, dtype=torch.float32, device=generator.device)[choice] * turned


def apply_rotation(images: Tensor, angle: Tensor) -> Tensor:
    """Turns each of the images [n, 3, h, w] about its middle by `angle` [n] degrees counter-clockwise: size kept,
    bilinear, zeros where nothing was.

    Quarter turns of square images (half turns of any) move pixels and blend none. The images to be turned are looked up
    on the angles' device: angles left on the CPU spare a GPU the wait.
    """
    angle = angle.double() % 360
    unit = 90 if images.shape[2] == images.shape[3] else 180
    exact = angle % unit == 0
    result = images.clone()
    for turns in (1, 2, 3):
        rows = (exact & (angle == 90 * turns)).nonzero().squeeze(1).to(images.device, non_blocking=True)
        if len(rows):
            result[rows] = images[rows].rot90(turns, (2, 3))
    rows = (~exact).nonzero().squeeze(1)
    if len(rows):
        turn = angle[rows].to(images.device, non_blocking=True)
        grid = _rotation_grid(turn, images.shape[2], images.shape[3]).to(images.dtype)
        rows = rows.to(images.device, non_blocking=True)
        result[rows] = functional.grid_sample(images[rows], grid, padding_mode="zeros", align_corners=False)
    return result


def _rotation_grid(angle: Tensor, height: int, width: int) -> Tensor:
    """Where each pixel of a rotated image comes from, (x, y) as `grid_sample` counts: float32 [n, height, width, 2]."""
    cos, sin = angle.deg2rad().cos(), angle.deg2rad().sin()
    to_x = torch.stack((cos, -sin), 1).float() / (width / 2)
    to_y = torch.stack((sin, cos), 1).float() / (height / 2)
    y = torch.arange(height, device=angle.device, dtype=torch.float32) - (height - 1) / 2
    x = torch.arange(width, device=angle.device, dtype=torch.float32) - (width - 1) / 2
    place = torch.stack((x.expand(height, width), y[:, None].expand(height, width)), 2).view(1, -1, 2)
    return (place @ torch.stack((to_x, to_y), 2)).view(-1, height, width, 2)
