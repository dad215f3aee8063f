"""What MoCo and LooC share: keys from a copy of the encoder that follows it slowly (1911.05722, eq. 2)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from onca.hosts.host import Batch, Host, drawn_from, unit_rows
from onca.schedule import Number


class Momentum(Host):
    """A host with a key encoder: a deep copy, moved by `momentum` (parameters only: statistics of batch norm are each
    encoder's own).

    Keys are encoded in an order drawn from (seed, step, view), which matters with split batch norm (one device standing
    for several: without it a query would share statistics with its key).
    """

    def __init__(
        self, encoder: nn.Module, momentum: float, temperature: Number, seed: int = 0, support: int = 0
    ) -> None:
        super().__init__(encoder, temperature, seed, support)
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum of the key encoder lies in 0 to 1; got {momentum}")
        self.key_encoder = copy.deepcopy(encoder)
        self.key_encoder.requires_grad_(False)
        self.momentum = momentum

    @torch.no_grad()
    def before_step(self) -> None:
        for key, own in zip(self.key_encoder.parameters(), self.encoder.parameters(), strict=True):
            key.mul_(self.momentum).add_(own, alpha=1 - self.momentum)

    @torch.no_grad()
    def encode_keys(self, batch: Batch, view: int) -> Tensor:
        """Unit rows of one view through the key encoder [B,D]."""
        images = batch.views[view]
        if not self.training:
            return unit_rows(self.key_encoder(images))
        draw = torch.Generator().manual_seed(drawn_from(self.seed, batch.step, view))
        order = torch.randperm(len(images), generator=draw).to(images.device)
        back = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
        return unit_rows(self.key_encoder(images[order]))[back]
