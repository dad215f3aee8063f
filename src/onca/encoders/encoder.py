"""`make`: an encoder from the text that names it, and the two halves every encoder has."""

import ast
import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from onca.encoders.resnet import resnet18, resnet50
from onca.encoders.small import small
from onca.part import nearest

BACKBONES: dict[str, Callable[..., tuple[nn.Module, int]]] = {
    "small": small,
    "resnet18": resnet18,
    "resnet50": resnet50,
}
HEADS = ("linear", "mlp")


class Encoder(nn.Module):
    """Images [n,C,H,W] -> features [n,width] (backbone, after global pooling) -> embeddings [n,dim], not normalised."""

    def __init__(self, backbone: nn.Module, head: nn.Module, width: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = head
        self.width = width

    def features(self, images: Tensor) -> Tensor:
        features: Tensor = self.backbone(images)  # [n,width]
        return features

    def maps(self, images: Tensor) -> Tensor:
        """The backbone's last maps [n,C,h,w], after their ReLU and before global pooling."""
        pooling = next(layer for layer in self.backbone.modules() if isinstance(layer, nn.AdaptiveAvgPool2d))
        seen: list[Tensor] = []
        hook = pooling.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
        try:
            self.backbone(images)
        finally:
            hook.remove()
        return seen[0]

    def forward(self, images: Tensor) -> Tensor:
        embeddings: Tensor = self.head(self.features(images))  # [n,dim]
        return embeddings


def make(name: str, head: str, dim: int, channels: int = 3) -> Encoder:
    """The encoder that `name` names, e.g. `small(32)`, `resnet18`, `resnet50(stem='small')`; weights are drawn afresh.

    head: "linear" = one layer to `dim` (MoCo v1, 1911.05722); "mlp" = Linear(F,F), ReLU, Linear(F,dim) without batch
    norm (MoCo v2, 2003.04297). channels: of the images. Weights come from torch's global generator: call
    `torch.manual_seed` first.

    Raises:
        ValueError: a name or head that is not known (nearest names offered), a bad argument, dim < 1.
    """
    check_head(head, dim)
    backbone, width = make_backbone(name, channels)
    return Encoder(backbone, make_head(head, width, dim), width)


def check_head(name: str, dim: int) -> None:
    """Raises ValueError for a head that is not known or an embedding of no length."""
    if name not in HEADS:
        raise ValueError(f"head {name!r} is not known; {nearest(str(name), HEADS)}")
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
        raise ValueError(f"dim is the length of an embedding, 1 or more; got {dim!r}")


def make_head(name: str, width: int, dim: int) -> nn.Module:
    """Features [n,width] -> embeddings [n,dim]; see `make`."""
    if name == "linear":
        return nn.Linear(width, dim)
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, dim))


def make_backbone(text: str, channels: int = 3) -> tuple[nn.Module, int]:
    """The backbone that `text` names, for images of so many channels, and its number of features."""
    word, args, named = _read(text)
    if word not in BACKBONES:
        raise ValueError(f"encoder {text!r}: {word!r} is not known; {nearest(word, BACKBONES)}")
    builder = BACKBONES[word]
    try:
        inspect.signature(builder).bind(*args, **named, channels=channels)
    except TypeError as problem:
        usage = ", ".join(str(parameter) for parameter in inspect.signature(builder).parameters.values())
        raise ValueError(f"encoder {text!r}: {problem}; it is {word}({usage})") from None
    return builder(*args, **named, channels=channels)


def _read(text: str) -> tuple[str, list[Any], dict[str, Any]]:
    """The word, the arguments and the named arguments of `word` or `word(1, key='value')`; runs nothing."""
    refusal = f"cannot read the encoder {text!r}: write a name such as resnet18, small(32) or resnet18(stem='small')"
    try:
        tree = ast.parse(text.strip(), mode="eval").body
        match tree:
            case ast.Name(id=word):
                return word, [], {}
            case ast.Call(func=ast.Name(id=word), args=args, keywords=keywords):
                named = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in keywords}
                return word, [ast.literal_eval(item) for item in args], named
    except (SyntaxError, ValueError, TypeError, AttributeError, RecursionError, MemoryError) as problem:
        raise ValueError(refusal) from problem
    raise ValueError(refusal)
