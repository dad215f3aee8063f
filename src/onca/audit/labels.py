"""Which negatives share the query's label, by difficulty; and how hard what is left is. Labels are for evaluation."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from onca.audit.check import BANDS, RECENT, Check, Column, between, by_band, graded, percent, report
from onca.audit.finding import Finding
from onca.audit.interval import ratio, wilson
from onca.audit.sight import Sight

MORE = 1.5  # times the share in the rest that is worth a note
NEARLY_ALL = 0.9  # of a query's negatives
HARDER, SAME = 0.9, 0.5  # shares of the queries: `keep(hardest(5))` makes half of them so hard, and learns well


class SameLabel(Check):
    """Share of the negatives with the query's label among the hardest 0.1 %, up to 5 %, and the rest."""

    def __init__(self) -> None:
        self.columns = Column()

    def see(self, look: Sight) -> None:
        left = look.left
        known = left.there & (left.label >= 0) & (look.label >= 0)[:, None]
        if not bool(known.any()):
            return
        same = left.same("label", look.label)
        counts = [by_band(left.score, left.there, mask) for mask in (known, known & same)]
        self.columns.add(torch.cat(counts, 1))

    def findings(self) -> Iterator[Finding]:
        rows = self.columns.rows
        if not len(rows):
            yield Finding("same label", "unknown", "there are no labels to tell it by")
            return
        hardest, middle, rest = (ratio(rows[:, 3 + place], rows[:, place]) for place in range(3))
        said = (
            f"{between(hardest)} of the hardest 0.1 % of negatives share the query's label, {percent(middle.number)} "
            f"of those up to 5 %, {percent(rest.number)} of the rest"
        )
        yield report(
            "same label",
            graded(False, hardest.low > MORE * rest.number),
            said,
            hardest,
            len(rows),
            why="images of one class are pushed apart, the harder the more: false negatives (2010.06682, figure 4)",
            remedy="chain(drop(hardest(0.1)), infonce), fnc(), debiased(0.1); chain(drop(same_class), infonce)",
            details=dict(zip(BANDS, (hardest, middle, rest), strict=True)),
        )


class TooHard(Check):
    """Whether nearly all negatives that are left are more similar than the positive, or of the query's class."""

    def __init__(self) -> None:
        self.harder = Column(RECENT)
        self.same = Column(RECENT)

    def see(self, look: Sight) -> None:
        left, at = look.left, look.positives
        number = left.there.sum(1)
        asked = number > 0
        if at.score.shape[1]:
            best = torch.where(at.there, at.score, -torch.inf).amax(1)
            share = (left.there & (left.score > best[:, None])).sum(1) / number.clamp_min(1)
            self.harder.add(share[asked & at.there.any(1)])
        known = left.there & (left.label >= 0) & (look.label >= 0)[:, None]
        same = (known & left.same("label", look.label)).sum(1) / known.sum(1).clamp_min(1)
        self.same.add(same[known.any(1)])

    def findings(self) -> Iterator[Finding]:
        if not len(self.harder):
            yield Finding("too hard", "unknown", "there were no positives to compare negatives with")
            return
        limits = {"more similar than the positive": HARDER, "of the query's class": SAME}
        columns = dict(zip(limits, (self.harder, self.same), strict=True))
        details = {w: wilson(int((c.rows >= NEARLY_ALL).sum()), len(c)) for w, c in columns.items() if len(c)}
        words, worst = max(details.items(), key=lambda pair: pair[1].number / limits[pair[0]])
        said = f"for {between(worst)} of the queries nearly all negatives that are left are {words}"
        why = "the loss asks for what cannot be: nothing but false negatives, or noise, is pushed away"
        remedy = "an easier window: chain(keep(window(90, 99)), infonce), or chain(drop(hardest(0.1)), infonce)"
        outcome = graded(worst.low > limits[words], worst.low > limits[words] / 3)
        yield report("too hard", outcome, said, worst, len(self.harder), why=why, remedy=remedy, details=details)
