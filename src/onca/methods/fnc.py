"""False negative cancellation (FNC, 2011.11765): negatives that look like the query's image are taken out or attracted.

What looks like the image is judged with its support set, several views of it in the space being trained: a candidate's
score is its largest (or mean) cosine with them. The k that score highest, where they also score more than a threshold,
are taken for false negatives; own views are absent and take no place among the k.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from onca.difficulty import Difficulty, need, support_max
from onca.method import chain
from onca.objectives import Method, infonce, supcon
from onca.part import Part, Shorthand, require
from onca.pool import Pool
from onca.rules import Rule, attract, drop
from onca.schedule import Number, check_number
from onca.select import above, check_count, nearest
from onca.selector import Selector


class _Detection(Shorthand):
    """What `cancel` and `fnc` share: which entries are taken for false negatives."""

    k: Number
    threshold: Number
    by: Difficulty

    def chosen(self) -> Selector:
        check_count(self, "k")  # here too, so that a refusal shows the words that were written
        check_number(self, self.threshold, "threshold")
        require(self, self.by, "difficulty", "by")
        return nearest(self.k, by=self.by) & above(self.threshold, by=self.by)

    def __call__(self, pool: Pool) -> Any:
        """Raises ValueError when the pool has no support views and `by` asks for them."""
        if "support" in self.needs:
            need(self, pool.support, "pool.support", "support= (a host: support=8)")
        return super().__call__(pool)


@dataclass(frozen=True, eq=False, repr=False)
class cancel(_Detection, Rule, name="cancel"):
    """The detected false negatives are left out: drop(nearest(k, by=by) & above(threshold, by=by))."""

    k: Number = 10
    threshold: Number = 0.7
    by: Difficulty = support_max

    def meaning(self) -> Part:
        return drop(self.chosen())


@dataclass(frozen=True, eq=False, repr=False)
class fnc(_Detection, Method, name="fnc"):
    """Attraction, as in the official code: chain(attract(detected), supcon); what is attracted stays in the
    denominator. Elimination (attraction=False): chain(cancel(k, threshold, by), infonce), re-derived from the paper.
    """

    k: Number = 10
    threshold: Number = 0.7
    attraction: bool = True
    by: Difficulty = support_max

    def meaning(self) -> Part:
        if not isinstance(self.attraction, bool):
            raise ValueError(f"{self}: attraction must be True or False; got {self.attraction!r}")
        if self.attraction:
            return chain(attract(self.chosen()), supcon)
        return chain(cancel(self.k, self.threshold, self.by), infonce)
