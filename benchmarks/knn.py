"""Exact nearest neighbours against faiss's flat index: `python -m benchmarks.knn [--json FILE]`.

Both search the same float32 rows by inner product. faiss gets at least 1,000 queries at a time: below queries x
dimensions = 128,000 its CPU index takes a path without blocks, many times slower. Filling its index is not timed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import onca
from benchmarks import data
from benchmarks.measure import Row, Table, Target, Unequal, absent, compare, peer
from benchmarks.table import main

QUERIES = 1024
LEAST = 4
ROUNDING = 1e-6  # of a float32 product of unit rows; scores that lie closer may stand in either order
CHECKED = (
    "Checked before timing, both sides: recall 1.0, that is, each of the k rows is another one and scores, in "
    f"float64, at least as much as the k-th best, less {ROUNDING:g} for the rounding of float32 products. "
    "Clustered unit rows."
)

Search = Callable[[], tuple[Tensor, Tensor]]  # (score [B,k], row [B,k]), best first


def last_score(query: Tensor, keys: Tensor, k: int) -> Tensor:
    """The k-th best score of each query in float64: [B]."""
    wide = keys.double()
    return torch.cat([(part.double() @ wide.T).topk(k, sorted=True).values[:, -1] for part in query.split(64)])


def recall(query: Tensor, keys: Tensor, row: Tensor, last: Tensor) -> float:
    """Share of rows [B,k] that are among the nearest; a row that stands there twice counts once."""
    ordered = row.sort(1).values
    again = torch.cat([ordered[:, :1] < 0, ordered[:, 1:] == ordered[:, :-1]], 1)
    found = torch.cat(
        [(keys[rows].double() @ one.double()[:, None])[None, :, 0] for rows, one in zip(ordered, query, strict=True)]
    )
    return ((found >= last[:, None] - ROUNDING) & ~again).double().mean().item()


def exact(query: Tensor, keys: Tensor, k: int, sides: Sequence[Search]) -> Callable[[], dict[str, float]]:
    """A check that each side's recall is 1.0, and that scores fall from left to right."""

    def check() -> dict[str, float]:
        last, found = last_score(query, keys, k), {}
        for name, search in zip(("ours", "theirs"), sides, strict=True):
            score, row = search()
            share = recall(query, keys, row, last)
            if share < 1 or bool((score.diff(dim=1) > ROUNDING).any()):
                raise Unequal(f"{name}: recall {share:.6f}, or scores out of order")
            found[f"recall, {name}"] = share
        return found

    return check


def measured(size: int, queries: int, dim: int, ks: Sequence[int]) -> list[Row]:
    keys, query = data.rows(size, dim, 1, "clustered"), data.rows(queries, dim, 2, "clustered")
    group, faiss = data.shape(queries, size, dim), peer("faiss")
    names = [f"faiss flat, k = {k}" for k in ks]
    if faiss is None:
        return [absent(group, name, Target(LEAST)) for name in names]
    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(dim)
    index.add(keys.numpy())

    def one(name: str, k: int) -> Row:
        def ours() -> tuple[Tensor, Tensor]:
            return onca.neighbours(query, keys, k)

        def theirs() -> tuple[Tensor, Tensor]:
            score, row = index.search(query.numpy(), k)
            return torch.from_numpy(score), torch.from_numpy(row)

        return compare(group, name, ours, theirs, Target(LEAST), check=exact(query, keys, k, (ours, theirs)))

    return [one(name, k) for name, k in zip(names, ks, strict=True)]


def table(sizes: Sequence[int] = (50_000, 1_000_000), queries: int = QUERIES, dim: int = 128,
          ks: Sequence[int] = (10, 200)) -> Table:  # fmt: skip
    """Exact nearest neighbours against faiss's flat index."""
    rows = [row for size in sizes for row in measured(size, queries, dim, ks)]
    return Table("knn", "exact nearest neighbours by inner product, float32", tuple(rows), CHECKED)


if __name__ == "__main__":
    main(table)
