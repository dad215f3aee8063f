"""Conditions of a table, each against the one it is compared with, corrected for there being several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from onca.study.judge import Row, by_seed
from onca.study.plan import Condition
from onca.study.statistics import Difference, difference, holm, paired_p

LEVEL = 0.05  # of a family of tests
BETTER, WORSE, NOT_SHOWN, NOT_RUN = "better", "worse", "no difference shown", "not run"


@dataclass(frozen=True)
class Compared:
    """A condition's difference in points of linear top-1, its paired p alone and after Holm's correction, the words.

    `why`: what a reader must know besides: one seed, the same result everywhere. `tests`: how many its family holds.
    """

    condition: Condition
    difference: Difference | None
    p: float | None = None
    adjusted: float | None = None
    tests: int = 0
    word: str = NOT_RUN
    why: str = ""


def compare(conditions: Sequence[Condition], rows: Sequence[Row], table: str) -> tuple[Compared, ...]:
    """The conditions of one table that are compared with another, in their order.

    Those that see labels are a family of tests of their own: what they show is a limit, no method.
    """
    mine = [c for c in conditions if table in c.figures and c.against]
    found = [_compared(condition, rows) for condition in mine]
    for labels in (False, True):
        family = [i for i, each in enumerate(found) if each.condition.needs_labels == labels and each.p is not None]
        adjusted = holm([p for i in family if (p := found[i].p) is not None])
        for i, p in zip(family, adjusted, strict=True):
            found[i] = replace(found[i], adjusted=p, tests=len(family), word=_word(found[i], p))
    return tuple(found)


def _compared(condition: Condition, rows: Sequence[Row]) -> Compared:
    a, b = (by_seed(rows, name, "linear_top1") for name in (condition.name, condition.against))
    paired = difference(a, b)
    if paired is None:
        missing = " or ".join(name for name, values in ((condition.name, a), (condition.against, b)) if not values)
        return Compared(condition, None, why=f"no finished run of {missing}" if missing else "no seed in common")
    p, why = paired_p(list(paired.by_seed.values())), ""
    if paired.estimate.n == 1:
        why = "one seed, no test"
    elif not any(paired.by_seed.values()):
        why = "the same result with every seed: it changed nothing here"
    elif p is None:
        why = "the same difference with every seed, no test"
    return Compared(condition, paired, p, word=NOT_SHOWN, why=why)


def _word(found: Compared, adjusted: float) -> str:
    assert found.difference is not None
    if adjusted > LEVEL:
        return NOT_SHOWN
    return BETTER if found.difference.estimate.mean > 0 else WORSE
