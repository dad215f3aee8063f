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

from onca.study.papers import find
from onca.study.papers.paper import Condition, Judged, Paper, Reported, Row, by_seed, judge
from onca.study.statistics import Difference, Estimate, difference, estimate

METRICS = {"top1": "linear_top1", "top5": "linear_top5", "knn": "knn_top1"}
RUN_COLUMNS = (
    *("condition", "method", "temperature", "seed"),
    *("linear_top1", "linear_top5", "knn_top1", "split", "images", "seconds"),
)
NUMBERS = ("n", "mean", "sd", "low", "high", "difference", "difference_low", "difference_high")
TABLE_COLUMNS = ("condition", *NUMBERS, "p", *(f"top5_{name}" for name in (*NUMBERS, "p")), "method", "temperature")


@dataclass(frozen=True)
class StudyResult:
    """A study as far as it got. `conditions`: those planned, in order. `rows`: one mapping a finished run.

    provenance: whatever says where the numbers come from (data, encoder, device, versions, command ...), by name.
    loss_share: temperature -> (percentile from, to, share of the summed exponentials 0..1), from a baseline run.
    failures: what did not finish -> why, in words.
    """

    name: str
    preset: str
    host: str
    conditions: tuple[Condition, ...]
    rows: tuple[Row, ...] = ()
    provenance: Mapping[str, object] = field(default_factory=dict)
    loss_share: Mapping[float, Sequence[tuple[float, float, float]]] = field(default_factory=dict)
    failures: Mapping[str, str] = field(default_factory=dict)

    @property
    def paper(self) -> Paper:
        return find(self.name)

    def judged(self) -> dict[str, Judged]:
        return judge(self.paper.claims(self.preset, self.host), self.rows)


@dataclass(frozen=True)
class Summary:
    """A condition in numbers, by metric (top1, top5, knn); what has no finished run, or no baseline, is absent.

    `baseline` is the name of plain InfoNCE at the same temperature, which `differences` are taken to.
    """

    condition: Condition
    baseline: str
    values: Mapping[str, Mapping[int, float]]
    estimates: Mapping[str, Estimate]
    differences: Mapping[str, Difference]
    reported: tuple[Reported, ...]


def tables(study: StudyResult) -> tuple[Summary, ...]:
    """One `Summary` a planned condition, in order, whether or not it has runs."""
    known = {condition.name for condition in study.conditions}
    strange = sorted({str(row["condition"]) for row in study.rows} - known)
    if strange:
        raise ValueError(f"runs of conditions that the study does not plan: {', '.join(strange)}")
    baselines = {c.temperature: c.name for c in study.conditions if c.method == "infonce"}
    return tuple(
        _summary(c, baselines.get(c.temperature, ""), study.rows, _comparable(c, study)) for c in study.conditions
    )


def _comparable(condition: Condition, study: StudyResult) -> tuple[Reported, ...]:
    """The paper's numbers for a condition: of the same temperature, and of those that this study does not train at."""
    others = {c.temperature for c in study.conditions} - {condition.temperature, None}
    return tuple(r for r in study.paper.reported if r.kind == condition.kind and r.temperature not in others)


def _summary(condition: Condition, baseline: str, rows: Sequence[Row], reported: tuple[Reported, ...]) -> Summary:
    values = {short: by_seed(rows, condition.name, metric) for short, metric in METRICS.items()}
    against = {short: by_seed(rows, baseline, metric) for short, metric in METRICS.items()}
    pairs = {s: difference(values[s], against[s]) for s in METRICS} if condition.name != baseline else {}
    return Summary(
        condition,
        baseline,
        values,
        {short: estimate(list(found.values())) for short, found in values.items() if found},
        {short: paired for short, paired in pairs.items() if paired is not None},
        reported,
    )


def runs_csv(rows: Sequence[Row]) -> str:
    """The rows as they are, the contract's columns first; a number that is not finite is left empty."""
    extra = dict.fromkeys(name for row in rows for name in row if name not in RUN_COLUMNS)
    return _csv((*RUN_COLUMNS, *extra), rows)


def table_csv(summaries: Sequence[Summary]) -> str:
    """A line a condition: linear top-1, its difference to the baseline of the same temperature, then linear top-5."""
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
        lines.append(line)
    return _csv(TABLE_COLUMNS, lines)


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
            "arxiv": study.paper.arxiv,
            "conditions": [_condition(summary) for summary in tables(study)],
            "verdicts": [_verdict(judged) for judged in study.judged().values()],
            "loss_share": [{"temperature": t, "shares": shares} for t, shares in study.loss_share.items()],
            "failures": study.failures,
            "provenance": study.provenance,
            "runs": study.rows,
        }
    )
    return written


def _condition(summary: Summary) -> dict[str, Any]:
    return {
        "name": summary.condition.name,
        **asdict(summary.condition),
        "baseline": summary.baseline,
        **{metric: asdict(found) for metric, found in summary.estimates.items()},
        "differences": {metric: _paired(found) for metric, found in summary.differences.items()},
        "reported": [asdict(reported) for reported in summary.reported],
    }


def _verdict(judged: Judged) -> dict[str, Any]:
    return {
        "key": judged.claim.key,
        "claim": judged.claim.text,
        "rule": judged.claim.rule,
        "a": judged.claim.a,
        "b": judged.claim.b,
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
