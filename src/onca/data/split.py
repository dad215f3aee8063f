"""Which images train, validate and test, decided before anything is decoded. N images."""

import torch
from torch import Tensor


def part(label: Tensor, share: float, seed: int) -> Tensor:
    """A stratified part, bool [N]: the share of each class, rounded, at least one image; none of a single image.

    Images of unknown label (-1) count as one class.
    """
    rank, count = _ranks(label, seed)
    wanted = (count.double() * share + 0.5).floor().clamp(min=1)
    return (rank < wanted) & (count > 1)


def spread(label: Tensor, most: int, seed: int) -> Tensor:
    """At most `most` rows, spread evenly over the classes whatever the order of the file, ascending int64."""
    if most >= len(label):
        return torch.arange(len(label))
    rank, count = _ranks(label, seed)
    # the r-th of n images of a class stands at (r + start) / n of the way; who comes first gets in
    start = torch.rand(int(label.max()) + 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return ((rank + start[label + 1]) / count).argsort()[:most].sort().values


def _ranks(label: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """Each image's place within its class, in an order drawn from the seed, and the size of the class; int64 [N]."""
    drawn = torch.randperm(len(label), generator=torch.Generator().manual_seed(seed))
    order = drawn[label[drawn].argsort(stable=True)]
    count = torch.bincount(label + 1)
    first = count.cumsum(0) - count
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order)) - first[label[order] + 1]
    return rank, count[label + 1]
