"""Gaussian blur, each image with its own sigma, as one small matrix product along each axis."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def draw_blur(count: int, sigma: tuple[float, float], chance: float, generator: torch.Generator) -> Tensor:
    """Sigmas in pixels: float32 [count], uniform between the two of `sigma` with `chance`, else 0."""
    chosen = torch.rand(count, device=generator.device, generator=generator) < chance
    drawn = torch.rand(count, device=generator.device, generator=generator) * (sigma[1] - sigma[0]) + sigma[0]
    return drawn * chosen


def apply_blur(images: Tensor, sigma: Tensor, taps: int) -> Tensor:
    """Blurs each of the images [n, 3, h, w] with a Gaussian of `sigma` [n] pixels, `taps` pixels wide (odd), borders
    reflected; sigma 0 leaves an image as it is. A kernel without a middle, or too wide to reflect, is a ValueError.

    The images to be blurred are looked up on the sigmas' device: sigmas left on the CPU spare a GPU the wait.
    """
    check_taps(taps, min(images.shape[2:]))
    rows = sigma.nonzero().squeeze(1)
    if not len(rows):
        return images
    kernel = _kernel(sigma[rows], taps).to(images, non_blocking=True)
    rows = rows.to(images.device, non_blocking=True)
    down, across = _spread(kernel, images.shape[2]), _spread(kernel, images.shape[3])
    return images.index_copy(0, rows, down[:, None] @ images[rows] @ across.mT[:, None])


def check_taps(taps: int, side: int) -> None:
    """Raises ValueError for a kernel without a middle, or too wide to reflect in an image of `side` pixels."""
    if taps % 2 == 0 or taps // 2 >= side:
        raise ValueError(f"a blur of {taps} taps: give an odd number below twice the image's side of {side} pixels")


def _kernel(sigma: Tensor, taps: int) -> Tensor:
    """Gaussian weights, [n, taps], each row of sum 1."""
    offset = torch.arange(taps, device=sigma.device) - taps // 2
    return torch.softmax(-(offset**2) / (2 * sigma[:, None] ** 2), 1)


def _spread(kernel: Tensor, length: int) -> Tensor:
    """How much each of `length` pixels counts in each blurred one, borders reflected: [n, length, length]."""
    reach = kernel.shape[1] // 2
    reflected = functional.pad(torch.eye(length, device=kernel.device, dtype=kernel.dtype), (reach, reach), "reflect")
    windows = reflected.unfold(1, kernel.shape[1], 1)  # [source,blurred,taps]
    return torch.einsum("nt,sbt->nbs", kernel, windows)
