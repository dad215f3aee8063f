"""Embedded images as one value: what every analysis looks at. N images, D dimensions, C classes."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from onca.data import ImageSet
from onca.data.hierarchy import Hierarchy


@dataclass(frozen=True, eq=False)
class Space:
    """Unit rows, one for each image, and what is known of the images.

    rows       float32 [N,D], each of length one
    index      int64 [N], the image's identity in its data set
    label      int64 [N], -1 where unknown
    names      of the C classes
    source     what it is, in words for a page: "query encoder, head, epoch 4"
    epoch      of the checkpoint it was made with; None: of no training
    images     row i of the space is the image in row i; None: there are only embeddings
    hierarchy  of the classes, None where there is none
    views      unit rows [M,D] of two random views of the same M images, one tensor a view; None: there are no views
    """

    rows: Tensor
    index: Tensor
    label: Tensor
    names: tuple[str, ...]
    source: str
    epoch: float | None = None
    images: ImageSet | None = None
    hierarchy: Hierarchy | None = None
    views: tuple[Tensor, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.rows)


def space(
    embeddings: Tensor,
    label: Tensor | None = None,
    names: tuple[str, ...] = (),
    *,
    index: Tensor | None = None,
    bad: Literal["refuse", "drop"] = "refuse",
    source: str = "embeddings",
    epoch: float | None = None,
    images: ImageSet | None = None,
    hierarchy: Hierarchy | None = None,
    views: tuple[Tensor, Tensor] | None = None,
) -> Space:
    """A space of any embeddings [N,D], divided by their lengths.

    label, index, images, views: as in `Space`. bad: rows that hold nan or inf, or nothing but zeros, have no direction:
    "refuse" or "drop" them.

    Raises:
        ValueError: such rows (how many, and the first), counts that differ, no row left.
    """
    if embeddings.dim() != 2:
        raise ValueError(f"{source}: embeddings must be [N,D]; got {list(embeddings.shape)}")
    count = len(embeddings)
    for what, value in (("labels", label), ("indices", index), ("images", images)):
        if value is not None and len(value) != count:
            raise ValueError(f"{source}: {count} embeddings and {len(value)} {what}: there must be as many")
    rows = embeddings.float()
    good = rows.isfinite().all(1) & rows.ne(0).any(1)
    kept = good.nonzero().flatten()
    if not len(kept):
        raise ValueError(f"{source}: there is no row with a direction ({_kinds(rows) if count else 'none at all'})")
    if not bool(good.all()):
        first, kinds = int((~good).nonzero()[0]), _kinds(rows)
        if bad == "refuse":
            raise ValueError(f'{source}: {kinds}, first row {first}: mend them, or leave them out with bad="drop"')
        warnings.warn(f"{source}: left out {int((~good).sum())} rows ({kinds}), first row {first}", stacklevel=2)
    label = torch.full((count,), -1) if label is None else label.long()
    index = torch.arange(count) if index is None else index.long()
    if not names:
        names = tuple(str(number) for number in range(int(label.max()) + 1))
    if not -1 <= int(label.min()) <= int(label.max()) < len(names):
        raise ValueError(f"{source}: labels {int(label.min())} to {int(label.max())}, but there are {len(names)} names")
    return Space(
        rows=normalize(rows[kept].double(), dim=1).float(),
        index=index[kept],
        label=label[kept],
        names=names,
        source=source,
        epoch=epoch,
        images=images if images is None or len(kept) == count else images.subset(kept),
        hierarchy=hierarchy,
        views=views,
    )


def _kinds(rows: Tensor) -> str:
    broken, zero = int((~rows.isfinite().all(1)).sum()), int((rows == 0).all(1).sum())
    said = ((broken, "hold nan or inf"), (zero, "are all zero"))
    return " and ".join(f"{number} rows {words}" for number, words in said if number)
