"""An encoder as the loop uses it: pixel statistics in front, memory format and precision around it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onca.encoders import Encoder


def device(name: str) -> torch.device:
    """The device that `--device` names; "auto" is CUDA where there is one.

    Raises:
        ValueError: a device that this machine does not have.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device {name!r} is not known: take auto, cpu, cuda or cuda:1") from None
    if chosen.type not in ("cpu", "cuda") or (chosen.type == "cuda" and not torch.cuda.is_available()):
        raise ValueError(f"--device {name}: there is no such device here; take --device cpu")
    return chosen


def precision(name: str, place: torch.device) -> torch.dtype:
    """What the encoders compute in. "auto" is bf16 on CUDA and on CPUs with matrix units (AMX), else float32.

    A CPU without them emulates or halves the rate of bf16 products: there float32 is the faster one.
    """
    if name == "auto":
        # torch 2.11 has no public name for this question (torch.cpu.get_capabilities came later)
        quick = place.type == "cuda" or torch.cpu._is_amx_tile_supported()
        return torch.bfloat16 if quick else torch.float32
    return torch.bfloat16 if name == "bf16" else torch.float32


class Network(nn.Module):
    """Images in 0..1 [n,3,H,W] -> float32 embeddings [n,dim], whatever the encoder computes in.

    The statistics of the training images are buffers, so they travel with the weights: another data set is seen through
    those of the data set that was trained on.
    """

    def __init__(self, encoder: Encoder, mean: Tensor, std: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.encoder = encoder.to(memory_format=torch.channels_last)
        self.dtype = dtype
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", mean.view(1, 3, 1, 1))
        self.register_buffer("std", std.view(1, 3, 1, 1))

    @property
    def width(self) -> int:
        return self.encoder.width

    def forward(self, images: Tensor) -> Tensor:
        with self._cast(images):
            embeddings: Tensor = self.encoder(self._prepared(images))
        return embeddings.float()  # [n,dim]: losses are computed in float32

    def features(self, images: Tensor) -> Tensor:
        """What the backbone makes of the images, before the head: float32 [n,width]."""
        with self._cast(images):
            features = self.encoder.features(self._prepared(images))
        return features.float()

    @torch.no_grad()
    def maps(self, images: Tensor) -> Tensor:
        """The backbone's last maps float32 [n,C,h,w], in evaluation mode."""
        training = self.training
        self.eval()
        with self._cast(images):
            maps = self.encoder.maps(self._prepared(images))
        self.train(training)
        return maps.float()

    def _prepared(self, images: Tensor) -> Tensor:
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)

    def _cast(self, images: Tensor) -> torch.autocast:
        return torch.autocast(images.device.type, self.dtype, enabled=self.dtype != torch.float32)
