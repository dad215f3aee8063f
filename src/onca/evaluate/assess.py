"""The evaluation of a run: features of two image sets, nearest neighbours and a linear probe on them."""

from collections.abc import Sequence
from typing import Any

from onca.encoders import Encoder
from onca.evaluate.encode import Images, features
from onca.evaluate.knn import knn_top1
from onca.evaluate.linear import linear_probe


def assess(
    encoder: Encoder,
    train: Images,
    test: Images,
    classes: int,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    layer: str = "backbone",
    k: int = 200,
    temperature: float = 0.1,
    bf16: bool = False,
) -> dict[str, Any]:
    """What `knn_top1` and `linear_probe` return, on frozen features of `layer`, in one dictionary.

    Besides: layer, images (test images that were scored), unlabelled (images of both sets that were left out because
    their label is unknown), labels [M] of the scored images, and scored [M], their rows in `test`.

    Raises:
        ValueError: no labelled image in one of the sets, and what the two evaluations refuse.
    """
    rows, x, y = {}, {}, {}
    for part, images in (("train", train), ("test", test)):
        rows[part] = (images.label >= 0).nonzero().flatten()
        if len(rows[part]) == 0:
            raise ValueError(f"no image of the {part} set has a label: evaluate with a data set that has labels")
        x[part] = features(encoder, images, mean, std, layer=layer, bf16=bf16)
        rows[part] = rows[part].to(x[part].device)
        x[part], y[part] = x[part][rows[part]], images.label.to(x[part].device)[rows[part]]
    return {
        **linear_probe(x["train"], y["train"], x["test"], y["test"], classes),
        **knn_top1(x["train"], y["train"], x["test"], y["test"], classes, k, temperature),
        "layer": layer,
        "images": len(y["test"]),
        "unlabelled": len(train) + len(test) - len(y["train"]) - len(y["test"]),
        "labels": y["test"],
        "scored": rows["test"],
    }
