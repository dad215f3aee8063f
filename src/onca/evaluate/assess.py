"""The evaluation of a run: features of two image sets, nearest neighbours, a linear probe, and where its errors go."""

from collections.abc import Sequence
from typing import Any

from onca.data import ImageSet
from onca.encoders import Encoder
from onca.evaluate.confusion import confusions
from onca.evaluate.encode import features
from onca.evaluate.knn import knn_top1
from onca.evaluate.linear import linear_probe


def assess(
    encoder: Encoder,
    train: ImageSet,
    test: ImageSet,
    mean: Sequence[float],
    std: Sequence[float],
    *,
    layer: str = "backbone",
    k: int = 200,
    temperature: float = 0.1,
    bf16: bool = False,
) -> dict[str, Any]:
    """What `knn_top1` and `linear_probe` return, on frozen features of `layer`, in one dictionary.

    Besides: "confusions" of the probe by level, "layer", "images" (test images that were scored), "labels" (theirs)
    and "unlabelled" (images of both sets that were left out because their label is unknown).

    Raises:
        ValueError: class names that differ, a set without any label, and what the two evaluations refuse.
    """
    if train.names != test.names:
        raise ValueError(f"classes differ: {len(train.names)} names to train on, {len(test.names)} to test on")
    known, classes = [_labelled(train, "train"), _labelled(test, "test")], len(train.names)
    train_x, test_x = (features(encoder, images, mean, std, layer=layer, bf16=bf16) for images in known)
    train_y, test_y = (images.label.to(train_x.device) for images in known)
    probe = linear_probe(train_x, train_y, test_x, test_y, classes)
    return {
        **probe,
        **knn_top1(train_x, train_y, test_x, test_y, classes, k, temperature),
        "confusions": confusions(probe["predictions"].cpu(), known[1].label, known[1].levels),
        "layer": layer,
        "images": len(test_y),
        "labels": known[1].label,
        "unlabelled": len(train) + len(test) - len(train_y) - len(test_y),
    }


def _labelled(images: ImageSet, part: str) -> ImageSet:
    rows = (images.label >= 0).nonzero().flatten()
    if len(rows) == 0:
        raise ValueError(f"no image of the {part} set has a label: evaluate with a data set that has labels")
    return images if len(rows) == len(images) else images.subset(rows)
