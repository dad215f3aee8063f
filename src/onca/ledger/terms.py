"""What a method's rules leave for its objectives, one term at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from onca.bag import Bag
from onca.method import chain, total
from onca.objectives import Method, Objective
from onca.part import Part, Shorthand
from onca.pool import Pool
from onca.rules import Rule, harden


@dataclass(frozen=True, eq=False)
class Term:
    """`share` times an objective on what the rules before it left.

    hardened: the negatives as each `harden` that sends gradient through its weights found them, and its tilt.
    """

    share: float
    objective: Method
    pool: Pool
    hardened: tuple[tuple[Bag, float], ...] = ()

    @property
    def counts(self) -> bool:
        """Whether its entries count what rules gave them; another method (invp) chooses inside, and does not say."""
        return isinstance(self.objective, Objective)


def terms(method: Method, pool: Pool) -> Iterator[Term]:
    """The terms of a method on a pool: several for `total`, none for one whose coefficient is 0 now."""
    plain = _plain(method)
    if isinstance(plain, total):
        for coefficient, inner in plain.terms:
            weight = pool.number(coefficient, plain)
            if weight != 0:
                yield from (replace(term, share=weight * term.share) for term in terms(inner, pool))
    elif isinstance(plain, chain):
        left, hardened = pool, tuple[tuple[Bag, float], ...]()
        for step in plain.steps[:-1]:
            rule = _plain(step)
            assert isinstance(rule, Rule)
            hardened += _hardened(rule, left)
            left = rule(left)
        last = plain.steps[-1]
        assert isinstance(last, Method)
        yield from (replace(term, hardened=hardened + term.hardened) for term in terms(last, left))
    else:
        assert isinstance(plain, Method)
        yield Term(1.0, plain, pool)


def _plain(part: Part) -> Part:
    while isinstance(part, Shorthand):
        part = part.meaning()
    return part


def _hardened(rule: Rule, pool: Pool) -> tuple[tuple[Bag, float], ...]:
    if not isinstance(rule, harden) or not rule.attached:
        return ()
    tilt = pool.number(rule.beta, rule) * pool.scale
    return ((pool.negatives, tilt),) if tilt else ()
