"""Points between entries: made slice by slice, never all held."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from onca.link import Link

LEAST = 1e-12  # length below which a mixed point stays as short as it is


@dataclass(frozen=True, eq=False)
class Mix:
    """Points share * first + rest * second, brought to length one (MoCHi, 2010.01028), made block by block and never
    all held. The entries they lie between are constants: no gradient reaches them through a point.

    sources: links. first [B,S]: places in them, -1 is absent; second [B,S]: places, or None where the other end is the
    query. share, rest [B,S].
    """

    sources: tuple[Link, ...]
    first: Tensor
    second: Tensor | None
    share: Tensor
    rest: Tensor

    def scores(self, query: Tensor, own: Tensor, part: slice) -> Tensor:
        """[b,S] for a block: query [b,D]; own [b,D], the end that is the query."""
        share, rest = self.share[part].to(query.dtype), self.rest[part].to(query.dtype)
        first = self._entries(self.first[part], part, query)
        if self.second is not None:
            second = self._entries(self.second[part], part, query)
            points = first.mul_(share[:, :, None]).add_(second.mul_(rest[:, :, None]))
            return torch.bmm(points, query[:, :, None])[:, :, 0] / _lengths(points).clamp_min(LEAST)
        # These points are never made: their scores and lengths follow from the scores of the entries.
        score, to_own = torch.bmm(first, torch.stack([query, own], 2)).unbind(2)
        square = (share * _lengths(first)).square() + rest.square() * own.square().sum(1, keepdim=True)
        square = square + 2 * share * rest * to_own
        return (share * score + rest * (own * query).sum(1, keepdim=True)) / square.clamp_min(LEAST**2).sqrt()

    def _entries(self, places: Tensor, part: slice, like: Tensor) -> Tensor:
        """What stands at places [b,S] of the sources, divided by its length where they are: [b,S,D]."""
        found: Tensor | None = None
        for link in self.sources:
            columns, inside = link.columns(places)
            entries = link.entries(columns, part, like.dtype)
            found = entries if found is None else torch.where(inside[:, :, None], entries, found)
        return like.new_zeros(*places.shape, like.shape[1]) if found is None else found


def _lengths(rows: Tensor) -> Tensor:
    lengths: Tensor = torch.linalg.vector_norm(rows, dim=-1)
    return lengths
