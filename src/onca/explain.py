"""What serves an expression: which engine goes over keys for which of its parts."""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap
from typing import Any

import torch

from onca.difficulty import external
from onca.engine import in_use, traced
from onca.method import as_method, chain, total
from onca.objectives import Method
from onca.part import Part, Shorthand
from onca.pool import Pool, pool
from onca.rules import Rule

QUERIES, KEYS, OLDER, DIM, CLASSES = 32, 4096, 1024, 64, 8


def explain(method: str | Method, epoch: float = 0.0) -> list[tuple[str, str, str]]:
    """(part, walk, what served it) for each part of a method in turn, found by running it: unit float32 queries with
    gradient against shared keys, as from a queue, with all else that a pool may hold. Schedules are taken at `epoch`.

    Raises ValueError: an expression that is none.
    """
    chosen = as_method(method)
    return list(_parts(chosen, _pool(chosen, epoch)))


def _parts(method: Part, given: Pool) -> Iterator[tuple[str, str, str]]:
    if isinstance(method, Shorthand):
        yield from _parts(method._meaning, given)
    elif isinstance(method, chain):
        for rule in method.steps[:-1]:
            assert isinstance(rule, Rule)
            with traced() as seen:
                given = rule(given)
            yield from _rows(rule, seen)
        yield from _parts(method.steps[-1], given)
    elif isinstance(method, total):
        for _, term in method.terms:
            yield from _parts(term, given)
    else:
        assert isinstance(method, Method)
        with traced() as seen:
            method(given)
        yield from _rows(method, seen)


def _rows(part: Part, seen: list[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    for walk, served in dict.fromkeys(seen):
        yield str(part), walk, served


def _pool(method: Method, epoch: float) -> Pool:
    """A pool that holds whatever a method may need."""
    draw = torch.Generator().manual_seed(0)

    def rows(*shape: int) -> torch.Tensor:
        return torch.nn.functional.normalize(torch.randn(*shape, DIM, generator=draw), dim=-1)

    def numbers(most: int, *shape: int) -> torch.Tensor:
        return torch.randint(most, shape, generator=draw)

    images = QUERIES + KEYS + OLDER
    tables: dict[str, Any] = {
        "neighbours": numbers(images, images, 4),
        "duplicates": numbers(images // 2, images),
        "depth": torch.eye(CLASSES, dtype=torch.int64),
        "external": {part.source: rows(images) for part in method.parts() if isinstance(part, external)},
        "normaliser": torch.tensor(float(KEYS)),
        "population": images,
        "history": (2.0, 1.0),
    }
    return pool(
        rows(QUERIES).requires_grad_(), rows(QUERIES), rows(KEYS + OLDER), label=numbers(CLASSES, QUERIES),
        negative_label=numbers(CLASSES, KEYS + OLDER), index=torch.arange(QUERIES),
        negative_index=torch.arange(QUERIES, images), support=rows(QUERIES, 4),
        given=numbers(2, QUERIES, KEYS + OLDER) > 0, reserve=OLDER, epoch=epoch, normalize=False, **tables,
    )  # fmt: skip


def table(method: str | Method, epoch: float = 0.0) -> str:
    """`explain` as text to print: a line for each part and what served its walks."""
    rows = explain(method, epoch)
    lines = [str(as_method(method)), *wrap(f"{KEYS:,} shared float32 keys on this machine: {in_use()}", 80), ""]
    wide = min(48, max((len(part) for part, _, _ in rows), default=0))
    before = ""
    for part, walk, served in rows:
        shown = part if part != before else ""
        if len(shown) > wide:
            lines.append(shown)
            shown = ""
        lines.append(f"{shown:<{wide}}  {walk:<6} {served}")
        before = part
    return "\n".join(lines)
