"""From the rows of a study (one a run) to what its files hold: estimates per condition, differences, judged claims.

`runs.csv` and `table.csv` begin with the columns that contract.md section 6 names; what else there is comes after them.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from onca.study.comparison import Compared, compare
from onca.study.judge import Judged, Row, by_seed, judge, words
from onca.study.plan import Condition, Reported, Study
from onca.study.statistics import Difference, Estimate, difference, estimate
from onca.study.studies import find

METRICS = {"top1": "linear_top1", "top5": "linear_top5", "knn": "knn_top1", "rotation": "rotation_top1"}
RUN_COLUMNS = (
    *("condition", "method", "temperature", "seed"),
    *("linear_top1", "linear_top5", "knn_top1", "split", "images", "seconds"),
)
NUMBERS = ("n", "mean", "sd", "low", "high", "difference", "difference_low", "difference_high")
COMPARED = ("against", "paired_p", "holm_p", "says", "compute", "seconds", "settings", "source")
TABLE_COLUMNS = (
    *("condition", *NUMBERS, "p", *(f"top5_{name}" for name in (*NUMBERS, "p")), "method", "temperature"),
    *COMPARED,
)


@dataclass(frozen=True)
class StudyResult:
    """A study as far as it got. `conditions`: those planned, in order. `rows`: one mapping a finished run.

    provenance: whatever says where the numbers come from (data, encoder, device, versions, command ...), by name.
    loss_share: temperature -> (percentile from, to, share of the summed exponentials 0..1), from a baseline run.
    failures: what did not finish -> why, in words. trials: one mapping a run on the validation part, of those that
    chose settings.
    """

    name: str
    preset: str
    host: str
    conditions: tuple[Condition, ...]
    rows: tuple[Row, ...] = ()
    provenance: Mapping[str, object] = field(default_factory=dict)
    loss_share: Mapping[float, Sequence[tuple[float, float, float]]] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)
    trials: tuple[Row, ...] = ()

    @property
    def study(self) -> Study:
        return find(self.name)

    def judged(self) -> dict[str, Judged]:
        planned = {condition.name for condition in self.conditions}
        claims = [c for c in self.study.claims(self.preset, self.host) if {c.a, c.b, *(c.minus or ())} <= planned]
        return judge(claims, self.rows)

    def compared(self) -> dict[str, tuple[Compared, ...]]:
        """By table: its conditions against those they are compared with."""
        return {table.key: compare(self.conditions, self.rows, table.key) for table in self.study.tables}

    def spoken(self) -> list[str]:
        """The findings as lines to print: claims with their verdicts, or else each row of each table with its word."""
        judged = self.judged()
        if judged:
            found = [(j.outcome, j.claim.text, j.difference) for j in judged.values()]
        else:
            found = [(c.word, c.condition.name, c.difference) for rows in self.compared().values() for c in rows]
        width = max((len(word) for word, _, _ in found), default=0)
        return [f"{word:>{width}}  {name}{f': {words(d.estimate)}' if d else ''}" for word, name, d in found]


@dataclass(frozen=True)
class Summary:
    """A condition in numbers, by metric (the keys of `METRICS`); what has no finished run, or no partner, is absent.

    `differences` are to the condition that it is compared with. `compared`: the words of its table, if it stands in
    one. compute: as a share of the preset's run, seconds: of a run, both means over runs.
    """

    condition: Condition
    values: Mapping[str, Mapping[int, float]]
    estimates: Mapping[str, Estimate]
    differences: Mapping[str, Difference]
    reported: tuple[Reported, ...]
    compared: Compared | None = None
    compute: float | None = None
    seconds: float | None = None


def tables(study: StudyResult) -> tuple[Summary, ...]:
    """One `Summary` a planned condition, in order, whether or not it has runs."""
    known = {condition.name for condition in study.conditions}
    strange = sorted({str(row["condition"]) for row in study.rows} - known)
    if strange:
        raise ValueError(f"runs of conditions that the study does not plan: {', '.join(strange)}")
    said = {each.condition.name: each for rows in study.compared().values() for each in rows}
    return tuple(_summary(c, study.rows, _comparable(c, study), said.get(c.name)) for c in study.conditions)


def _comparable(condition: Condition, study: StudyResult) -> tuple[Reported, ...]:
    """The paper's numbers for a condition: of the same temperature, and of those that this study does not train at."""
    others = {c.temperature for c in study.conditions} - {condition.temperature, None}
    return tuple(r for r in study.study.reported if r.kind == condition.kind and r.temperature not in others)


def _summary(
    condition: Condition, rows: Sequence[Row], reported: tuple[Reported, ...], compared: Compared | None
) -> Summary:
    values = {short: by_seed(rows, condition.name, metric) for short, metric in METRICS.items()}
    against = {short: by_seed(rows, condition.against, metric) for short, metric in METRICS.items()}
    pairs = {short: difference(values[short], against[short]) for short in METRICS}
    return Summary(
        condition,
        values,
        {short: estimate(list(found.values())) for short, found in values.items() if found},
        {short: paired for short, paired in pairs.items() if paired is not None},
        reported,
        compared,
        _mean(rows, condition, "compute"),
        _mean(rows, condition, "seconds"),
    )


