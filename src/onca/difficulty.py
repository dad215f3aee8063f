"""Difficulties: what entries are ranked with. Larger is harder."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from onca.link import Slice
from onca.part import Part, bare
from onca.pool import Pool
from onca.ranking import SupportScore, cosine_score


class Difficulty(Part):
    """What entries are ranked with; larger is harder."""

    kind = "difficulty"

    def __call__(self, pool: Pool) -> Callable[[Slice], Tensor]:
        """A score [b,n] for any slice of a bag of this pool."""
        raise NotImplementedError  # abstract


def need(owner: Part, value: Tensor | None, what: str, remedy: str) -> Tensor:
    if value is None:
        raise ValueError(lacking(owner, what, remedy))
    return value


def lacking(owner: Part, what: str, remedy: str) -> str:
    return f"{owner} needs {what}: give {remedy}"


class _Cosine(Difficulty):
    """The contrastive space itself: the cosine of query and entry (2010.06682, section 2)."""

    def __call__(self, pool: Pool) -> Callable[[Slice], Tensor]:
        return cosine_score


@dataclass(frozen=True, eq=False, repr=False)
class _Support(Difficulty):
    """The largest or the mean cosine of an entry with the support views of the query's image (FNC, 2011.11765)."""

    largest: bool
    own_needs: ClassVar[frozenset[str]] = frozenset({"support"})

    def __call__(self, pool: Pool) -> Callable[[Slice], Tensor]:
        support = need(self, pool.support, "pool.support [B,S,D]", "support=")

        if not support.shape[1]:
            raise ValueError(f"{self} needs at least one support view; support is {list(support.shape)}")
        return SupportScore(support.detach(), self.largest)


class _LabelDistance(Difficulty):
    """Depth of the lowest common ancestor of the two labels; unknown labels are the easiest."""

    own_needs = frozenset({"label", "depth"})

    def __call__(self, pool: Pool) -> Callable[[Slice], Tensor]:
        own = need(self, pool.label, "labels", "label= and negative_label=")
        depth = need(self, pool.depth, "pool.depth [C,C], the depth of the lowest common ancestor", "a set with levels")

        def score(piece: Slice) -> Tensor:
            label = need(self, piece.entries("label"), "labels of the entries", "negative_label=").expand(
                piece.score.shape
            )
            mine = own[piece.part, None].expand_as(label)
            known = (label >= 0) & (mine >= 0)
            found = depth[mine.clamp_min(0), label.clamp_min(0)].to(piece.score.dtype)
            return torch.where(known, found, -1)

        return score


@dataclass(frozen=True, eq=False, repr=False)
class external(Difficulty, name="external"):
    """The cosine of the two images in a table that is not being trained: hand-made descriptors, or a frozen encoder.

    pool.external[source]: unit rows [I,F] by image index. Entries of unknown index are the easiest, -1; a query of
    unknown index finds all of them so. New: in no paper.
    """

    source: str
    own_needs: ClassVar[frozenset[str]] = frozenset({"external", "index"})

    def __post_init__(self) -> None:
        if not isinstance(self.source, str) or not self.source:
            raise ValueError(f'{self}: source names a table, "descriptors" or a .npy or .npz file; got {self.source!r}')

    def __call__(self, pool: Pool) -> Callable[[Slice], Tensor]:
        own = need(self, pool.index, "indices", "index= and negative_index=")
        rows = pool.external.get(self.source)
        if rows is None:
            held = ", ".join(map(repr, pool.external)) or "none"
            raise ValueError(f"{self} needs pool.external[{self.source!r}], a table of unit rows [I,F]; held: {held}")
        mine = self._rows(rows, own)

        def score(piece: Slice) -> Tensor:
            index = need(self, piece.entries("index"), "indices of the entries", "negative_index=")
            query = mine[piece.part]
            if len(index) == 1:
                found = query @ self._rows(rows, index[0]).T
            else:  # each query has entries of its own: [b,n,F] is never held
                pairs = zip(index, query, strict=True)
                found = torch.stack([self._rows(rows, entries) @ one for entries, one in pairs])
            known = (index >= 0) & (own[piece.part, None] >= 0)
            return torch.where(known, found, -1)

        return score

    def _rows(self, rows: Tensor, index: Tensor) -> Tensor:
        """The rows of these images; any row for -1. Raises ValueError for an image the table does not have."""
        if len(index) and int(index.max()) >= len(rows):
            raise ValueError(f"{self}: the table has {len(rows)} rows, one for each image; index {int(index.max())}")
        return rows[index.clamp_min(0)]


class _Random(Difficulty):
    """Noise that depends on the seed, the query and the place in the whole bag, never on a slice."""

    def __call__(self, pool: Pool) -> Callable[[Slice], Tensor]:
        return lambda piece: uniform(pool.seed, piece)


def uniform(seed: int, piece: Slice) -> Tensor:
    """Noise for each query and entry [b,n]: it does not depend on how slices are cut."""
    query = torch.arange(piece.part.start, piece.part.stop, device=piece.graph.device)
    return noise(seed, query[:, None], piece.place[None])


def noise(seed: int, query: Tensor, place: Tensor) -> Tensor:
    """Uniform in (0, 1), float64, for whole numbers that broadcast: drawn by hashing (seed, query, place)."""
    state = _mix(_mix(_mix(torch.tensor(seed, device=query.device)) + query) + place)
    return ((state >> 11) & ((1 << 53) - 1)).double().add_(0.5).mul_(2.0**-53)


def _mix(state: Tensor) -> Tensor:
    """A step of a 64-bit mixer (xor-shift and multiply) in wrapping int64; the mask makes the shift a logical one."""
    state = state + -7046029254386353131
    state = (state ^ ((state >> 30) & ((1 << 34) - 1))) * -4658895280553007687
    state = (state ^ ((state >> 27) & ((1 << 37) - 1))) * -7723592293110705685
    return state ^ ((state >> 31) & ((1 << 33) - 1))


cosine = bare(_Cosine(), "cosine")
support_max = bare(_Support(True), "support_max")
support_mean = bare(_Support(False), "support_mean")
label_distance = bare(_LabelDistance(), "label_distance")
random = bare(_Random(), "random")
