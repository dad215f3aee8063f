"""Where errors go: how many stay within the same family, genus, superclass ..."""

from dataclasses import dataclass

import torch
from torch import Tensor

from onca.data.imageset import Levels


@dataclass(frozen=True)
class Confusion:
    """Errors at one level of a hierarchy, in percent; both are 0 where there are no errors.

    within: errors whose predicted class lies in the true class's group.
    chance: what `within` would be if each error fell on any of the other classes alike.
    """

    within: float
    chance: float
    errors: int


def confusions(predictions: Tensor, labels: Tensor, levels: Levels) -> dict[str, Confusion]:
    """For each level coarser than the labels, the errors that stay within a group of that level.

    predictions, labels [M]; levels as of an image set of the same M rows: name -> (group of each row [M], names). A
    level is coarser when each class lies in one group and some group holds several classes; other levels are left out,
    and so are rows without label or group (-1) and errors towards a class that no row here has (its group is unknown).

    Raises:
        ValueError: shapes that differ.
    """
    result = {}
    for name, (group, _) in levels.items():
        if not predictions.shape == labels.shape == group.shape:
            shapes = [list(each.shape) for each in (predictions, labels, group)]
            raise ValueError(f"level {name!r}: predictions, labels and groups must be as many; got {shapes}")
        known = (labels >= 0) & (group >= 0)
        group_of = _groups(labels[known], group[known], most=int(torch.maximum(labels, predictions).max()))
        if group_of is not None:
            result[name] = _confusion(predictions[known], labels[known], group_of)
    return result


def _groups(labels: Tensor, group: Tensor, most: int) -> Tensor | None:
    """The group of each class 0..most (-1 where no row has it), or None when this level is not coarser."""
    group_of = torch.full((most + 1,), -1, dtype=torch.long, device=labels.device)
    group_of[labels] = group
    placed = group_of[group_of >= 0]
    coarser = bool((group_of[labels] == group).all()) and len(torch.unique(placed)) < len(placed)
    return group_of if coarser else None


def _confusion(predictions: Tensor, labels: Tensor, group_of: Tensor) -> Confusion:
    wrong = (predictions != labels) & (group_of[predictions] >= 0)
    true, found = group_of[labels[wrong]], group_of[predictions[wrong]]
    errors = len(true)
    if errors == 0:
        return Confusion(within=0.0, chance=0.0, errors=0)
    placed = group_of[group_of >= 0]
    others = placed.bincount()[true].double() - 1  # classes of the same group besides the true one
    within = 100 * (true == found).double().mean().item()
    return Confusion(within=within, chance=100 * (others / (len(placed) - 1)).mean().item(), errors=errors)
