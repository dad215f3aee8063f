"""Selectors: which entries, and how they are joined."""

from __future__ import annotations

from dataclasses import dataclass

from onca.bag import Bag
from onca.link import Test
from onca.part import Part
from onca.pool import Pool
from onca.predicate import Both, Either, Not


class Selector(Part):
    """(Pool, Bag) -> test. Joined with & | ~, each side prepared on the same bag."""

    kind = "selector"

    def __call__(self, pool: Pool, bag: Bag) -> Test:
        """The test [b,n] for any slice. Raises ValueError when the pool lacks what the selector needs."""
        raise NotImplementedError  # abstract

    def __and__(self, other: Selector) -> Selector:
        return _Both(self, other)

    def __or__(self, other: Selector) -> Selector:
        return _Either(self, other)

    def __invert__(self) -> Selector:
        return _Not(self)


# Joined selectors. Python's precedence: ~ before & before |; parentheses are written where it needs them.


@dataclass(frozen=True, eq=False, repr=False)
class _Not(Selector):
    chosen: Selector

    def __post_init__(self) -> None:
        object.__setattr__(self, "_text", f"~{_inside(self.chosen)}")

    def __call__(self, pool: Pool, bag: Bag) -> Test:
        return Not(self.chosen(pool, bag))


@dataclass(frozen=True, eq=False, repr=False)
class _Both(Selector):
    left: Selector
    right: Selector

    def __post_init__(self) -> None:
        _join(self, "&", isinstance(self.left, _Either), isinstance(self.right, _Both | _Either))

    def __call__(self, pool: Pool, bag: Bag) -> Test:
        return Both(self.left(pool, bag), self.right(pool, bag))


@dataclass(frozen=True, eq=False, repr=False)
class _Either(Selector):
    left: Selector
    right: Selector

    def __post_init__(self) -> None:
        _join(self, "|", False, isinstance(self.right, _Either))

    def __call__(self, pool: Pool, bag: Bag) -> Test:
        return Either(self.left(pool, bag), self.right(pool, bag))


def _join(owner: _Both | _Either, sign: str, wrap_left: bool, wrap_right: bool) -> None:
    for side in (owner.left, owner.right):
        if not isinstance(side, Selector):
            raise ValueError(f"{sign} joins selectors; got {side!r}")
    left = f"({owner.left})" if wrap_left else str(owner.left)
    right = f"({owner.right})" if wrap_right else str(owner.right)
    object.__setattr__(owner, "_text", f"{left} {sign} {right}")


def _inside(chosen: Selector) -> str:
    return f"({chosen})" if isinstance(chosen, _Both | _Either) else str(chosen)
