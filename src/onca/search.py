"""Exact search in torch: the keys that score highest with each query, in one of two ways.

Few neighbours of many keys: a first look in a fast precision bounds the scores of groups of keys from above and below.
What cannot be among the k nearest is left out, and the rest is scored again, in full precision. Nothing is lost: see
`slack_of`. Many neighbours, or keys that crowd together so that the look rules out too little: some queries against all
keys, and the k largest scores of each.

Shapes: B queries, b of one block, N keys, n of one chunk, D dimensions, G groups, C candidates, P pairs of query and
group.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from onca import sliced
from onca.engine import NotFinite, chosen

GROUP = 16  # keys that the first look keeps one number for
SHARE = 16  # one in so many keys at most is scored again
BLOCK = {"cpu": 1 << 20, "cuda": 1 << 25}  # numbers of one product, and of one gathering of keys
BOUNDS = {"cpu": 1 << 24, "cuda": 1 << 27}  # bounds of groups held at a time
QUERIES = 1024  # of one block of the first look
MANY = 8  # from one in so many on, a threshold finds the largest sooner than topk
ROWS = 32  # least number of queries that meet all keys at once, so that the product is worth reading the keys
KEYS = 8192  # keys that are widened at a time
WIDENED = 1024  # rows of half precision that are widened together to be measured


@dataclass(frozen=True, eq=False)
class Search:
    """One call in torch. Lengths [B], [N] are those of the rows as given."""

    query: Tensor
    keys: Tensor
    k: int
    kind: torch.dtype
    query_length: Tensor
    key_length: Tensor
    normalize: bool

    @classmethod
    def prepared(cls, query: Tensor, keys: Tensor, k: int, normalize: bool) -> Search:
        kind = torch.promote_types(torch.promote_types(query.dtype, keys.dtype), torch.float32)
        mine, theirs = finite_lengths("query", query).to(kind), finite_lengths("keys", keys).to(kind)
        return cls(query, keys, k, kind, mine, theirs, normalize)

    def run(self) -> tuple[Tensor, Tensor]:
        """(score, row) [B,k], best first, ties by row."""
        number = len(self.keys)
        score = self.query.new_empty(len(self.query), self.k, dtype=self.kind)
        row = torch.empty_like(score, dtype=torch.int64)
        if not score.numel():
            return score, row
        left = torch.arange(len(score), device=score.device)
        if 2 * SHARE * GROUP * self.k <= number:
            crowded = []
            height = max(1, BOUNDS.get(score.device.type, BOUNDS["cpu"]) * GROUP // number)
            for some in torch.split(left, min(QUERIES, height)):
                inside = self.look(some)
                few = inside.sum(1) * GROUP * SHARE <= number
                score[some[few]], row[some[few]] = self.among(some[few], inside[few])
                crowded.append(some[~few])
            left = torch.cat(crowded)
        for some in torch.split(left, max(ROWS, self._block // number)):
            score[some], row[some] = self.among_all(some)
        return score, row

    @property
    def _block(self) -> int:
        return BLOCK.get(self.query.device.type, BLOCK["cpu"])

    def scaled(self, product: Tensor, queries: Tensor, keys: Tensor | slice) -> Tensor:
        """Products [...] of rows as scores: the factors of queries and keys must broadcast to them."""
        if not self.normalize:
            return product
        return product.mul_(inverse(self.key_length[keys])).mul_(inverse(self.query_length[queries]))

    def among_all(self, some: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest of all keys for the queries `some` [b]: (score, row) [b,k]."""
        query = self.query[some].to(self.kind)
        values = torch.empty(len(some), len(self.keys), dtype=self.kind, device=query.device)
        for start in range(0, len(self.keys), KEYS):
            chunk = slice(start, start + KEYS)
            values[:, chunk] = self.scaled(query @ self.keys[chunk].to(self.kind).T, some[:, None], chunk)
        return _largest(values, self.k)

    # The first look.

    def look(self, some: Tensor) -> Tensor:
        """Which groups of keys may hold one of the k nearest of the queries `some` [b]: bool [b,G].

        In units of the query's length and the longest key's, a score lies within slack * weight of what the look finds.
        k groups hold a score of at least `least`, the k-th largest lower bound; a score whose upper bound is below that
        has k larger ones.
        """
        number, slack = len(self.keys), slack_of(self.query.shape[1], self.fast)
        query = self._unit(self.query[some], self.query_length[some])
        weight = pad(self._weight().float(), (0, -number % GROUP))
        upper = torch.empty(len(weight) // GROUP, len(some), device=query.device)
        step = max(GROUP, self._block // len(some) // GROUP * GROUP)
        for start in range(0, number, step):
            chunk = slice(start, min(start + step, number))
            bound = _product(self._unit(self.keys[chunk], self.key_length[chunk]), query).add_(slack)  # [n,b]
            if not self.normalize:
                bound.mul_(weight[chunk, None])
            if len(bound) % GROUP:  # the last keys
                bound = pad(bound, (0, 0, 0, -len(bound) % GROUP), value=-torch.inf)
            upper[start // GROUP : (start + step) // GROUP] = bound.view(-1, GROUP, len(some)).amax(1)
        upper = upper.T.contiguous()
        lower = upper - 2 * slack * weight.view(-1, GROUP).amax(1)
        least = lower.topk(self.k, dim=1, sorted=False).values.amin(1, keepdim=True)
        return upper >= least

    def among(self, some: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """The nearest in the groups `inside` [b,G] for the queries `some` [b]: (score, row) [b,k]."""
        count = inside.sum(1)
        at, group = inside.nonzero(as_tuple=True)  # [P]
        column = torch.arange(len(at), device=at.device) - (count.cumsum(0) - count)[at]
        most = int(count.max()) if len(some) else self.k
        values = torch.full((len(some), most, GROUP), -torch.inf, dtype=self.kind, device=at.device)
        groups = torch.zeros(len(some), most, dtype=torch.int64, device=at.device)
        groups[at, column] = group
        query, members = self.query[some].to(self.kind), torch.arange(GROUP, device=at.device)
        pairs = torch.arange(len(at), device=at.device)
        for part in torch.split(pairs, max(1, self._block // (GROUP * max(1, query.shape[1])))):
            rows = group[part, None] * GROUP + members
            there = rows < len(self.keys)
            rows = torch.where(there, rows, 0)
            # Not a matrix product: those may be set to a lower precision (torch.set_float32_matmul_precision).
            product = self.keys[rows].to(self.kind).mul_(query[at[part], None]).sum(2)
            score = self.scaled(product, some[at[part], None], rows)
            values[at[part], column[part]] = torch.where(there, score, -torch.inf)
        score, place = _largest(values.flatten(1), self.k)
        return score, groups.gather(1, place // GROUP) * GROUP + place % GROUP

    @property
    def fast(self) -> torch.dtype:
        """bf16 where the machine multiplies it faster than float32, that is on CUDA and with matrix units (AMX)."""
        return torch.bfloat16 if self.query.is_cuda or torch.cpu._is_amx_tile_supported() else torch.float32

    def _weight(self) -> Tensor:
        """What the products of unit rows are multiplied by [N]: the keys' lengths as shares of the longest."""
        if self.normalize:
            return torch.ones_like(self.key_length)
        return self.key_length * inverse(self.key_length.amax())

    def _unit(self, rows: Tensor, length: Tensor) -> Tensor:
        """Rows of length one, rounded for the first look."""
        return (rows.to(self.kind) * inverse(length)[:, None]).to(self.fast)


def _product(keys: Tensor, query: Tensor) -> Tensor:
    """keys [n,D] against query [b,D]: float32 [n,b], summed in float32."""
    if keys.is_cuda and keys.dtype != torch.float32:
        return torch.mm(keys, query.T, out_dtype=torch.float32)  # else CUDA may sum in bf16
    return (keys @ query.T).float()


def slack_of(dim: int, fast: torch.dtype) -> float:
    """A bound on |first look - score as computed| for two rows of length one (as given, no shorter than 1e-18).

    Rounding a row to bf16 changes each entry by a factor within 1 + u, u = 2^-8, and so does rounding the result:
    (1 + u)^3 - 1 <= 3 u (1 + u)^2, times sum |q k| <= |q| |k| = 1. In float32 u = 2^-24; these roundings, a sum of D
    products (D u) here and one in the full score, two lengths (D u) and a few operations by themselves are less than
    (D + 32) * 4 u.
    """
    u = 2.0**-8 if fast == torch.bfloat16 else 0.0
    return 3 * u * (1 + u) ** 2 + (dim + 32) * 2.0**-22


def _largest(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest of each row of values [b,C], best first, ties by column: (value, column) [b,k].

    Each row has k values above -inf.
    """
    if not len(values):
        return values[:, :k], torch.empty(0, k, dtype=torch.int64, device=values.device)
    if MANY * k > values.shape[1]:
        column = _largest_columns(values, k)
    else:
        best, column = values.topk(k + 1, dim=1)
        tied = best[:, k] == best[:, k - 1]  # which of those that tie is found is not defined
        column = column[:, :k].sort(1).values
        if bool(tied.any()):
            column[tied] = _largest_columns(values[tied], k)
    score, order = values.gather(1, column).sort(dim=1, descending=True, stable=True)
    return score, column.gather(1, order)


def _largest_columns(values: Tensor, k: int) -> Tensor:
    """The columns of the k largest of each row, ascending, by the score and place of the k-th: [b,k]."""
    place = torch.arange(values.shape[1], device=values.device)
    rank = torch.full((len(values), 1), k, device=values.device)
    edge, last, tied = sliced.edges(values, rank, rank[:, 0], place)
    chosen = values >= edge
    if tied:
        chosen &= (values > edge) | (place <= last)
    return chosen.nonzero()[:, 1].view(-1, k)


def lengths(rows: Tensor) -> Tensor:
    """The lengths of rows [...,D], in float32 or better, with their gradient: [...]."""
    kind = torch.promote_types(rows.dtype, torch.float32)
    constant = rows.dim() == 2 and not (rows.requires_grad and torch.is_grad_enabled())
    kernels = chosen(rows, rows)[0] if constant else None
    if kernels is not None:
        return kernels.lengths(rows)
    if rows.dtype == kind or rows.shape[:-1].numel() <= WIDENED:
        length: Tensor = torch.linalg.vector_norm(rows, dim=-1, dtype=kind)
        return length
    # some rows at a time: torch widens many of half precision number by number when asked for a norm in float32
    parts = torch.split(rows.flatten(0, -2), WIDENED)
    return torch.cat([torch.linalg.vector_norm(part.to(kind), dim=-1) for part in parts]).view(rows.shape[:-1])


def finite_lengths(name: str, rows: Tensor) -> Tensor:
    """The lengths of rows [n,D]. Raises NotFinite where one is not finite."""
    length = lengths(rows)
    wrong = ~length.isfinite()
    if bool(wrong.any()):
        raise NotFinite(
            f"row {int(wrong.byte().argmax())} of {name} ({int(wrong.sum())} of {len(rows)}) holds nan, inf or numbers "
            "too large to be multiplied: look at what made it"
        )
    return length


def inverse(length: Tensor) -> Tensor:
    """1 / length, 0 for a zero row."""
    return torch.where(length > 0, 1 / torch.where(length > 0, length, 1), 0)
