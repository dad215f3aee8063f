"""The files of a study: runs.csv, table.csv, study.json, figures and report.html, made from its rows alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from onca.report import cai2020, comparison, sections
from onca.report.figure import Figure
from onca.report.page import Html, page, section, tag
from onca.report.run import seen_sections
from onca.report.tables import StudyResult, Summary, record, runs_csv, table_csv, tables
from onca.study.plan import Condition

LAYOUTS = {"cai2020": cai2020}
"""Reports with figures of their own; every other study has those of its tables. A layout has `figures` and `body`."""


def write_study(folder: Path, study: StudyResult) -> Path:
    """Write everything into the folder and return the path of its report.html. May be called again as runs come in."""
    summaries, judged = tables(study), study.judged()
    layout = LAYOUTS.get(study.name, comparison)
    figures: dict[str, Figure] = layout.figures(study, summaries, judged)
    texts = {
        "runs.csv": runs_csv(study.rows),
        "table.csv": table_csv(summaries),
        "study.json": json.dumps(record(study), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "report.html": _page(
            study, summaries, (*layout.body(study, summaries, judged, figures), *_inside(study, folder))
        ),
    }
    pictures = folder / "figures"
    pictures.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    for drawing in figures.values():
        drawing.save(pictures)
    return folder / "report.html"


def read_study(folder: Path) -> StudyResult:
    """The study that `write_study` put there, from its study.json alone."""
    place = folder / "study.json"
    if not place.is_file():
        raise ValueError(f"{folder} holds no study.json: give the folder of a study (onca study writes it)")
    read = json.loads(place.read_text(encoding="utf-8"))
    return StudyResult(
        read["name"],
        read["preset"],
        read["host"],
        tuple(Condition.read(written) for written in read["conditions"]),
        tuple(read["runs"]),
        read["provenance"],
        {share["temperature"]: [tuple(part) for part in share["shares"]] for share in read["loss_share"]},
        read["failures"],
        tuple(read.get("trials", ())),
    )


def _inside(study: StudyResult, folder: Path) -> tuple[Html, ...]:
    """The first run from within, where it was looked into."""
    if not study.rows or "run" not in study.rows[0]:
        return ()
    row = study.rows[0]
    found = seen_sections(folder.parent / str(row["run"]), folder)
    if not found:
        return ()
    lead = f"What follows looks into one of these runs: {row['condition']}, seed {row['seed']} ({row['run']})."
    return (section("One run from within", tag("p", lead)), *found)


def _page(study: StudyResult, summaries: Sequence[Summary], body: Sequence[str]) -> str:
    """report.html: what the layout says, then the conditions, then where the numbers come from."""
    return page(
        f"{study.name}: {study.study.title}",
        sections.header(study),
        *body,
        section("Conditions", sections.conditions(summaries)),
        section("Where these numbers come from", *sections.origin(study)),
    )
