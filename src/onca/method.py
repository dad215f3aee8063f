"""chain and total make methods of rules and objectives."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from onca.objectives import Method
from onca.part import Part, read, require, spell
from onca.pool import Pool
from onca.rules import Rule, drop
from onca.schedule import Number, check_number


@dataclass(frozen=True, eq=False, repr=False, init=False)
class chain(Method, name="chain"):
    """`chain(*rules, objective)`: the rules one after the other, then the objective on what they left.

    Raises ValueError when called on a pool in which entries were present and the rules leave no query any negatives;
    a memory that is still empty is no error, whatever a host puts beside it.
    """

    steps: tuple[Part, ...]

    def __init__(self, *parts: Part) -> None:
        if not parts or getattr(parts[-1], "kind", "") not in ("objective", "method"):
            last = f"; it ends in {spell(parts[-1])}" if parts else ""
            raise ValueError(f"{self}: a chain ends in an objective, e.g. chain(keep(hardest(5)), infonce){last}")
        for part in parts[:-1]:
            require(self, part, "rule", "each part before the objective")
        object.__setattr__(self, "steps", (*parts[:-1], as_method(parts[-1], self)))

    def __call__(self, pool: Pool) -> Tensor:
        left = pool
        for rule in self.steps[:-1]:
            assert isinstance(rule, Rule)
            left = rule(left)
        objective = self.steps[-1]
        assert isinstance(objective, Method)
        loss = objective(left)
        if len(pool) and left.notes.get("empty") == len(pool) and _remembered(pool):
            raise ValueError(
                f"{self} leaves no query any negatives: of N = {len(pool.negatives)} entries none is chosen; "
                "widen the window or give more negatives"
            )
        return loss


def _remembered(pool: Pool) -> bool:
    """Whether memory or batch hold an entry for any query."""
    links = tuple(link for link in pool.negatives.links if link.role != "same image")
    return bool(links) and int(replace(pool.negatives, links=links).count().max()) > 0


@dataclass(frozen=True, eq=False, repr=False, init=False)
class total(Method, name="total"):
    """`total((coefficient, method), ...)`: the weighted sum; a term whose coefficient is 0 now is not computed."""

    terms: tuple[tuple[Number, Method], ...]

    def __init__(self, *terms: tuple[Number, Method]) -> None:
        object.__setattr__(self, "terms", terms)
        if not terms:
            raise ValueError(f"{self}: total takes pairs, e.g. total((1, infonce), (0.5, supcon))")
        for term in terms:
            if not isinstance(term, tuple) or len(term) != 2:
                raise ValueError(f"{self}: each term is a pair (coefficient, method); got {spell(term)}")
            check_number(self, term[0], "a coefficient")
            as_method(term[1], self)

    def __call__(self, pool: Pool) -> Tensor:
        loss = torch.zeros(len(pool), dtype=pool.negatives.dtype, device=pool.negatives.query.device)
        for coefficient, method in self.terms:
            weight = pool.number(coefficient, self)
            if weight != 0:
                loss = loss + weight * method(pool)
        return loss


def as_method(value: Any, owner: Any = "method") -> Method:
    """A method, read from text where it is text. Raises ValueError for rules and selectors, saying what is missing."""
    part = read(value) if isinstance(value, str) else value
    if isinstance(part, type) and issubclass(part, Method):
        part = part()  # an objective named without its numbers takes its defaults
    if isinstance(part, Method):
        return part
    if isinstance(part, Part) and part.kind in ("rule", "selector"):
        wrapped = part if part.kind == "rule" else f"drop({part})"
        raise ValueError(f"{owner}: {part} is a {part.kind}, not yet a method; write chain({wrapped}, infonce)")
    raise ValueError(f"{owner}: a method is an expression such as infonce or chain(...); got {spell(part)}")


def refills(part: object) -> bool:
    """Whether an expression lets in older entries, so that its memory needs a reserve as long as itself."""
    return isinstance(part, Part) and any(isinstance(inner, drop) and inner.refill for inner in part.parts())
