"""What every evaluation asks of its features and labels."""

import torch
from torch import Tensor


def check_features(what: str, features: Tensor, width: int | None = None) -> Tensor:
    """The features [N,F], detached, in float64 if they are float64, else in float32.

    Raises:
        ValueError: not a matrix with rows, another width than `width`, or values that are not finite.
    """
    if features.ndim != 2 or features.shape[0] == 0 or (width is not None and features.shape[1] != width):
        raise ValueError(f"{what} must be [rows, {width or 'features'}] with 1 row or more; got {list(features.shape)}")
    wrong = int((~torch.isfinite(features).all(dim=1)).sum())
    if wrong:
        raise ValueError(f"{wrong} of {len(features)} rows of {what} are not finite: look at what made them")
    return features.detach() if features.dtype == torch.float64 else features.detach().float()


def check_labels(what: str, labels: Tensor, features: Tensor, classes: int) -> Tensor:
    """The labels of the features' rows [N], int64, on the device of the features, each in 0..classes-1.

    Raises:
        ValueError: another shape, not whole numbers, an unknown label (-1) or one that is out of range.
    """
    count = len(features)
    if labels.shape != (count,) or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(f"{what} must be {count} whole numbers; got {list(labels.shape)} of {labels.dtype}")
    unknown = int((labels == -1).sum())
    if unknown:
        raise ValueError(f"{unknown} of {count} {what} are unknown (-1): leave those rows out")
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f"{what} run from {low} to {high}; {classes} classes are 0 to {classes - 1}")
    return labels.to(features.device, torch.long)
