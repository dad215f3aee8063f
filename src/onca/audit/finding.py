"""A finding of the audit: one sentence, its number with an interval, why it matters, and what helps."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["alarm", "note", "fine", "unknown"]

MARKS: dict[Outcome, str] = {"alarm": "ALARM", "note": "note", "fine": "fine", "unknown": "?"}
WIDTH = 80  # columns of `text`


@dataclass(frozen=True)
class Finding:
    """What one check found.

    name        of the check: "self-hits"
    outcome     alarm: a fault, or as good as one; note: worth knowing; fine; unknown: nothing to tell it from
    sentence    what was found, with its number in words
    number      a share 0..1, or what `sentence` says it is; low, high: its 95 % interval, None where there is none
    why         why it matters
    remedy      an onca expression, a call or a flag; empty where nothing needs one
    evidence    how many queries, rows or steps the number rests on, and `unit` says which
    details     further numbers for pages: band or group -> (number, low, high)
    """

    name: str
    outcome: Outcome
    sentence: str
    number: float | None = None
    low: float | None = None
    high: float | None = None
    why: str = ""
    remedy: str = ""
    evidence: int = 0
    unit: str = "queries"
    details: Mapping[str, tuple[float | None, float | None, float | None]] = field(default_factory=dict)


def alarms(findings: Sequence[Finding]) -> list[Finding]:
    """Those that are alarms."""
    return [finding for finding in findings if finding.outcome == "alarm"]


def exit_code(findings: Sequence[Finding]) -> int:
    """1 where a finding is an alarm, else 0: what `onca audit` ends with."""
    return int(bool(alarms(findings)))


def text(findings: Sequence[Finding]) -> str:
    """The findings to read, 80 columns wide: alarms first, with why and remedy; what is fine on a line each."""
    order = sorted(findings, key=lambda finding: list(MARKS).index(finding.outcome))
    lines = []
    for finding in order:
        lines += _wrapped(f"{MARKS[finding.outcome]:<6} {finding.name}: {finding.sentence}", 7)
        if finding.outcome in ("alarm", "note"):
            lines += _wrapped(f"       why: {finding.why}", 12) if finding.why else []
            lines += _wrapped(f"       do:  {finding.remedy}", 12) if finding.remedy else []
    count = len(alarms(findings))
    lines.append(f"{count} alarm{'' if count == 1 else 's'} in {len(findings)} checks")
    return "\n".join(lines)


def _wrapped(line: str, indent: int) -> list[str]:
    return textwrap.wrap(line, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False)


def write_audit(path: str | Path, findings: Sequence[Finding], source: str, seen: Mapping[str, Any]) -> None:
    """Writes audit.json in one step: source (what was looked at, in words), seen (steps, queries), findings."""
    rows = [_known(asdict(finding)) for finding in findings]
    content = {"source": source, "seen": dict(seen), "findings": rows}
    place = Path(path)
    part = place.with_name(place.name + ".part")
    part.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(place)


def _known(value: Any) -> Any:
    """The same, with null for what is no number: JSON has no nan."""
    if isinstance(value, dict):
        return {name: _known(inner) for name, inner in value.items()}
    if isinstance(value, tuple | list):
        return [_known(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_audit(path: str | Path) -> tuple[list[Finding], str, dict[str, Any]]:
    """Findings, source and what was seen, as `write_audit` wrote them.

    Raises:
        ValueError: a file that holds no audit.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        rows = [dict(row) for row in content["findings"]]
        for row in rows:
            row["details"] = {name: tuple(numbers) for name, numbers in row["details"].items()}
        return [Finding(**row) for row in rows], content["source"], content["seen"]
    except (KeyError, TypeError, json.JSONDecodeError) as problem:
        raise ValueError(f"{path} holds no audit of this version: {problem}") from problem
