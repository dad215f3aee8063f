"""Predicates: tests that an engine can also put to all entries at once, as bits.

Bits are int64 [B,W] or [1,W] over the columns of shared keys; those of columns that are not present mean nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from onca.engine.kernels import Known, pack, words
from onca.link import Slice, Test

if TYPE_CHECKING:
    from onca.shared import Shared


class Predicate:
    """A test [b,n] of a slice that can also be answered for all queries and columns at once."""

    def __call__(self, piece: Slice) -> Tensor:
        raise NotImplementedError  # abstract

    def bits(self, shared: Shared) -> Tensor | None:
        """None where this cannot be told so: torch then puts the test to slices."""
        raise NotImplementedError  # abstract

    def known(self, shared: Shared) -> Known | None:
        """Scores that were made for this test; None where there are none of this bag's."""
        return None


def bits_of(test: Test, shared: Shared) -> Tensor | None:
    return test.bits(shared) if isinstance(test, Predicate) else None


def known_of(test: Test, shared: Shared) -> Known | None:
    return test.known(shared) if isinstance(test, Predicate) else None


@dataclass(frozen=True, eq=False)
class Not(Predicate):
    test: Test

    def __call__(self, piece: Slice) -> Tensor:
        return ~self.test(piece)

    def bits(self, shared: Shared) -> Tensor | None:
        found = bits_of(self.test, shared)
        return None if found is None else ~found


@dataclass(frozen=True, eq=False)
class Both(Predicate):
    left: Test
    right: Test

    def __call__(self, piece: Slice) -> Tensor:
        return self.left(piece) & self.right(piece)

    def bits(self, shared: Shared) -> Tensor | None:
        left, right = bits_of(self.left, shared), bits_of(self.right, shared)
        return None if left is None or right is None else left & right

    def known(self, shared: Shared) -> Known | None:
        return known_of(self.left, shared) or known_of(self.right, shared)


@dataclass(frozen=True, eq=False)
class Either(Predicate):
    left: Test
    right: Test

    def __call__(self, piece: Slice) -> Tensor:
        return self.left(piece) | self.right(piece)

    def bits(self, shared: Shared) -> Tensor | None:
        left, right = bits_of(self.left, shared), bits_of(self.right, shared)
        return None if left is None or right is None else left | right


@dataclass(frozen=True, eq=False)
class Everything(Predicate):
    """All entries that are present."""

    def __call__(self, piece: Slice) -> Tensor:
        return torch.ones_like(piece.graph, dtype=torch.bool)

    def bits(self, shared: Shared) -> Tensor | None:
        return torch.full((1, words(len(shared.keys))), -1, dtype=torch.int64, device=shared.keys.device)


# By what is known of entries.


@dataclass(frozen=True, eq=False)
class Equal(Predicate):
    """Entries whose `name` ("label" or "index") is known and equals the query's. mine int64 [B].

    table [I]: what stands there for a number is compared instead, as for `mine` already. lacking: raised where the
    entries have no such number.
    """

    mine: Tensor
    name: str
    table: Tensor | None = None
    lacking: str = ""

    def __call__(self, piece: Slice) -> Tensor:
        values = piece.entries(self.name)
        if values is None:
            raise ValueError(self.lacking or f"the entries have no {self.name}")
        found = self._looked_up(values)
        return (found == self.mine[piece.part, None]) & (found >= 0)

    def bits(self, shared: Shared) -> Tensor | None:
        values = shared.values(self.name)
        if values is None:
            return None
        return shared.kept(self, lambda: shared.kernels.equal(self.mine, self._looked_up(values)))

    def _looked_up(self, values: Tensor) -> Tensor:
        return values if self.table is None else torch.where(values >= 0, self.table[values.clamp_min(0)], -1)


@dataclass(frozen=True, eq=False)
class Listed(Predicate):
    """Entries of images that a query's list names: images int64 [B,L] of `count` images, -1 is none."""

    images: Tensor
    count: int
    lacking: str

    def __call__(self, piece: Slice) -> Tensor:
        index = piece.entries("index")
        if index is None:
            raise ValueError(self.lacking)
        return self._named(index, self.images[piece.part])

    def bits(self, shared: Shared) -> Tensor | None:
        index = shared.values("index")
        if index is None:
            return None
        return shared.kept(self, lambda: pack(self._named(index[None], self.images)))

    def _named(self, index: Tensor, images: Tensor) -> Tensor:
        """index [1,n] or [b,n], images [b,L] -> [b,n]."""
        there = torch.zeros(len(images), self.count + 1, dtype=torch.bool, device=images.device)  # one for each image
        there.scatter_(1, images + 1, True)
        there[:, 0] = False  # unknown
        place = torch.where((index >= 0) & (index < self.count), index + 1, 0)
        return there[:, place[0]] if len(place) == 1 else there.gather(1, place)


@dataclass(frozen=True, eq=False)
class UpTo(Predicate):
    """Entries whose place is at most last [B]."""

    last: Tensor

    def __call__(self, piece: Slice) -> Tensor:
        return piece.place <= self.last[piece.part, None]

    def bits(self, shared: Shared) -> Tensor | None:
        return shared.kept(self, lambda: pack(shared.places <= self.last[:, None]))


@dataclass(frozen=True, eq=False)
class Given(Predicate):
    """Entries that were chosen one by one, by their places: there [B,n]."""

    there: Tensor

    def __call__(self, piece: Slice) -> Tensor:
        return self._at(piece.place, piece.part)

    def bits(self, shared: Shared) -> Tensor | None:
        return shared.kept(self, lambda: pack(self._at(shared.places, slice(None))))

    def _at(self, place: Tensor, part: slice) -> Tensor:
        known = self.there.shape[1]
        return self.there[part][:, place.clamp(0, known - 1)] & (place >= 0) & (place < known)
