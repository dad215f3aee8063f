"""Mirrored negatives: an answer to the anti-correlated ones of 2010.06682, section 4. New, and in no paper."""

from __future__ import annotations

from dataclasses import dataclass, replace

from onca.part import require
from onca.pool import Pool
from onca.rules import Rule
from onca.selector import Selector


@dataclass(frozen=True, eq=False, repr=False)
class mirror(Rule, name="mirror"):
    """The chosen negatives k count as their mirror images -k: with the opposite sign of their score.

    An entry that is anti-correlated with the query becomes a hard negative, and the loss pushes it back towards
    orthogonality. 2010.06682 found such entries (section 4) and asked what to do about them (section 6.1). Rules before
    it saw the scores as they were, rules after it see the new ones (support views too). Mirrored twice, an entry is
    what it was. Entries that a later refill lets in are not mirrored: write `mirror` behind it.

    Raises ValueError behind `harden`, whose weights belong to the scores as they were.
    """

    chosen: Selector

    def __post_init__(self) -> None:
        require(self, self.chosen, "selector", "chosen")

    def __call__(self, pool: Pool) -> Pool:
        if pool.negatives.tilt != 0:
            raise ValueError(f"{self} stands behind harden, whose weights belong to other scores: write it first")
        return replace(pool, negatives=pool.negatives.turned(self.chosen(pool, pool.negatives)))
