"""The page of a single training run: its result, its loss curve, its settings."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from onca.report.analysis import analysis_of, analysis_sections
from onca.report.audit import audit_section
from onca.report.charts import trace
from onca.report.figure import Figure, Panel
from onca.report.page import Html, facts, figure, page, section, tag

MOST_POINTS = 1500  # a curve of more is thinned: no screen shows them
EXPLORER = "explorer.html"
RESULTS = {"linear_top1": "linear top-1", "linear_top5": "linear top-5", "knn_top1": "kNN top-1"}


def run_page(folder: Path) -> Path:
    """Write report.html into a run's folder and return its path. ValueError: the folder holds no run."""
    if not (folder / "run.json").is_file():
        raise ValueError(f"{folder} holds no run.json: give the folder of a run (onca train writes it)")
    settings = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    finished = folder / "result.json"
    result = json.loads(finished.read_text(encoding="utf-8")) if finished.is_file() else {}
    metrics = read_metrics(folder / "metrics.jsonl")
    place = folder / "report.html"
    more = seen_sections(folder, folder)
    place.write_text(_page(folder.name, settings, result, metrics, more), encoding="utf-8")
    return place


def seen_sections(folder: Path, page: Path) -> tuple[Html, ...]:
    """What the explorer, the audit and the analyses of a run left in its folder, for a page in the folder `page`."""
    analysis = analysis_of(folder)
    found = () if analysis is None else analysis_sections(analysis, folder / "analysis")
    return (*_explorer(folder, page), *audit_section(folder), *found)


def _explorer(folder: Path, page: Path) -> tuple[Html, ...]:
    if not (folder / EXPLORER).is_file():
        return ()
    place = os.path.relpath(folder / EXPLORER, page)
    link = tag("a", "Open the explorer", href=Path(place).as_posix())
    said = " of this run: pick an image and see its nearest, hardest, window-edge and easiest negatives."
    return (section("The images", tag("p", link, said)),)


def read_metrics(place: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl. A last line that was cut off, as a killed run leaves it, is left out."""
    if not place.is_file():
        return []
    lines = place.read_text(encoding="utf-8").splitlines()
    read: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            read.append(json.loads(line))
        except json.JSONDecodeError as error:
            if number < len(lines):
                raise ValueError(f"{place}, line {number} is not JSON ({error.msg}): the file is damaged") from error
    return read


def _page(
    name: str,
    settings: Mapping[str, Any],
    result: Mapping[str, Any],
    metrics: list[dict[str, Any]],
    more: tuple[Html, ...],
) -> str:
    numbers = [
        tag("article", tag("h3", words), tag("p", f"{result[key]:.2f} %", class_="headline"), class_="card")
        for key, words in RESULTS.items()
        if isinstance(result.get(key), int | float)
    ]
    lead = (
        f"On {result.get('images', '?')} images of the {result.get('split', '?')} part."
        if result
        else "Not finished: there is no result.json yet."
    )
    return page(
        f"Run {name}",
        tag("header", tag("p", f"run {name}", class_="kicker"), tag("h1", str(settings.get("method", name)))),
        section("Result", tag("p", lead), tag("div", *numbers, class_="cards")),
        *_curves(metrics),
        *more,
        section("Settings", facts(settings)),
        *((section("All results", facts(result)),) if result else ()),
    )


def _curves(metrics: list[dict[str, Any]]) -> tuple[Html, ...]:
    logged = [m for m in metrics if isinstance(m.get("step"), int) and isinstance(m.get("loss"), int | float)]
    if not logged:
        return (section("Training", tag("p", "Nothing logged yet.")),)
    thinned = logged[:: -(-len(logged) // MOST_POINTS)]
    last = logged[-1]
    caption = f"{len(logged)} logged up to step {last['step']}; the last loss is {last['loss']:.4f}."
    panels = [Panel(trace([{"step": m["step"], "loss": m["loss"]} for m in thinned], "step", "loss"))]
    speeds = sorted(float(m["images_per_second"]) for m in logged if m.get("images_per_second"))
    if speeds:
        caption += f" Median speed {speeds[len(speeds) // 2]:.0f} images/s."
    return (section("Training", figure(Figure("loss", "Loss", caption, tuple(panels)))),)
