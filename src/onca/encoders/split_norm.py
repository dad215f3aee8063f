"""Batch norm over parts of a batch: what several devices do to MoCo, on one device."""

from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class SplitBatchNorm2d(nn.BatchNorm2d):
    """Batch norm whose training statistics are those of each of `splits` parts of the batch (MoCo, 1911.05722, 3.3).

    Parts are strided: image n belongs to part n mod splits, as in MoCo's CIFAR notebook. The running statistics move
    towards the mean over the parts. In eval mode it is plain batch norm; the state_dict is that of nn.BatchNorm2d.

    Raises:
        ValueError: splits < 1; in training mode, a batch that `splits` does not divide.
    """

    def __init__(self, channels: int, splits: int, eps: float = 1e-5, momentum: float = 0.1) -> None:
        if isinstance(splits, bool) or not isinstance(splits, int) or splits < 1:
            raise ValueError(f"splits is the number of parts of a batch, 1 or more; got {splits!r}")
        super().__init__(channels, eps=eps, momentum=momentum)
        self.splits = splits

    def extra_repr(self) -> str:
        return f"{self.num_features}, splits={self.splits}, eps={self.eps}, momentum={self.momentum}"

    def forward(self, input: Tensor) -> Tensor:
        if not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        count, channels, height, width = input.shape
        if count % self.splits:
            raise ValueError(f"{count} images cannot be cut into {self.splits} equal parts: change batch or splits")
        assert self.running_mean is not None and self.running_var is not None and self.momentum is not None
        # Part and channel together are the channels of one plain batch norm: [n/splits, splits x C, H, W].
        mean, variance = self.running_mean.repeat(self.splits), self.running_var.repeat(self.splits)
        parts = nn.functional.batch_norm(
            input.reshape(count // self.splits, self.splits * channels, height, width),
            mean,
            variance,
            self.weight.repeat(self.splits),
            self.bias.repeat(self.splits),
            training=True,
            momentum=self.momentum,
            eps=self.eps,
        )
        with torch.no_grad():
            self.running_mean.copy_(mean.view(self.splits, channels).mean(0))
            self.running_var.copy_(variance.view(self.splits, channels).mean(0))
            if self.num_batches_tracked is not None:
                self.num_batches_tracked += 1
        output = parts.view(count, channels, height, width)
        return output.contiguous(memory_format=torch.channels_last) if _channels_last(input) else output


def _channels_last(images: Tensor) -> bool:
    return images.is_contiguous(memory_format=torch.channels_last) and not images.is_contiguous()


def split_batch_norm(module: Module, splits: int) -> Module:
    """Replaces, in place, every BatchNorm2d inside `module` by a SplitBatchNorm2d with the same weights and statistics.

    The new layers hold the old parameters and buffers themselves, so an optimiser made before still trains them.

    Raises:
        ValueError: splits < 1, no BatchNorm2d inside, or one without weights or running statistics.
    """
    found = [(name, layer) for name, layer in module.named_modules() if name and isinstance(layer, nn.BatchNorm2d)]
    if not found:
        raise ValueError(f"{type(module).__name__} has no BatchNorm2d inside whose batch could be split")
    for name, layer in found:
        owner, _, attribute = name.rpartition(".")
        setattr(module.get_submodule(owner), attribute, _split(layer, splits))
    return module


def _split(layer: nn.BatchNorm2d, splits: int) -> SplitBatchNorm2d:
    if not layer.affine or not layer.track_running_stats or layer.momentum is None:
        raise ValueError(f"cannot split {layer}: it needs weights, running statistics and a momentum")
    split = SplitBatchNorm2d(layer.num_features, splits, layer.eps, layer.momentum)
    split.train(layer.training)
    split.weight, split.bias = layer.weight, layer.bias
    split.running_mean, split.running_var = layer.running_mean, layer.running_var
    split.num_batches_tracked = layer.num_batches_tracked
    return split
