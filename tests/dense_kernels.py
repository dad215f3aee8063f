"""An engine that holds everything: what the others are compared with, and what the walks are tried on without them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from onca.engine.kernels import Hinged, NotFinite, Selected, Spread, Sums, View, both_ways, pack, unpack


class Dense:
    """All scores at once, by float64 products rounded to float32; sets by a stable sort of them."""

    name = "dense"

    def serves(self, query: Tensor, keys: Tensor) -> str:
        return "float64" if torch.float64 in (query.dtype, keys.dtype) else ""

    def scores(self, view: View) -> Tensor:
        return self._scores(view).float()

    def lengths(self, rows: Tensor) -> Tensor:
        return rows.double().norm(dim=1).float()

    def _scores(self, view: View) -> Tensor:
        query = view.query if view.query.dim() == 3 else view.query[:, None]
        found = query.double() @ view.keys.double().T  # [B,S,N]
        if view.key_factor is not None:
            found = found * view.key_factor.double()
        if view.query_factor is not None:
            found = found * view.query_factor.double().reshape(*query.shape[:-1], 1)
        return found.amax(1)

    def _there(self, view: View) -> Tensor:
        b, n = view.shape
        return torch.ones(b, n, dtype=torch.bool) if view.present is None else unpack(view.present, n)

    def select(self, view: View, rank: Tensor) -> Selected:
        score, there = self.scores(view), self._there(view)
        if bool(score[there].isnan().any()):
            raise NotFinite("a score is not a number")
        place = torch.arange(view.shape[1]) if view.place is None else view.place
        by_place = place.argsort(stable=True)
        masked = score.masked_fill(~there, -torch.inf)[:, by_place]
        order = by_place[masked.argsort(dim=1, descending=True, stable=True)]
        rank = torch.minimum(rank, there.sum(1)[:, None])
        at = order.gather(1, (rank - 1).clamp_min(0))
        some = rank > 0
        ranked = torch.empty_like(order).scatter_(1, order, torch.arange(view.shape[1]).expand_as(order))
        sets = torch.stack([pack((ranked < rank[:, e, None]) & there) for e in range(rank.shape[1])])
        value = torch.where(some, score.gather(1, at), torch.inf)
        ties = [((score == value[:, e, None]) & there).sum(1) > 1 for e in range(rank.shape[1])]
        return Selected(value, torch.where(some, place[at], -1), sets, bool(torch.stack(ties).any()))

    def above(self, view: View, bound: Tensor) -> Tensor:
        return pack((self.scores(view) > bound[:, None]) & self._there(view))

    def nearest(self, view: View, k: int) -> tuple[Tensor, Tensor]:
        score = self.scores(view).masked_fill(~self._there(view), -torch.inf)
        best, column = score.sort(1, descending=True, stable=True)
        best, column = best[:, :k], column[:, :k]
        return best, torch.where(best > -torch.inf, column, -1)

    def sums(self, view: View, scales: Sequence[float], slopes: int) -> Sums:
        lse = torch.stack([self._weights(view, scale).logsumexp(1) for scale in scales])
        if not slopes:
            return Sums(lse.float(), None, None)
        wanted = zip(scales[:slopes], lse, strict=False)
        found = [self.spread(view, scale, row, torch.ones_like(row), True, False) for scale, row in wanted]
        toward, mean = ([getattr(each, name) for each in found] for name in ("toward", "mean"))
        return Sums(lse.float(), torch.stack(toward), torch.stack(mean))

    def _weights(self, view: View, scale: float) -> Tensor:
        return (scale * self._scores(view)).masked_fill(~self._there(view), -torch.inf)

    def spread(self, view: View, scale: float, lse: Tensor, weight: Tensor, toward: bool, back: bool) -> Spread:
        share = (self._weights(view, scale) - torch.where(lse.isinf(), 0, lse.double())[:, None]).exp()
        share = share * weight.double()[:, None]
        of_keys = torch.ones(view.shape[1]) if view.key_factor is None else view.key_factor
        of_query = torch.ones(view.shape[0]) if view.query_factor is None else view.query_factor
        slope = scale * share * of_query.double()[:, None] * of_keys.double()
        product = view.query.double() @ view.keys.double().T
        by_factor = (scale * share * of_query.double()[:, None] * product).sum(0)
        return Spread(
            (slope @ view.keys.double()).float() if toward else None,
            (share * self._scores(view)).sum(1).float() if toward else None,
            (slope.T @ view.query.double()).float() if back else None,
            by_factor.float() if back else None,
        )

    def mutual_sums(self, view: View, scale: float) -> Tensor:
        return self.sums(view, [scale], 0).lse[0]

    def mutual(self, view: View, scale: float, lse: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return both_ways(self, view, scale, lse, weight)

    def hinge(self, view: View, offset: Tensor, slopes: bool) -> Hinged:
        score = self._scores(view)
        above = (score + offset.double()[:, None] > 0) & self._there(view)
        of_keys = torch.ones(view.shape[1]) if view.key_factor is None else view.key_factor
        of_query = torch.ones(view.shape[0]) if view.query_factor is None else view.query_factor
        toward = (above * of_query.double()[:, None] * of_keys.double()) @ view.keys.double()
        return Hinged(
            ((score + offset.double()[:, None]) * above).sum(1).float(),
            above.sum(1),
            toward.float() if slopes else None,
            (score * above).sum(1).float() if slopes else None,
        )

    def equal(self, mine: Tensor, theirs: Tensor) -> Tensor:
        return pack((mine[:, None] == theirs) & (theirs >= 0))

    def count(self, bits: Tensor, keys: int) -> Tensor:
        return unpack(bits, keys).sum(1)

    def hits(self, bits: Tensor, keys: int) -> Tensor:
        return unpack(bits, keys).sum(0)

    def listed(self, bits: Tensor, keys: int, most: int) -> Tensor:
        there = unpack(bits, keys)
        rank = there.cumsum(1) - 1
        found = torch.full((len(bits), most + 1), -1)
        column = torch.arange(keys).expand_as(there)
        found.scatter_(1, torch.where(there & (rank < most), rank, most), column)
        return found[:, :most]
