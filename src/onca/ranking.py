"""What an engine can rank entries with, and the tests that come of it: thresholds of scores, sets that were chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from onca.engine import View
from onca.engine.kernels import Known, unpack
from onca.link import Link, Slice
from onca.predicate import Predicate, bits_of

if TYPE_CHECKING:
    from onca.shared import Shared


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
        return replace(shared.view(present), query=rows, query_factor=None, known=None)  # other scores than those kept


@dataclass(frozen=True)
class Hinge:
    """max(0, s- - s+ + margin) of a negative and a positive: what an engine can sum as well."""

    margin: float

    def __call__(self, piece: Slice, positive: Tensor) -> Tensor:
        return torch.relu(piece.score - positive + self.margin)


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
    """Sets that an engine chose among the columns of shared keys: sets int64 [E,B,W]; known: scores that it made."""

    shared: Shared
    sets: Tensor
    known: Known | None = None

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
        found = self.found
        if found.chosen is None:
            return None
        known = found.chosen.bits(shared, self.edge)
        if known is not None or min(link.start for link in shared.links) < found.end:
            return known
        score = found.score if found.score.dim() == 1 else found.score[:, self.edge]
        return bits_of(Above(score, found.by), shared)  # a reserve: what scores the same stands behind

    def known(self, shared: Shared) -> Known | None:
        chosen = self.found.chosen
        if chosen is None or self.found.by is not cosine_score or chosen.bits(shared, self.edge) is None:
            return None
        mine, theirs = shared.bag, chosen.shared.bag
        same = mine.query is theirs.query and mine.factor is theirs.factor
        return chosen.known if same and shared.links[0].factor is chosen.shared.links[0].factor else None
