"""The small encoder of the demo: five convolutions, quick enough to train on a laptop's CPU."""

import itertools

from torch import nn

STRIDES = (2, 2, 1, 2, 1)


def small(width: int = 32, *, channels: int = 3) -> tuple[nn.Module, int]:
    """Five 3x3 convolutions, each with batch norm and ReLU, strides 2 2 1 2 1, channels w 2w 2w 4w 4w, then the mean.

    Returns the backbone and its number of features, 4 x width. Any image size from 1 pixel works; 32 is meant.
    channels: of the images.
    """
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise ValueError(f"small(width): width is the channels of the first convolution, 1 or more; got {width!r}")
    widths = (channels, width, 2 * width, 2 * width, 4 * width, 4 * width)
    layers: list[nn.Module] = []
    for (before, after), stride in zip(itertools.pairwise(widths), STRIDES, strict=True):
        layers += [
            nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False),  # batch norm has the bias
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten()), widths[-1]
