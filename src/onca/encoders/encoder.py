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
    """Images [n,3,H,W] -> features [n,width] (backbone, after global pooling) -> embeddings [n,dim], not normalised."""

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


def make(name: str, head: str, dim: int) -> Encoder:
    """The encoder that `name` names, e.g. `small(32)`, `resnet18`, `resnet50(stem='small')`; weights are drawn afresh.

    head: "linear" = one layer to `dim` (MoCo v1, 1911.05722); "mlp" = Linear(F,F), ReLU, Linear(F,dim) without batch
    norm (MoCo v2, 2003.04297). Weights come from torch's global generator: call `torch.manual_seed` first.

    Raises:
        ValueError: a name or head that is not known (nearest names offered), a bad argument, dim < 1.
    """
    if head not in HEADS:
        raise ValueError(f"head {head!r} is not known; {nearest(str(head), HEADS)}")
    if isinstance(dim, bool) or not isinstance(dim, int) or dim < 1:
        raise ValueError(f"dim is the length of an embedding, 1 or more; got {dim!r}")
    backbone, width = _backbone(name)
    return Encoder(backbone, _head(head, width, dim), width)


def _head(name: str, width: int, dim: int) -> nn.Module:
    if name == "linear":
        return nn.Linear(width, dim)
    return nn.Sequential(nn.Linear(width, width), nn.ReLU(inplace=True), nn.Linear(width, dim))


def _backbone(text: str) -> tuple[nn.Module, int]:
    word, args, named = _read(text)
    if word not in BACKBONES:
        raise ValueError(f"encoder {text!r}: {word!r} is not known; {nearest(word, BACKBONES)}")
    builder = BACKBONES[word]
    try:
        inspect.signature(builder).bind(*args, **named)
    except TypeError as problem:
        usage = ", ".join(str(parameter) for parameter in inspect.signature(builder).parameters.values())
        raise ValueError(f"encoder {text!r}: {problem}; it is {word}({usage})") from None
    return builder(*args, **named)


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
