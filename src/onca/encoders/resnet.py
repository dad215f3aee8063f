"""Residual networks (1512.03385): torchvision's, without weights, with the stem for small images as an option."""

from torch import nn

STEMS = ("imagenet", "small")


def resnet18(stem: str = "imagenet", *, channels: int = 3) -> tuple[nn.Module, int]:
    """ResNet-18, 512 features after global average pooling. Returns the backbone and its number of features."""
    return _resnet("resnet18", stem, channels)


def resnet50(stem: str = "imagenet", *, channels: int = 3) -> tuple[nn.Module, int]:
    """ResNet-50, 2,048 features after global average pooling. Returns the backbone and its number of features."""
    return _resnet("resnet50", stem, channels)


def _resnet(name: str, stem: str, channels: int) -> tuple[nn.Module, int]:
    """stem "imagenet": 7x7 stride 2 and max-pool; "small": 3x3 stride 1, no max-pool (32 pixels end at 4x4)."""
    if stem not in STEMS:
        raise ValueError(f"{name}: stem is {' or '.join(map(repr, STEMS))}; got {stem!r}")
    from torchvision.models import get_model  # here, so that other encoders need not load torchvision

    backbone = get_model(name, weights=None)
    width = backbone.get_parameter("fc.weight").shape[1]
    backbone.fc = nn.Identity()
    small = stem == "small"
    if small or channels != 3:
        side, stride = (3, 1) if small else (7, 2)
        convolution = nn.Conv2d(channels, 64, side, stride=stride, padding=side // 2, bias=False)
        nn.init.kaiming_normal_(convolution.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's own
        backbone.conv1 = convolution
    if small:
        backbone.maxpool = nn.Identity()
    return backbone, width
