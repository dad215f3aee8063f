"""Do frozen features tell how an image is turned? What invariance to rotation destroys (LooC, 2008.05659)."""

from collections.abc import Sequence
from dataclasses import replace

import torch

from onca.data import ImageSet
from onca.encoders import Encoder
from onca.evaluate.encode import features
from onca.evaluate.linear import linear_probe

TURNS = 4  # by 0, 90, 180 and 270 degrees


def rotation_top1(
    encoder: Encoder,
    train: ImageSet,
    test: ImageSet,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    bf16: bool = False,
) -> float:
    """Accuracy in percent of a linear probe that says by which quarter turn a test image was turned; chance is 25.

    Every image is shown with one turn, drawn once for all runs; turns are equally frequent. mean, std: as `features`
    takes them.
    """
    seen = [_turned(images) for images in (train, test)]
    train_x, test_x = (features(encoder, images, mean, std, bf16=bf16) for images in seen)
    train_y, test_y = (images.label.to(train_x.device) for images in seen)
    return linear_probe(train_x, train_y, test_x, test_y, TURNS)["linear_top1"]


def _turned(images: ImageSet) -> ImageSet:
    """The set with every image turned, the turn being its label. Drawn, since classes may follow the images' order."""
    turn = torch.randperm(len(images), generator=torch.Generator().manual_seed(0)) % TURNS
    pixels = images.take(torch.arange(len(images)))
    turned = torch.stack([torch.rot90(image, int(k), (-2, -1)) for image, k in zip(pixels, turn, strict=True)])
    names = tuple(f"{90 * k} degrees" for k in range(TURNS))
    return replace(images, pixels=turned, undecoded=None, label=turn, names=names, levels={})
