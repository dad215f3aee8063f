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


class Difficulty(Part):
    """What entries are ranked with; larger is harder."""

    kind = "difficulty"

    def __call__(self, pool: Pool) -> Callable[[Slice], Tensor]:
        """A score [b,n] for any slice of a bag of this pool."""
        raise NotImplementedError  # abstract


def need(owner: Part, value: Tensor | None, what: str, remedy: str) -> Tensor:
    if value is None:
        raise ValueError(f"{owner} needs {what}: give {remedy}")
    return value


class _Cosine(Difficulty):
    """The contrastive space itself: the cosine of query and entry (2010.06682, section 2)."""

    def __call__(self, pool: Pool) -> Callable[[Slice], Tensor]:
        return lambda piece: piece.score


@dataclass(frozen=True, eq=False, repr=False)
class _Support(Difficulty):
    """The largest or the mean cosine of an entry with the support views of the query's image (FNC, 2011.11765)."""

    largest: bool
    own_needs: ClassVar[frozenset[str]] = frozenset({"support"})

    def __call__(self, pool: Pool) -> Callable[[Slice], Tensor]:
        support = need(self, pool.support, "pool.support [B,S,D]", "support=")

        def score(piece: Slice) -> Tensor:
            total = None
            for view in support.detach().unbind(1):
                one = piece.rescore(view[piece.part], None)
                total = one if total is None else torch.maximum(total, one) if self.largest else total + one
            if total is None:
                raise ValueError(f"{self} needs at least one support view; support is {list(support.shape)}")
            return total if self.largest else total / support.shape[1]

        return score


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


class _Random(Difficulty):
    """Noise that depends on the seed, the query and the place in the whole bag, never on a slice."""

    def __call__(self, pool: Pool) -> Callable[[Slice], Tensor]:
        return lambda piece: uniform(pool.seed, piece)


def uniform(seed: int, piece: Slice) -> Tensor:
    """Uniform in (0, 1) for each query and entry [b,n], drawn by hashing (seed, query, place); float64."""
    query = torch.arange(piece.part.start, piece.part.stop, device=piece.graph.device)[:, None]
    state = _mix(_mix(_mix(torch.tensor(seed, device=query.device)) + query) + piece.place[None])
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
