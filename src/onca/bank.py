"""Bank: one row for each image of a set, the running average of its earlier views. All state is in buffers."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from onca.bag import Bag
from onca.link import Link
from onca.neighbours import Nearby
from onca.pool import Pool, unit


class Bank(nn.Module):
    """A row for each image: keys[i] <- unit(momentum * keys[i] + (1 - momentum) * new) (NPID, 1805.01978, section 3.1).

    Buffers: keys [I,D] unit rows; label [I], -1 until an image was seen; age [I], steps since it was seen, -1 before;
    normaliser, the Z of NCE, -1 until a first batch fixes it; with `neighbours` = k > 0, neighbours [I,k], the rows of
    each image's nearest images when it was last seen, nearest first, -1 before (InvP, 2010.11694). A row without
    neighbours reaches nothing; the official code starts at zeros, with image 0 as everyone's neighbour.

    Every row is an entry from the start: uniform in -a..a, a = 1 / sqrt(dim / 3), from torch's global generator, as in
    the official codes, but brought to length one here (there about one).
    """

    keys: Tensor
    label: Tensor
    age: Tensor
    normaliser: Tensor
    neighbours: Tensor | None

    def __init__(
        self,
        images: int,
        dim: int,
        momentum: float = 0.5,
        neighbours: int = 0,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        if images < 1 or dim < 1 or neighbours < 0:
            raise ValueError(
                f"Bank(images={images}, dim={dim}, neighbours={neighbours}): images and dim from 1, neighbours from 0"
            )
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum of the bank's rows lies in 0 to 1; got {momentum}")
        self.images, self.dim, self.momentum = images, dim, momentum
        edge = 1 / math.sqrt(dim / 3)
        self.register_buffer("keys", unit(torch.empty(images, dim, dtype=dtype).uniform_(-edge, edge)))
        for name in ("label", "age"):
            self.register_buffer(name, torch.full((images,), -1))
        self.register_buffer("normaliser", torch.tensor(-1.0, dtype=dtype))
        self.register_buffer("neighbours", torch.full((images, neighbours), -1) if neighbours else None)

    def known(self, index: Tensor | None, owner: str) -> Tensor:
        """The index [B] of a batch. Raises ValueError when it is missing or an image has no row here."""
        if index is None:
            raise ValueError(f"{owner} keeps a row for each image: give the batch its index [B]")
        outside = (index < 0) | (index >= self.images)
        if bool(outside.any()):
            raise ValueError(
                f"image {int(index[outside][0])} has no row in a bank of {self.images}: index counts images from 0; "
                "make the Bank as long as the training set"
            )
        return index

    @torch.no_grad()
    def write(self, index: Tensor, rows: Tensor, label: Tensor | None = None) -> None:
        """Moves the rows of the images `index` [B] towards unit rows [B,D]. An image that stands in a batch more than
        once takes its last row, against the row it had before the batch. Raises ValueError for an unknown image.
        """
        self.known(index, "Bank.write")
        if rows.shape != (len(index), self.dim):
            raise ValueError(f"Bank of dim {self.dim} takes rows [{len(index)},{self.dim}]; got {list(rows.shape)}")
        last = self._last(index)
        new = rows.detach().to(self.keys.dtype)[last]
        self.age += self.age >= 0
        self.keys[index] = unit(self.momentum * self.keys[index] + (1 - self.momentum) * new)
        self.age[index] = 0
        if label is not None:
            self.label[index] = label[last]

    @torch.no_grad()
    def link(self, index: Tensor, neighbours: Tensor) -> None:
        """Sets the neighbours [B,k] of the images `index` [B]. Raises ValueError where shapes do not fit."""
        self.known(index, "Bank.link")
        have = 0 if self.neighbours is None else self.neighbours.shape[1]
        if self.neighbours is None or neighbours.shape != (len(index), have):
            raise ValueError(
                f"a bank of {have} neighbours takes neighbours [{len(index)},{have}]; got {list(neighbours.shape)}"
            )
        self.neighbours[index] = neighbours[self._last(index)]

    def positives(self, query: Tensor, index: Tensor) -> Bag:
        """Each query's own row, as it is now, for unit queries [B,D] of the images `index` [B]."""
        own = Link(
            self.keys[index][:, None],  # [B,1,D]
            label=self.label[index][:, None],
            index=index[:, None],
            age=self.age[index][:, None],
            role="same image",
        )
        return Bag(query, (own,), query_index=index)

    def negatives(self, query: Tensor, index: Tensor | None = None) -> Bag:
        """All rows, place i is image i, for unit queries [B,D]. Own rows are absent; index=None leaves them in."""
        return Bag(query, (self._link(None),), query_index=index)

    def drawn(self, query: Tensor, rows: Tensor, index: Tensor | None = None) -> Bag:
        """The rows [B,K] of each query, repeats counting as often as they stand there; index as in `negatives`."""
        return Bag(query, (self._link(rows),), query_index=index)

    def nearby(self, query: Tensor, index: Tensor) -> Nearby | None:
        """What the neighbours of the images `index` [B] will be, by their unit queries [B,D] and the rows as they are
        when it is asked; None where the bank keeps none."""
        return None if self.neighbours is None else Nearby(query, self.keys, self.neighbours.shape[1], index)

    @torch.no_grad()
    def constant(self, pool: Pool) -> Tensor:
        """Z of NCE: the one that was fixed, or else what `pool`, a first batch against this bank, would fix: the mean
        of exp(score / temperature) over positives and negatives, times the number of images. Fixes nothing itself.
        """
        if float(self.normaliser) >= 0:
            return self.normaliser.clone()
        mass = torch.stack([bag.lse(pool.scale) for bag in (pool.positives, pool.negatives)])
        number = torch.stack([bag.count() for bag in (pool.positives, pool.negatives)]).sum()
        return (mass.logsumexp((0, 1)) - number.to(mass.dtype).log() + math.log(self.images)).exp()

    def _link(self, rows: Tensor | None) -> Link:
        image = torch.arange(self.images, device=self.keys.device)
        return Link(self.keys, rows=rows, label=self.label, index=image, age=self.age)

    def _last(self, index: Tensor) -> Tensor:
        """For each place of `index` [B], the last place with the same image: what repeats then writes the same value,
        so that the result does not depend on the order of writing, which no device promises."""
        place = torch.arange(len(index), device=index.device)
        return torch.zeros_like(self.age).scatter_reduce_(0, index, place, "amax")[index]


def draw_rows(queries: int, count: int, images: int, seed: int, device: torch.device | None = None) -> Tensor:
    """`count` rows for each query, uniform with replacement (1805.01978, section 3.2): int64 [queries,count].

    They follow from `seed` alone, on every device. `Bank.drawn` applies them.
    """
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(images, (queries, count), generator=draw).to(device)
