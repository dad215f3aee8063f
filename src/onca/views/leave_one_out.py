"""Views that share the parameters of one augmentation with the query (LooC, 2008.05659, section 3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from .params import Params, draw
from .recipes import Recipe

AUGMENTATIONS = {"rotation": ("rotation",), "colour": ("jitter", "grey"), "texture": ("blur",)}
"""The ops of each augmentation that an embedding space may keep; crop and flip are always drawn afresh, and so is blur
where texture is not kept. The paper's texture randomisation shows copies of the images in other styles, made
beforehand; of what is drawn here only blur changes texture, so it stands for it."""


def leave_one_out(n: int) -> Tensor:
    """Which parameters each view has, int64 [n+2, n]: rows are the views q, k0, k1 .. kn, columns the n augmentations;
    equal numbers in a column are equal parameters. 0 is the query's: only ki shares column i with it.
    """
    if n < 0:
        raise ValueError(f"leave_one_out(n): n is a number of augmentations, 0 or more; got {n}")
    plan = torch.zeros(n + 2, n, dtype=torch.int64)
    for column in range(n):
        fresh = [view for view in range(1, n + 2) if view != column + 2]
        plan[fresh, column] = torch.arange(1, n + 1)
    return plan


def share(fresh: Sequence[Params], augmentations: Sequence[str]) -> list[Params]:
    """The n + 2 views of `leave_one_out`, out of as many that were drawn afresh: view ki takes augmentation i from q.

    Raises:
        ValueError: an augmentation that is not known or that the recipe never draws; not n + 2 views.
    """
    check_augmentations(augmentations)
    plan = leave_one_out(len(augmentations))
    if len(fresh) != len(plan):
        raise ValueError(f"{len(augmentations)} augmentations are kept in {len(plan)} views; got {len(fresh)}")
    views = list(fresh)
    for column, name in enumerate(augmentations):
        if all(getattr(fresh[0], op) is None for op in AUGMENTATIONS[name]):
            ops = " or ".join(f"{op}_chance" for op in AUGMENTATIONS[name])
            raise ValueError(f"a space keeps {name}, which the recipe never draws: give it a {ops} above 0")
        for view in (plan[1:, column] == 0).nonzero()[:, 0].add(1).tolist():
            views[view] = replace(views[view], **{op: getattr(fresh[0], op) for op in AUGMENTATIONS[name]})
    return views


def check_augmentations(augmentations: Sequence[str]) -> None:
    """Raises ValueError for a name that is not known or stands there twice."""
    for name in augmentations:
        if name not in AUGMENTATIONS:
            raise ValueError(f"no augmentation is called {name!r}: a space keeps {', '.join(AUGMENTATIONS)}")
    if len(set(augmentations)) < len(augmentations):
        raise ValueError(f"each augmentation has one space; got {', '.join(augmentations)}")


def looc_views(
    recipe: Recipe,
    augmentations: Sequence[str],
    count: int,
    height: int,
    width: int,
    generators: Sequence[torch.Generator],
) -> list[Params]:
    """Draws the n + 2 views q, k0, k1 .. kn of `count` images, each from a generator of its own, and shares.

    augmentations: what spaces 1 .. n keep, of "rotation", "colour", "texture". Raises ValueError as `share`.
    """
    return share([draw(recipe, count, height, width, generator) for generator in generators], augmentations)
