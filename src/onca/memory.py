"""Memories: older keys, each knowing which image it was, that make bags. All state is in buffers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from onca.bag import Bag
from onca.link import Link
from onca.part import Part, bare
from onca.pool import Pool, unit


class Queue(nn.Module):
    """The newest `size` keys (MoCo, 1911.05722), and behind them `reserve` older ones that only refill lets in.

    Buffers, one row a slot: keys [K,D] unit rows, index, label, age (steps since it came in, -1 where nothing is yet),
    view; and `position`, the slot that is written next. Any batch size fits. Rows start absent; start="random" gives
    the official start instead: unit Gaussian rows that belong to no image.
    """

    keys: Tensor
    index: Tensor
    label: Tensor
    age: Tensor
    view: Tensor
    position: Tensor

    def __init__(
        self, size: int, dim: int, reserve: int = 0, *, start: str = "absent", dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__()
        if size < 1 or dim < 1 or reserve < 0:
            raise ValueError(f"Queue(size={size}, dim={dim}, reserve={reserve}): size and dim from 1, reserve from 0")
        if start not in ("absent", "random"):
            raise ValueError(f'Queue: start must be "absent" or "random"; got {start!r}')
        self.size, self.dim, self.reserve = size, dim, reserve
        slots = size + reserve
        keys = unit(torch.randn(slots, dim, dtype=dtype)) if start == "random" else torch.zeros(slots, dim, dtype=dtype)
        self.register_buffer("keys", keys)
        for name in ("index", "label", "view"):
            self.register_buffer(name, torch.full((slots,), -1))
        self.register_buffer("age", torch.full((slots,), 0 if start == "random" else -1))
        self.register_buffer("position", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def enqueue(self, keys: Tensor, index: Tensor | None = None, label: Tensor | None = None, view: int = -1) -> None:
        """Writes keys [B,D] over the oldest rows; of more than there are slots the last ones stay."""
        if keys.dim() != 2 or keys.shape[1] != self.dim:
            raise ValueError(f"Queue of dim {self.dim} takes keys [B,{self.dim}]; got {list(keys.shape)}")
        self.age += self.age >= 0
        place = self._room(len(keys))
        number = len(place)
        self.keys[place] = keys[-number:].detach().to(self.keys.dtype) if number else keys[:0].to(self.keys.dtype)
        unknown = torch.full((number,), -1, device=self.keys.device)
        self.index[place] = unknown if index is None else index[-number:] if number else index[:0]
        self.label[place] = unknown if label is None else label[-number:] if number else label[:0]
        self.view[place] = view
        self.age[place] = 0

    def _room(self, number: int) -> Tensor:
        """The slots that `number` new keys take, or the last of them; the ring moves on."""
        slots = len(self.keys)
        kept = min(number, slots)
        start = int(self.position) + number - kept
        self.position.copy_((self.position + number) % slots)
        return torch.arange(start, start + kept, device=self.keys.device) % slots

    def count(self, pool: Pool) -> None:
        """Takes notice of the pool of a step, before its keys come in. A Queue keeps no account of its entries."""

    def negatives(self, query: Tensor, index: Tensor | None = None) -> Bag:
        """The shown entries as a bag for unit queries [B,D]: in the order of the slots, or, with a reserve, from
        the oldest on. No key is copied."""
        if not self.reserve:
            return Bag(query, (self._link(0, self.size, 0),), query_index=index)
        oldest, newest = int(self.position) - self.size, int(self.position)
        spans = _around(oldest, newest, len(self.keys))
        starts = [0, spans[0][1] - spans[0][0]]
        links = [self._link(*span, place) for span, place in zip(spans, starts, strict=False)]
        return Bag(query, tuple(links), query_index=index)

    def older(self, query: Tensor, index: Tensor | None = None) -> Bag | None:
        """The reserve, newest first in its places, or None when there is none."""
        if not self.reserve:
            return None
        behind = int(self.position) - self.size  # one after the newest that is not shown
        links, place = [], self.size
        for start, stop in reversed(_around(behind - self.reserve, behind, len(self.keys))):
            order = torch.arange(place + stop - start - 1, place - 1, -1, device=self.keys.device)
            links.append(self._link(start, stop, order))
            place += stop - start
        return Bag(query, tuple(links), query_index=index)

    def _link(self, start: int, stop: int, place: int | Tensor) -> Link:
        age = self.age[start:stop]
        return Link(
            self.keys[start:stop],
            label=self.label[start:stop],
            index=self.index[start:stop],
            age=age,
            view=self.view[start:stop],
            absent=None if bool((age >= 0).all()) else age < 0,
            place=place,
        )


class Memory(Part):
    """Which keys a memory keeps, by name: `queue`, or `lasting(hardest(5))`."""

    kind = "memory"

    def __call__(self, size: int, dim: int, reserve: int = 0) -> Queue:
        """A memory of `size` keys [dim]. Raises ValueError for a reserve that it cannot keep."""
        raise NotImplementedError  # abstract


class _FirstInFirstOut(Memory):
    """The newest keys: a `Queue`."""

    def __call__(self, size: int, dim: int, reserve: int = 0) -> Queue:
        return Queue(size, dim, reserve)


queue = bare(_FirstInFirstOut(), "queue")


def _around(start: int, stop: int, slots: int) -> list[tuple[int, int]]:
    """The slots start to stop - 1 of a ring as one or two spans, from the oldest on; start may be negative."""
    first, last = start % slots, (stop - 1) % slots + 1
    return [(first, last)] if first < last else [(first, slots), (0, last)]
