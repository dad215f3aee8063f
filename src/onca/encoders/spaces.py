"""LooC's encoder: one backbone and a head for each embedding space (2008.05659, section 3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onca.encoders.encoder import Encoder, check_head, make_backbone, make_head


class Spaces(Encoder):
    """Images [n,3,H,W] -> the embeddings of all spaces side by side [n, spaces x dim]. One space is `make`'s encoder.

    `name`, `head`, `dim`: as in `make`, the head once for each space. Features are the backbone's (LooC);
    `features_of_spaces` are what LooC++ is evaluated on.

    Raises:
        ValueError: as `make`; spaces < 1.
    """

    def __init__(self, name: str, head: str, dim: int, spaces: int) -> None:
        if isinstance(spaces, bool) or not isinstance(spaces, int) or spaces < 1:
            raise ValueError(f"spaces is the number of embedding spaces, 1 or more; got {spaces!r}")
        check_head(head, dim)
        backbone, width = make_backbone(name)
        super().__init__(backbone, _Heads([make_head(head, width, dim) for _ in range(spaces)]), width)

    @property
    def width_of_spaces(self) -> int:
        assert isinstance(self.head, _Heads)
        return len(self.head.spaces) * self.width

    def features_of_spaces(self, images: Tensor) -> Tensor:
        """First layer and ReLU of every head, side by side: [n, spaces x width] (LooC++).

        Raises:
            ValueError: linear heads, which have no such layer.
        """
        assert isinstance(self.head, _Heads)
        return self.head.hidden(self.features(images))


class _Heads(nn.Module):
    def __init__(self, spaces: list[nn.Module]) -> None:
        super().__init__()
        self.spaces = nn.ModuleList(spaces)

    def hidden(self, features: Tensor) -> Tensor:
        heads = [head for head in self.spaces if isinstance(head, nn.Sequential)]
        if len(heads) < len(self.spaces):
            raise ValueError(
                'LooC++ evaluates the first layer of each head, which head "linear" lacks: take head "mlp"'
            )
        return torch.cat([nn.functional.relu(head[0](features)) for head in heads], 1)

    def forward(self, features: Tensor) -> Tensor:
        return torch.cat([head(features) for head in self.spaces], 1)
