"""Predicates: tests that an engine can also put to all entries at once, as bits. Scores: what it can rank them with.

Bits are int64 [B,W] or [1,W] over the columns of shared keys; those of columns that are not present mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from onca.engine import View
from onca.engine.kernels import pack, unpack
from onca.link import Link, Slice, Test

if TYPE_CHECKING:
    from onca.shared import Shared


class Predicate:
    """A test [b,n] of a slice that can also be answered for all queries and columns at once."""

    def __call__(self, piece: Slice) -> Tensor:
        raise NotImplementedError  # abstract

    def bits(self, shared: Shared) -> Tensor | None:
        """None where this cannot be told so: torch then puts the test to slices."""
        raise NotImplementedError  # abstract


def bits_of(test: Test, shared: Shared) -> Tensor | None:
    return test.bits(shared) if isinstance(test, Predicate) else None


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


@dataclass(frozen=True, eq=False)
class Either(Predicate):
    left: Test
    right: Test

    def __call__(self, piece: Slice) -> Tensor:
        return self.left(piece) | self.right(piece)

    def bits(self, shared: Shared) -> Tensor | None:
        left, right = bits_of(self.left, shared), bits_of(self.right, shared)
        return None if left is None or right is None else left | right


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


# By scores.


class KnownScore:
    """A score [b,n] of a slice that an engine can compute as well."""

    def __call__(self, piece: Slice) -> Tensor:
        raise NotImplementedError  # abstract

    def view(self, shared: Shared, present: Tensor | None) -> View | None:
        """What an engine takes so that its scores are these; None where there is no such thing."""
        return None


class Cosine(KnownScore):
    """The score of the contrastive space itself."""

    def __call__(self, piece: Slice) -> Tensor:
        return piece.score

    def view(self, shared: Shared, present: Tensor | None) -> View:
        return shared.view(present)


cosine_score = Cosine()


@dataclass(frozen=True, eq=False)
class SupportScore(KnownScore):
    """The largest or the mean score of an entry with several rows for each query, taken as they are: rows [B,S,D]."""

    rows: Tensor
    largest: bool

    def __call__(self, piece: Slice) -> Tensor:
        scores = [piece.rescore(view[piece.part], None) for view in self.rows.unbind(1)]
        total = scores[0]
        for more in scores[1:]:
            total = torch.maximum(total, more) if self.largest else total + more
        return total if self.largest else total / len(scores)

    def view(self, shared: Shared, present: Tensor | None) -> View | None:
        rows = self.rows if self.largest else self.rows.mean(1)
        if shared.kernels.serves(rows, shared.keys):
            return None
        return replace(shared.view(present), query=rows, query_factor=None)


@dataclass(frozen=True, eq=False)
class Above(Predicate):
    """Entries whose score is more than bound [B]; inclusive: or equals it."""

    bound: Tensor
    score: Callable[[Slice], Tensor] = cosine_score
    inclusive: bool = False

    def __call__(self, piece: Slice) -> Tensor:
        found, bound = self.score(piece), self.bound[piece.part, None]
        return found >= bound if self.inclusive else found > bound

    def bits(self, shared: Shared) -> Tensor | None:
        view = self.score.view(shared, None) if isinstance(self.score, KnownScore) else None
        if view is None:
            return None
        bound = self.bound.float()
        if self.inclusive:
            bound = torch.nextafter(bound, torch.full_like(bound, -torch.inf))
        return shared.kept(self, lambda: shared.kernels.above(view, bound))


@dataclass(frozen=True, eq=False)
class Chosen:
    """Sets that an engine chose among the columns of shared keys: sets int64 [E,B,W]."""

    shared: Shared
    sets: Tensor

    def of(self, piece: Slice, edge: int) -> Tensor | None:
        """[b,n]; None when the slice's entries were not there to be chosen."""
        start = self._start(piece.link)
        if start is None:
            return None
        return unpack(self.sets[edge, piece.part], len(self.shared.keys))[:, start : start + piece.link.length]

    def bits(self, shared: Shared, edge: int) -> Tensor | None:
        same = shared.keys.data_ptr() == self.shared.keys.data_ptr() and len(shared.keys) == len(self.shared.keys)
        return self.sets[edge] if same and all(self._start(link) is not None for link in shared.links) else None

    def _start(self, link: Link) -> int | None:
        for known, start in zip(self.shared.links, self.shared.starts, strict=True):
            if known.vectors is link.vectors and link.rows is None:
                return start
        return None


@dataclass(frozen=True, eq=False)
class Threshold:
    """Score and place [B] or [B,E] of the k-th entries; tied: do others score the same; end: of the bag's places.

    chosen: the sets, where an engine found them. They are then never judged again by scores, which another routine
    rounds otherwise.
    """

    by: Callable[[Slice], Tensor]
    score: Tensor
    place: Tensor
    tied: bool
    end: int
    chosen: Chosen | None = None

    def test(self, edge: int = 0) -> Among:
        return Among(self, edge)


@dataclass(frozen=True, eq=False)
class Among(Predicate):
    """Is an entry among the k hardest? Entries of other bags (a reserve) are put to the same score and place."""

    found: Threshold
    edge: int

    def __call__(self, piece: Slice) -> Tensor:
        found = self.found
        if found.chosen is not None and (there := found.chosen.of(piece, self.edge)) is not None:
            return there
        score, place = (t[piece.part, None] if t.dim() == 1 else t[piece.part, self.edge, None]
                        for t in (found.score, found.place))  # fmt: skip
        value = found.by(piece)
        if piece.link.end <= found.end and not found.tied:
            return value >= score
        return (value > score) | ((value == score) & (piece.place[None] <= place))

    def bits(self, shared: Shared) -> Tensor | None:
        return None if self.found.chosen is None else self.found.chosen.bits(shared, self.edge)
