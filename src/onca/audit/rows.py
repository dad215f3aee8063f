"""What is followed of memories from step to step: which rows hold keys, how old they are, whether keys arrive.

N rows of a memory that all queries share. What needs every step is followed in every step, and costs a few passes over
the memory's ids; rows without ids are known by their prints, see `entries.prints`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onca.audit.entries import memory_links, prints
from onca.pool import Pool

WARM = 0.9  # of an epoch's images come in at least; some may sit out


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows of a pool's memory. index, age [N], -1 unknown or empty; prints [N] where there is no index."""

    index: Tensor
    age: Tensor
    prints: Tensor | None

    @property
    def named(self) -> bool:
        return self.prints is None

    @property
    def warm(self) -> Tensor:
        """Rows that hold a key [N]: of an image that is known, where any is."""
        filled, known = self.age >= 0, self.index >= 0
        return filled & known if bool(known.any()) else filled


def rows_of(pool: Pool) -> Rows | None:
    """None where the pool has no memory that all queries share."""
    links = memory_links(pool.negatives)
    if not links:
        return None
    index, age = (
        torch.cat([_known(getattr(link, name), len(link.vectors), link.vectors) for link in links])
        for name in ("index", "age")
    )
    told = pool.index is not None and all(link.index is not None and link.age is not None for link in links)
    named = told and (bool((index >= 0).any()) or not bool((age >= 0).any()))
    return Rows(index, age, None if named else torch.cat([prints(link.vectors) for link in links]))


def _known(value: Tensor | None, count: int, like: Tensor) -> Tensor:
    return torch.full((count,), -1, device=like.device) if value is None else value


@dataclass(eq=False)
class Memory:
    """What is followed of one memory from step to step."""

    rows: int = 0
    population: int | None = None
    cold: int = 0
    missing: tuple[int, int, int] | None = None  # rows that hold a key, that should, and the step: the worst of all
    old: tuple[float, float, float] | None = None  # median and largest age in steps, share older than an epoch
    lost: int = 0
    came: int = 0
    leaps: int = 0  # steps in which some were lost
    found: int = 0
    last: tuple[int, Tensor, Tensor] | None = None  # step, and who came in after it: images, prints
    moved: bool = False
    before: Tensor | None = None

    def follow(self, pool: Pool, step: int, epoch: float | None) -> None:
        """A step's pool, before its keys come in."""
        rows = rows_of(pool)
        if rows is None:
            return
        self.rows, self.population = len(rows.index), pool.population
        if rows.named:
            self._warmth(rows, pool, step, epoch)
        self._arrivals(rows, pool, step)

    def _warmth(self, rows: Rows, pool: Pool, step: int, epoch: float | None) -> None:
        warm = int(rows.warm.sum())
        self.cold = self.rows - warm
        so_far = (step - 1) * len(pool) * WARM
        if epoch is not None and pool.population:
            so_far = epoch * pool.population * WARM
        due = int(min(self.rows, so_far) - len(pool))
        if due > 0 and (self.missing is None or warm * self.missing[1] < self.missing[0] * due):
            self.missing = (warm, due, step)
        ages = rows.age[rows.warm].double()
        if len(ages):
            per_epoch = (
                pool.population / len(set(pool.index.tolist())) if pool.population and pool.index is not None else 0
            )
            older = float((ages > per_epoch).double().mean()) if per_epoch else 0.0
            self.old = (float(ages.median()), float(ages.max()), older)

    def _arrivals(self, rows: Rows, pool: Pool, step: int) -> None:
        """Whether what came in after the last step is here now, and what comes in after this one."""
        here = rows.index[rows.age == 0] if rows.prints is None else rows.prints
        if self.last is not None and self.last[0] == step - 1:
            came = self.last[1] if rows.prints is None else self.last[2]
            room = len(came) if self.rows >= 2 * len(came) else max(0, self.rows - len(came))
            found = int(torch.isin(came, here).sum())
            lost = max(0, room - found)
            self.came, self.found = self.came + room, self.found + found
            self.lost, self.leaps = self.lost + lost, self.leaps + bool(lost)
        if rows.prints is not None:
            self.moved |= self.before is not None and not torch.equal(self.before, rows.prints)
            self.before = rows.prints
        self.last = (step, *_arriving(pool))


def _arriving(pool: Pool) -> tuple[Tensor, Tensor]:
    """Which images come in after a step, and the prints of its keys, where they are known."""
    none = torch.zeros(0, dtype=torch.int64, device=pool.negatives.query.device)
    images = none if pool.index is None else torch.unique(pool.index[pool.index >= 0])
    link = pool.positives.links[0]
    return images, prints(link.vectors[:, 0]) if link.per_query and link.length else none
