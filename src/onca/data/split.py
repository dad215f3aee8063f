"""Which images train, validate and test, decided before anything is decoded. N images.

The frames of a sequence stay together: what is chosen are units, sequences or single images.
"""

import torch
from torch import Tensor


def units(sequence: Tensor | None, count: int) -> tuple[Tensor, Tensor]:
    """The unit of each image, int64 [N], numbered in the order of their first images, and the rows of those."""
    if sequence is None:
        return torch.arange(count), torch.arange(count)
    own = -1 - torch.arange(count)  # names of the images that are in no sequence
    names, unit = torch.unique(torch.where(sequence < 0, own, sequence), return_inverse=True)
    first = torch.full((len(names),), count).scatter_reduce(0, unit, torch.arange(count), "amin")
    order = first.argsort()
    return order.argsort()[unit], first[order]


def part(label: Tensor, share: float, seed: int) -> Tensor:
    """A stratified part, bool [N]: the share of each class, rounded, at least one image; none of a single image.

    Images of unknown label (-1) count as one class.
    """
    rank, count = _ranks(label, seed)
    wanted = (count.double() * share + 0.5).floor().clamp(min=1)
    return (rank < wanted) & (count > 1)


def spread(label: Tensor, most: int, seed: int, size: Tensor | None = None) -> Tensor:
    """Rows of at most `most` images, spread evenly over the classes whatever the order of the file, ascending int64.

    size: images of each row, where rows are sequences; at least one row is chosen. None: one.
    """
    size = torch.ones_like(label) if size is None else size
    if most >= int(size.sum()):
        return torch.arange(len(label))
    rank, count = _ranks(label, seed)
    # the r-th of n images of a class stands at (r + start) / n of the way; who comes first gets in
    start = torch.rand(int(label.max()) + 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    order = ((rank + start[label + 1]) / count).argsort()
    chosen = int((size[order].cumsum(0) <= most).sum())
    return order[: max(chosen, 1)].sort().values


def _ranks(label: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Each image's place within its class, in an order drawn from the seed, and the size of the class; int64 [N]."""
    drawn = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed))
    order = drawn[label[drawn].argsort(stable=True)]
    count = torch.bincount(label + 1)
    first = count.cumsum(0) - count
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order)) - first[label[order] + 1]
    return rank, count[label + 1]
