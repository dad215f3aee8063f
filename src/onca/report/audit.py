"""What the audit of a run found, as a section of its page."""

from __future__ import annotations

from pathlib import Path

from onca.audit.finding import Finding, Outcome, read_audit
from onca.report.page import Html, badge, join, section, table, tag

FILE = "audit.json"
ORDER: tuple[Outcome, ...] = ("alarm", "note", "unknown", "fine")


def audit_section(folder: Path) -> tuple[Html, ...]:
    """Findings, alarms first; nothing where a run was not audited."""
    place = folder / FILE
    if not place.is_file():
        return ()
    findings, source, seen = read_audit(place)
    counts = {outcome: sum(one.outcome == outcome for one in findings) for outcome in ORDER}
    alarms = f"{counts['alarm']} alarm{'' if counts['alarm'] == 1 else 's'}"
    looked = ", ".join(f"{value:,} {name}" for name, value in seen.items() if isinstance(value, int))
    lead = f"{alarms} and {counts['note']} notes in {len(findings)} checks ({source}{'; ' if looked else ''}{looked})."
    rows = [_row(one) for one in sorted(findings, key=lambda one: ORDER.index(one.outcome))]
    head = ("Check", "Outcome", "What was found", "Why it matters, and what helps")
    caption = "Intervals are of 95 %, over the unit that each finding names."
    return (section("Who were the negatives?", tag("p", lead), table(head, rows, caption=caption, stacked=True)),)


def _row(found: Finding) -> tuple[Html | str, ...]:
    rests = f"{found.evidence:,} {found.unit}" if found.evidence else ""
    said = join(found.sentence, *((tag("span", rests, class_="soft below"),) if rests else ()))
    if found.outcome not in ("alarm", "note"):
        return found.name, badge(found.outcome), said, "–"
    helps = (tag("code", found.remedy, class_="line"),) if found.remedy else ()
    return found.name, badge(found.outcome), said, join(found.why, *helps)
