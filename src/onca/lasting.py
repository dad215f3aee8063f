"""A memory that keeps consistently hard keys longer and lets consistently easy ones go. New, in no paper.

2010.06682, section 4, asks what becomes of negatives that stay hard; this is the memory to find out with, and
`lasting(hardest(5, by=random))` is its null control: the same machinery, random keys kept.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onca.memory import Memory, Queue
from onca.part import require
from onca.pool import Pool
from onca.schedule import check_number
from onca.selector import Selector


class Lasting(Queue):
    """`size` keys; those that `chosen` names most often stay longer, up to `span` times the life in a Queue.

    A ring as in Queue, with a second chance. Of the next 2b slots, b new keys take b, and the others are passed over
    until the ring comes round again: so a key is judged after half a life in a Queue (size keys come in), when it was
    compared with some size / 2 queries, and every half life after that. Each is judged against those of its own
    generation (as often passed over), by its rate of hits since it came in; of every generation the lower half goes.
    So how many go and stay, and with it the ages, does not depend on what is chosen; only which keys stay does. A key
    goes at the latest with the span * size-th newer one (its slot may then be empty for a while). Where nothing in
    reach was ever chosen, and with span=1, it is a Queue, slot for slot. Deterministic: ties go in the ring's order.

    Buffers beside those of Queue, one row a slot: hits, queries (that chose it, that it was compared with), turns (how
    often it was passed over), born (number of keys before it); and `clock`, the number of keys so far.
    """

    hits: Tensor
    queries: Tensor
    turns: Tensor
    born: Tensor
    clock: Tensor

    def __init__(
        self, size: int, dim: int, chosen: Selector, span: float = 4, *, dtype: torch.dtype = torch.float32
    ) -> None:
        super().__init__(size, dim, dtype=dtype)
        self.chosen, self.span = chosen, span
        for name in ("hits", "queries", "turns", "born"):
            self.register_buffer(name, torch.zeros(size, dtype=torch.int64))
        self.register_buffer("clock", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def count(self, pool: Pool) -> None:
        """Counts for how many queries of this pool each entry is among the chosen of all negatives that it shows.

        Raises ValueError when the pool's negatives do not come from this memory.
        """
        start = 0
        for link in pool.negatives.links:
            if link.rows is None and link.mix is None and link.vectors.data_ptr() == self.keys.data_ptr():
                found = pool.negatives.hits(self.chosen(pool, pool.negatives))
                self.hits += found[start : start + self.size]
                self.queries += len(pool) * (self.age >= 0)
                return
            start += link.length
        raise ValueError("count takes a pool whose negatives are those of this memory: memory.negatives(query, index)")

    def _room(self, number: int) -> Tensor:
        newer = self.clock + number - 1 - self.born  # keys that came in after each, once these are in
        done = newer >= self.span * self.size
        self.age[done] = -1
        self.hits[done] = 0  # an empty slot is nothing to be judged
        place = super()._room(number) if number >= self.size else self._judged(number, newer)
        for name in ("hits", "queries", "turns"):
            getattr(self, name)[place] = 0
        self.clock += number
        self.born[place] = self.clock - torch.arange(len(place), 0, -1, device=place.device)
        return place

    def _judged(self, number: int, newer: Tensor) -> Tensor:
        """The slots [number] that new keys take, in the order of the ring, which moves on."""
        reach = torch.arange(min(2 * number, self.size), device=self.keys.device)
        slots = (int(self.position) + reach) % self.size
        if not bool(self.hits[slots].any()):  # first in, first out
            self.position.copy_((self.position + number) % self.size)
            return slots[:number]
        turn = max(self.size / 2, number)  # keys that come in until the ring is here again
        due = (self.age[slots] < 0) | (newer[slots] + turn > self.span * self.size)
        rate = torch.where(due, -1, self.hits[slots].double() / self.queries[slots].clamp_min(1))
        standing = _standing(rate, torch.where(due, -1, self.turns[slots])).masked_fill(due, -1)
        order = rate.argsort(stable=True)
        order = order[standing[order].argsort(stable=True)]  # the first to go, first
        stays = torch.ones_like(due)
        stays[order[:number]] = False
        left = (stays & due).nonzero()  # more of them than new keys: the ring waits at the first
        moved = int(left[0]) if len(left) else len(reach)
        self.turns[slots[:moved]] += 1
        self.position.copy_((self.position + moved) % self.size)
        return slots[~stays]


def _standing(rate: Tensor, generation: Tensor) -> Tensor:
    """Share of its own generation that an entry is not behind, itself included: (0, 1], [n] float64; ties by place."""
    order = rate.argsort(stable=True)
    order = order[generation[order].argsort(stable=True)]
    group = generation + 1
    number = group.bincount()
    first = number.cumsum(0) - number
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device))
    return (rank - first[group] + 1).double() / number[group]


@dataclass(frozen=True, eq=False, repr=False)
class lasting(Memory, name="lasting"):
    """A `Lasting` memory in which `chosen` says what counts as hard: `lasting(hardest(5))`."""

    chosen: Selector
    span: float = 4

    def __post_init__(self) -> None:
        require(self, self.chosen, "selector", "chosen")
        check_number(self, self.span, "span")
        if not isinstance(self.span, int | float) or self.span < 1:
            raise ValueError(f"{self}: span is a number of lives in a queue, 1 or more; got {self.span}")

    def __call__(self, size: int, dim: int, reserve: int = 0) -> Queue:
        if reserve:
            raise ValueError(
                f"{self} keeps no older keys that refill=True could take: take the memory `queue`, or leave refill out"
            )
        return Lasting(size, dim, self.chosen, self.span)
