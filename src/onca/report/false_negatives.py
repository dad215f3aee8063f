"""False negatives on a page: what is estimated without labels beside what labels say, and what detectors find."""

from __future__ import annotations

from collections.abc import Sequence

from onca.analyse.detectors import Calibrated, Detection
from onca.analyse.false_negatives import FalseNegatives
from onca.analyse.statistics import Interval
from onca.report.page import Html, join, section, table, tag


def false_negative_sections(found: Sequence[FalseNegatives]) -> tuple[Html, ...]:
    """The last epoch in full, and the course of it where there are several."""
    if not found:
        return ()
    last = found[-1]
    body = [tag("p", _lead(last)), _hardest(last)]
    if last.detections:
        body += [tag("h3", "What detectors find"), _detections(last.detections)]
    if last.calibration:
        body += [tag("h3", "Is the probability of likely one?"), _calibration(last.calibration)]
    if len(found) > 1:
        body += [tag("h3", "Over training"), _course(found)]
    return (section("False negatives", *body),)


def _lead(found: FalseNegatives) -> str:
    known = found.prior.labelled.value
    by_labels = "" if known is None else f"; by labels it is {percent(found.prior.labelled)}"
    return (
        f"Without labels, {percent(found.prior.tau_plus)} of all negatives are estimated to be of the query's class "
        f"(tau_plus){by_labels}. The estimate takes what lies on the hard side of a query's similarities beyond what "
        "the anti-correlated side lets expect. It misses classmates that look like strangers, and counts whatever this "
        "space finds alike for other reasons; where there are labels, they show by how much it errs here."
    )


def _hardest(found: FalseNegatives) -> Html:
    rows = [(f"{share.percent:g} %", _cell(share.estimated), _cell(share.labelled)) for share in found.prior.hardest]
    caption = (
        f"Percent of the hardest negatives that are false; {found.prior.queries:,} queries, 95 % intervals over them."
    )
    return table(("Of the hardest", "Estimated", "By labels"), rows, numbers=(1, 2), caption=caption)


def _detections(found: Sequence[Detection]) -> Html:
    rows = [
        (tag("code", one.detector), _cell(one.chosen), _cell(one.precision), _cell(one.recall), _cell(one.base))
        for one in found
    ]
    head = ("Detector", "Chosen, %", "Precision, %", "Recall, %", "By chance, %")
    caption = (
        "Chosen: share of all negatives. Precision: share of the chosen that is of the query's class; by chance it "
        "would be the last column. Recall: share of those of the query's class that is chosen."
    )
    return table(head, rows, numbers=(1, 2, 3, 4), caption=caption)


def _calibration(found: Sequence[Calibrated]) -> Html:
    rows = [(f"{100 * one.low:.0f} to {100 * one.high:.0f} %", _cell(one.right)) for one in found]
    return table(("Said to be false with", "Are, %"), rows, numbers=(1,))


def _course(found: Sequence[FalseNegatives]) -> Html:
    names = [one.detector for one in found[-1].detections]
    rows = []
    for one in found:
        precision = {each.detector: each.precision for each in one.detections}
        several = [_cell(precision[name]) if name in precision else join("–") for name in names]
        epoch = "–" if one.epoch is None else f"{one.epoch:g}"
        rows.append((epoch, _cell(one.prior.tau_plus), *several))
    head = ("Epoch", "tau_plus, %", *(f"precision of {name}, %" for name in names))
    return table(head, rows, numbers=range(1, len(head)))


def percent(found: Interval) -> str:
    """A share as percent with its interval."""
    if found.value is None:
        return "–"
    if found.low is None or found.high is None:
        return f"{100 * found.value:.2f} %"
    return f"{100 * found.value:.2f} % [{100 * found.low:.2f}, {100 * found.high:.2f}]"


def _cell(found: Interval) -> Html:
    if found.value is None:
        return join("–")
    spread = () if found.low is None or found.high is None else (f"[{100 * found.low:.1f}, {100 * found.high:.1f}]",)
    return join(f"{100 * found.value:.1f}", *(tag("span", text, class_="soft below") for text in spread))
