"""The files of a study: runs.csv, table.csv, study.json, figures and report.html, made from its rows alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path

from onca.report import sections
from onca.report.figure import Figure
from onca.report.figures import difficulty, loss_share, removals, temperatures, windows
from onca.report.page import card, figure, page, section, tag
from onca.report.tables import StudyResult, Summary, record, runs_csv, table_csv, tables
from onca.study.papers.paper import Condition, Judged


def write_study(folder: Path, study: StudyResult) -> Path:
    """Write everything into the folder and return the path of its report.html. May be called again as runs come in."""
    summaries, judged = tables(study), study.judged()
    figures = drawn(study, summaries, judged)
    texts = {
        "runs.csv": runs_csv(study.rows),
        "table.csv": table_csv(summaries),
        "study.json": json.dumps(record(study), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "report.html": _page(study, summaries, judged, figures),
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
    names = [field.name for field in fields(Condition)]
    conditions = [{name: written[name] for name in names} for written in read["conditions"]]
    return StudyResult(
        read["name"],
        read["preset"],
        read["host"],
        tuple(Condition(**{**written, "figures": tuple(written["figures"])}) for written in conditions),
        tuple(read["runs"]),
        read["provenance"],
        {share["temperature"]: [tuple(part) for part in share["shares"]] for share in read["loss_share"]},
        read["failures"],
    )


def drawn(study: StudyResult, summaries: Sequence[Summary], judged: Mapping[str, Judged]) -> dict[str, Figure]:
    """The figures that these runs give, by key: a study at one temperature has no Figure 3, for example."""
    figures = (
        difficulty(study.paper, judged),
        windows(summaries),
        temperatures(summaries),
        removals(summaries),
        loss_share(study.loss_share),
    )
    return {found.key: found for found in figures if found is not None}


def _page(
    study: StudyResult, summaries: Sequence[Summary], judged: Mapping[str, Judged], figures: Mapping[str, Figure]
) -> str:
    """report.html: answers first, then what they rest on, then where the numbers come from."""

    def part(key: str, title: str) -> str:
        mine = [s for s in summaries if any(name.startswith(key) for name in s.condition.figures)]
        drawing = figures.get(key.replace(" ", "-"))
        if drawing is None:
            return section(title, tag("p", _missing(mine)), sections.numbers(mine))
        return section(title, figure(drawing), sections.numbers(mine))

    share = figures.get("loss-share")
    return page(
        f"{study.name}: {study.paper.title}",
        sections.header(study),
        section(
            "Answers",
            tag("p", "Differences in points of linear top-1, paired by seed, with 95 % intervals.", class_="note"),
            tag(
                "div",
                *(card(a.question, a.headline, *a.sentences) for a in study.paper.answers(judged)),
                class_="cards",
            ),
            figure(figures["summary"]),
        ),
        section("The paper's claims", sections.verdicts(judged)),
        part("figure 2", "Which difficulties suffice, which are needed? (Figure 2)"),
        part("figure 3", "The hardest 0.1 % and the temperature (Figure 3)"),
        part("table 1", "Do the hardest harm, and is it the same class? (Table 1)"),
        *((section("Why temperature may matter", figure(share)),) if share else ()),
        section("Conditions", sections.conditions(summaries)),
        section("Where these numbers come from", *sections.origin(study)),
    )


def _missing(summaries: Sequence[Summary]) -> str:
    if len({s.condition.temperature for s in summaries}) < 2 and any(s.estimates for s in summaries):
        return "No figure: this preset trains at one temperature."
    return "No figure yet: the runs that it needs have not finished."
