"""Sorting an image's own views: close ones are positives, far ones negatives. New, in no paper."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from onca.bag import Bag
from onca.difficulty import need
from onca.link import Link
from onca.pool import Pool
from onca.rules import Rule
from onca.schedule import Number
from onca.select import check_count, count_at


@dataclass(frozen=True, eq=False, repr=False)
class own_views(Rule, name="own_views"):
    """Of the support views, the `close` most similar to the query become positives beside the given one, and the `far`
    least similar become negatives with the role "same image", which no index masks.

    Similar is judged by cosine in the space being trained; of views that score the same the first counts as closer.
    Views carry gradient where the pool's support does. own_views(0, 0) changes nothing.
    """

    own_needs: ClassVar[frozenset[str]] = frozenset({"support"})

    close: Number = 1
    far: Number = 1

    def __post_init__(self) -> None:
        check_count(self, "close")
        check_count(self, "far")

    def __call__(self, pool: Pool) -> Pool:
        """Raises ValueError when the pool has no support views, or fewer than close + far."""
        close, far = count_at(self, self.close, pool), count_at(self, self.far, pool)
        if close + far == 0:
            return pool
        support = need(self, pool.support, "pool.support", "support= (a host: support=8)")
        there = support.shape[1]
        if close + far > there:
            raise ValueError(
                f"{self}: {close} close and {far} far views are {close + far}, and there are {there} support views of "
                "each image: give the host more (support=8), or ask for fewer"
            )
        order = _from_close_to_far(pool.negatives.query, support)
        return replace(
            pool,
            positives=_with(pool.positives, pool, support, order[:, :close]),
            negatives=_with(pool.negatives, pool, support, order[:, there - far :]),
        )


def _from_close_to_far(query: Tensor, support: Tensor) -> Tensor:
    """Columns of support [B,S,D] in falling order of their cosine with query [B,D]: [B,S]."""
    kind = torch.promote_types(torch.promote_types(query.dtype, support.dtype), torch.float32)
    score = torch.einsum("bsd,bd->bs", support.detach().to(kind), query.detach().to(kind))
    return score.sort(dim=1, descending=True, stable=True).indices


def _with(bag: Bag, pool: Pool, support: Tensor, chosen: Tensor) -> Bag:
    """The bag, and behind its last place and that of the reserve the chosen views [B,k]."""
    if not chosen.shape[1]:
        return bag
    before = [*bag.links, *(pool.reserve.links if pool.reserve is not None else ())]

    def each(known: Tensor | None) -> Tensor | None:
        return None if known is None else known[:, None].expand(chosen.shape)

    views = Link(
        support.gather(1, chosen[:, :, None].expand(-1, -1, support.shape[2])),
        label=each(pool.label),
        index=each(pool.index),
        role="same image",
        place=max((link.end for link in before), default=0),
    )
    return bag.plus(replace(bag, links=(views,)))
