"""Features of a whole image set, one batch after the other."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from onca.data import ImageSet
from onca.encoders import Encoder, Spaces

LAYERS = ("backbone", "head", "spaces")


def features(
    encoder: Encoder,
    images: ImageSet,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    layer: str = "backbone",
    batch: int = 512,
    bf16: bool = False,
) -> Tensor:
    """Features [N,F] of every image in order: without augmentation, in eval mode, on the encoder's device.

    Pixels become (pixel / 255 - mean) / std, per channel, in the encoder's dtype. layer: "backbone" (after global
    pooling), "head" (the embedding, not normalised) or "spaces" (the first layer of each head of LooC: LooC++). bf16
    runs under autocast; the features are float32 all the same. The encoder is left in the modes it was in.

    Raises:
        ValueError: another layer, "spaces" of an encoder that has none, no images, a batch below 1, a std that is not
            above 0.
    """
    if layer not in LAYERS:
        raise ValueError(f"layer is {' or '.join(map(repr, LAYERS))}; got {layer!r}")
    if len(images) == 0 or batch < 1:
        raise ValueError(f"features need an image and a batch of 1 or more; got {len(images)} images, batch={batch}")
    if len(mean) != 3 or len(std) != 3 or not all(value > 0 for value in std):
        raise ValueError(f"mean and std are 3 numbers each, std above 0; got mean={mean}, std={std}")
    encode = _layer(encoder, layer)
    weights = next(encoder.parameters())
    centre, scale = weights.new_tensor(mean).view(3, 1, 1), weights.new_tensor(std).view(3, 1, 1)
    found = []
    with torch.no_grad(), _eval_mode(encoder), torch.autocast(weights.device.type, torch.bfloat16, enabled=bf16):
        for rows in torch.split(torch.arange(len(images)), batch):
            pixels = images.take(rows).to(weights.device)
            found.append(encode((pixels.to(weights.dtype) / 255 - centre) / scale).to(weights.dtype))
    return torch.cat(found)


def _layer(encoder: Encoder, layer: str) -> Callable[[Tensor], Tensor]:
    if layer == "spaces":
        if not isinstance(encoder, Spaces):
            raise ValueError('layer "spaces" are the heads of an encoder with several spaces: train with --host looc')
        return encoder.features_of_spaces
    return encoder.features if layer == "backbone" else encoder


@contextmanager
def _eval_mode(module: nn.Module) -> Iterator[None]:
    """Eval mode, and back to each layer's own mode: a layer that was frozen in eval mode stays so."""
    modes = [(layer, layer.training) for layer in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training