def _mean(rows: Sequence[Row], condition: Condition, column: str) -> float | None:
    found = by_seed(rows, condition.name, column)
    return sum(found.values()) / len(found) if found else None


def runs_csv(rows: Sequence[Row]) -> str:
    """The rows as they are, the contract's columns first; a number that is not finite is left empty."""
    extra = dict.fromkeys(name for row in rows for name in row if name not in RUN_COLUMNS)
    return _csv((*RUN_COLUMNS, *extra), rows)


def table_csv(summaries: Sequence[Summary]) -> str:
    """A line a condition: linear top-1 and its difference, then linear top-5, then what its table says."""
    lines = []
    for summary in summaries:
        line: dict[str, object] = {
            "condition": summary.condition.name,
            "method": summary.condition.method,
            "temperature": summary.condition.temperature,
        }
        for metric, prefix in (("top1", ""), ("top5", "top5_")):
            found, paired = summary.estimates.get(metric), summary.differences.get(metric)
            line |= {prefix + name: value for name, value in (asdict(found) if found else {"n": 0}).items()}
            if paired is not None:
                to = paired.estimate
                line |= {f"{prefix}difference": to.mean, f"{prefix}difference_low": to.low, f"{prefix}p": paired.p}
                line[f"{prefix}difference_high"] = to.high
        lines.append(line | _said(summary))
    return _csv(TABLE_COLUMNS, lines)


def _said(summary: Summary) -> dict[str, object]:
    """The columns of `COMPARED`; those of the test are empty for what stands in no table."""
    condition, found = summary.condition, summary.compared
    test = {"paired_p": found.p, "holm_p": found.adjusted, "says": found.word} if found else {}
    settings = ", ".join(f"{name}={value}" for name, value in condition.changes)
    run = {"compute": summary.compute, "seconds": summary.seconds}
    return {"against": condition.against, **test, **run, "settings": settings, "source": condition.source}


def _csv(columns: Sequence[str], rows: Sequence[Row]) -> str:
    written = io.StringIO()
    writer = csv.DictWriter(written, columns, restval="", lineterminator="\n", extrasaction="raise")
    writer.writeheader()
    writer.writerows({name: "" if value is None else value for name, value in strict(row).items()} for row in rows)
    return written.getvalue()


def record(study: StudyResult) -> dict[str, Any]:
    """Everything as one JSON object: the runs, numbers and verdicts. It holds no NaN: what is not finite is null."""
    written: dict[str, Any] = strict(
        {
            "name": study.name,
            "preset": study.preset,
            "host": study.host,
            "arxiv": study.study.arxiv,
            "conditions": [_condition(summary) for summary in tables(study)],
            "verdicts": [_verdict(judged) for judged in study.judged().values()],
            "loss_share": [{"temperature": t, "shares": shares} for t, shares in study.loss_share.items()],
            "failures": study.failures,
            "trials": study.trials,
            "provenance": study.provenance,
            "runs": study.rows,
        }
    )
    return written


def _condition(summary: Summary) -> dict[str, Any]:
    return {
        "name": summary.condition.name,
        **asdict(summary.condition),
        "baseline": summary.condition.against,
        "compared": _compared(summary.compared),
        "compute": summary.compute,
        "seconds": summary.seconds,
        **{metric: asdict(found) for metric, found in summary.estimates.items()},
        "differences": {metric: _paired(found) for metric, found in summary.differences.items()},
        "reported": [asdict(reported) for reported in summary.reported],
    }


def _compared(found: Compared | None) -> dict[str, Any] | None:
    if found is None:
        return None
    return {"p": found.p, "holm_p": found.adjusted, "tests": found.tests, "says": found.word, "why": found.why}


def _verdict(judged: Judged) -> dict[str, Any]:
    return {
        "key": judged.claim.key,
        "claim": judged.claim.text,
        "rule": judged.claim.rule,
        "a": judged.claim.a,
        "b": judged.claim.b,
        "minus": judged.claim.minus,
        "metric": judged.claim.metric,
        "temperature": judged.claim.temperature,
        "verdict": judged.outcome,
        "reason": judged.reason,
        "caution": judged.caution,
        "difference": None if judged.difference is None else _paired(judged.difference),
        "paper": judged.claim.paper,
    }


def _paired(found: Difference) -> dict[str, Any]:
    return {**asdict(found.estimate), "p": found.p, "by_seed": found.by_seed, "left_out": found.left_out}


def strict(value: Any) -> Any:
    """The same value as JSON can hold it everywhere: text keys, lists, and None for NaN and infinities."""
    if isinstance(value, Mapping):
        return {str(key): strict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [strict(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
