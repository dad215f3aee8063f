"""Who an image's negatives are, and which are shown. N images, n = N - 1 negatives of each, K shown, R ranks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from scipy.stats import binom
from torch import Tensor

from onca.analyse import Space
from onca.report.explorer.layout import Layout

QUERIES = 256  # looked at together
SAME_HARD, SAME_EASY = 4, 2  # of the query's own class, from either end
DUPLICATES = 4  # near-duplicates of the query, the hardest
RECORDED = 6  # that the ledger has, the hardest
CHANCE = 0.05  # that shuffling would call any image at all consistently hard
TIMES = 2.0  # as often as by chance, at least, is consistently hard


@dataclass(frozen=True, eq=False)
class Entries:
    """The negatives that are shown of each image of one space.

    row         int64 [N,K], the negative's row, the hardest first; -1 where there are fewer than K
    rank        int64 [N,K], among all n negatives of the query; -1
    similarity  float32 [N,K], the cosine; nan
    curve       float32 [N,R], the cosine at the ranks `Layout.curve`
    hits        int64 [N], how many queries have the image among their hardest 5 %
    views       float32 [N,V], the cosine of each view; above int64 [N,V], how many negatives are more similar than it
    """

    row: Tensor
    rank: Tensor
    similarity: Tensor
    curve: Tensor
    hits: Tensor
    views: Tensor
    above: Tensor

    @property
    def known(self) -> Tensor:
        """Which of the K are negatives, bool [N,K]."""
        return self.row >= 0


def entries(
    space: Space,
    layout: Layout,
    group: Tensor | None = None,
    views: Tensor | None = None,
    recorded: Tensor | None = None,
) -> Entries:
    """All negatives of all images, by slices of queries.

    group: near-duplicates [N]; views: unit rows [N,V,D]; recorded: pairs [P,2] of query and negative in a ledger.
    """
    asked = _Asked(space, layout, group, views, recorded)
    parts = [asked.of(query) for query in torch.split(torch.arange(len(space)), QUERIES)]
    joined = {
        name: torch.cat([getattr(part, name) for part in parts])
        for name in ("row", "rank", "similarity", "curve", "views", "above")
    }
    return Entries(**joined, hits=torch.stack([part.hits for part in parts]).sum(0))


@dataclass(frozen=True, eq=False)
class _Asked:
    """What `entries` was asked for, and the answer for some queries."""

    space: Space
    layout: Layout
    group: Tensor | None
    views: Tensor | None
    recorded: Tensor | None

    def of(self, query: Tensor) -> Entries:
        """The entries of a slice of neighbouring queries [b]; hits [N] are theirs alone."""
        rows, negatives = self.space.rows, self.layout.negatives
        score = rows[query] @ rows.T  # [b,N]
        score[torch.arange(len(query)), query] = -torch.inf
        ordered, row = (part[:, :negatives] for part in torch.sort(score, dim=1, descending=True, stable=True))
        shown = torch.where(self._shown(query, row), torch.arange(negatives), negatives)
        rank = shown.sort(1).values[:, : self._most]
        there, place = rank < negatives, rank.clamp_max(negatives - 1)
        seen = torch.empty(len(query), 0)
        if self.views is not None:
            seen = torch.einsum("bd,bvd->bv", rows[query], self.views[query])
        return Entries(
            row=torch.where(there, row.gather(1, place), -1),
            rank=torch.where(there, rank, -1),
            similarity=torch.where(there, ordered.gather(1, place), torch.nan),
            curve=ordered[:, torch.tensor(self.layout.curve)],
            hits=row[:, : self.layout.hard].flatten().bincount(minlength=len(rows)),
            views=seen,
            above=(score[:, None] > seen[..., None]).sum(2),
        )

    @property
    def _most(self) -> int:
        """K: what the zones show, and all that may stand elsewhere."""
        more = SAME_HARD + SAME_EASY
        more += (self.group is not None) * DUPLICATES + (self.recorded is not None) * RECORDED
        return min(self.layout.negatives, len(self.layout.ranks) + more)

    def _shown(self, query: Tensor, row: Tensor) -> Tensor:
        """Which ranks are shown, bool [b,n]."""
        shown = torch.zeros(row.shape, dtype=torch.bool)
        shown[:, torch.tensor(self.layout.ranks)] = True
        shown |= _ends(_alike(self.space.label, query, row), SAME_HARD, SAME_EASY)
        if self.group is not None:
            shown |= _ends(self.group[query, None] == self.group[row], DUPLICATES, 0)
        if self.recorded is not None:
            shown |= _ends(_recorded(self.recorded, query, len(self.space)).gather(1, row), RECORDED, 0)
        return shown


def often_hard(hits: Tensor, layout: Layout) -> Tensor:
    """Which images are consistently hard, bool [N].

    Among the hardest 5 % at least twice as often as under shuffling of each query's negatives, and so often that
    shuffling would lift any one of the N images there in 5 % of cases at most (binomial, Bonferroni).
    """
    bound = float(binom.isf(CHANCE / len(hits), layout.negatives, layout.hard / layout.negatives))
    return hits > max(bound, TIMES * layout.hard - 1)


def _alike(label: Tensor, query: Tensor, row: Tensor) -> Tensor:
    """Whether query and negative are known to be of one class, bool [b,n]."""
    own = label[query, None]
    return (own == label[row]) & (own >= 0)


def _recorded(pairs: Tensor, query: Tensor, count: int) -> Tensor:
    """Whether a query of this slice was recorded with the image in a row, bool [b,N]."""
    there = torch.zeros(len(query), count, dtype=torch.bool)
    own = pairs[(pairs[:, 0] >= query[0]) & (pairs[:, 0] <= query[-1])]
    there[own[:, 0] - query[0], own[:, 1]] = True
    return there


def _ends(chosen: Tensor, first: int, last: int) -> Tensor:
    """The first and the last so many that are chosen in each row, bool [b,n]."""
    count = chosen.cumsum(1)
    return chosen & ((count <= first) | (count > count[:, -1:] - last))
