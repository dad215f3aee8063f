"""The pools that the tests of the algebra run on: every way to give positives, negatives and what is known of them."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from oracle import Case

Tensor = torch.Tensor
B, N, D, S = 5, 24, 6, 3


def rows(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def whole(high: int, *shape: int, seed: int) -> Tensor:
    """Whole numbers from -1 (unknown) to high - 1."""
    return torch.randint(-1, high, shape, generator=torch.Generator().manual_seed(seed))


def chance(*shape: int, seed: int) -> Tensor:
    """True for three in ten."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.3


def knowledge(n: int, *, per_query: bool = False) -> dict[str, Any]:
    """Labels, indices, support and given for n entries; some of the labels and indices are unknown."""
    shape = (B, n) if per_query else (n,)
    return {
        "label": torch.tensor([0, 1, 2, -1, 1]),
        "negative_label": [whole(3, *shape, seed=1)],
        "index": torch.tensor([0, 1, 2, 3, -1]),
        "negative_index": [whole(12, *shape, seed=2)],
        "support": rows(B, S, D, seed=3),
        "given": chance(B, n, seed=4),
        "epoch": 20.0,
        **tables(),
    }


def tables() -> dict[str, Any]:
    """What is known of 12 images and 3 classes beside any batch."""
    hand = rows(12, 4, seed=10)
    return {
        "neighbours": whole(12, 12, 3, seed=11),
        "duplicates": torch.arange(12) // 3,
        "depth": torch.tensor([[2, 1, 0], [1, 2, 0], [0, 0, 2]]),
        "external": {"hand": hand / hand.norm(dim=1, keepdim=True)},
        "normaliser": torch.tensor(40.0, dtype=torch.float64),
        "population": 12,
    }


@dataclass(frozen=True)
class Setting:
    """The tensors that a loss is derived by, and how they make a case."""

    leaves: list[Tensor]
    make: Callable[[list[Tensor]], Case]


def plain(leaves: list[Tensor], **more: Any) -> Setting:
    return Setting(leaves, lambda x: Case(x[0], x[1], x[2:], **more))


def linked() -> Setting:
    known = knowledge(N)
    shared = [part.split([10, 6, 8]) for part in (known.pop("negative_label")[0], known.pop("negative_index")[0])]
    labels, indices = ([x, y.expand(B, -1).roll(1, 1), z] for x, y, z in shared)
    bags = [rows(10, D, seed=7), rows(B, 6, D, seed=8), rows(8, D, seed=9)]
    query, positive = rows(B, D, seed=5), rows(B, D, seed=6)
    return plain([query, positive, *bags], negative_label=labels, negative_index=indices, **known)


def in_batch() -> Setting:
    """Both views of 6 images: the queries are the keys, and keys have a gradient."""
    image = torch.arange(6).repeat(2)
    label = torch.tensor([0, 0, 1, 1, 2, -1]).repeat(2)
    more: dict[str, Any] = {
        "label": label,
        "negative_label": [label],
        "index": image,
        "negative_index": [image],
        "temperature": 0.5,
        "support": rows(12, S, D, seed=3),
        "given": chance(12, 12, seed=4),
        **tables(),
    }
    pair = torch.arange(12).roll(6)
    z = rows(12, D, seed=5) + rows(6, D, seed=6).repeat(2, 1)
    return Setting([z], lambda x: Case(x[0], x[0][pair], [x[0]], epoch=20.0, **more))


def quantised() -> Setting:
    """Multiples of 1/8, with every second key a copy: products are exact in any order, and half of all ranks tie."""
    eighths = [(8 * x).round() / 8 for x in (rows(B, D, seed=5) / 2, rows(B, D, seed=6) / 2, rows(N, D, seed=7) / 2)]
    eighths[2][1::2] = eighths[2][::2]
    known = knowledge(N) | {"support": (rows(B, S, D, seed=3) * 4).round() / 8}
    return plain(eighths, normalize=False, temperature=1.0, **known)


def some_empty() -> Setting:
    """The first query's own image stands in every row; the second query shares no row with it."""
    known = knowledge(N, per_query=True)
    known["negative_index"][0][0] = known["index"][0]
    return plain([rows(B, D, seed=5), rows(B, D, seed=6), rows(N, D, seed=7)], **known)


SETTINGS: dict[str, Callable[[], Setting]] = {
    "shared": lambda: plain([rows(B, D, seed=5), rows(B, D, seed=6), rows(N, D, seed=7)], **knowledge(N)),
    "per query": lambda: plain(
        [rows(B, D, seed=5), rows(B, D, seed=6), rows(B, N, D, seed=7)], **knowledge(N, per_query=True)
    ),
    "linked": linked,
    "several positives": lambda: plain(
        [rows(B, D, seed=5), rows(B, 3, D, seed=6), rows(N, D, seed=7)], temperature=0.5, **knowledge(N)
    ),
    "in batch": in_batch,
    "reserve": lambda: plain(
        [rows(B, D, seed=5), rows(B, D, seed=6), rows(N + 9, D, seed=7)], reserve=9, **knowledge(N + 9)
    ),
    "rows as they are": lambda: plain(
        [rows(B, D, seed=5) / 2, rows(B, D, seed=6) / 2, rows(N, D, seed=7) / 2], normalize=False, **knowledge(N)
    ),
    "bank": lambda: plain(
        [rows(B, D, seed=5), rows(B, D, seed=6), rows(12, D, seed=7)],
        **knowledge(12) | {"index": torch.tensor([0, 1, 2, 3, 7]), "negative_index": [torch.arange(12)]},
    ),
    "quantised": quantised,
    "some empty": some_empty,
}


def arguments(case: Case) -> dict[str, Any]:
    """The case as arguments of `onca.pool`: a single bag stands for itself."""
    values = {f.name: getattr(case, f.name) for f in fields(case)}
    if len(case.negatives) == 1:
        for name in ("negatives", "negative_label", "negative_index"):
            values[name] = values[name][0] if values[name] is not None else None
    return values


def derive(per_query: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    """Derivatives of a sum in which every query has another share."""
    share = torch.linspace(0.5, 1.5, len(per_query), dtype=per_query.dtype)
    found = torch.autograd.grad((share * per_query).sum(), leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]
