"""The file itself: markup, style, sheets, data and script, allowed by their hashes and nothing else."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Any

from onca.report.explorer.sheets import COLUMNS, Sheets
from onca.report.page import Html, join, tag

SCRIPTS = ("data", "state", "pictures", "picker", "curve", "negatives", "plane", "save", "main")
"""The parts of the page's one script, in their order: explorer/NAME.js."""

FLAGS = (
    ("same_class", "=", "same class", "The negative has the query's own label"),
    ("near_duplicate", "≈", "near-duplicate", "The same photograph, as far as outlines and brightness tell"),
    ("anti_correlated", "−", "anti-correlated", "Its similarity is below zero"),
    ("consistently_hard", "▲", "consistently hard", "Among the hardest 5 % far more often than chance"),
)

ORDERS = (("class", "by class"), ("hard", "most often hard first"), ("easy", "least often hard first"))
RECORDED = ("ledger", "recorded in the ledger first")


def document(title: str, lead: str, data: Any, pictures: Sheets | None, views: Sheets | None) -> str:
    """The whole page. Nothing is loaded, and only this style and this script may act."""
    style = join(_text("report", "page.css"), _text("report/explorer", "explorer.css"))
    style = Html(style + _sheet_rules("t", pictures) + _sheet_rules("v", views))
    script = Html(
        '"use strict";\n(() => {\n' + "\n".join(_text("report/explorer", f"{name}.js") for name in SCRIPTS) + "})();\n"
    )
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    written = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    inside = Html(written.replace("<", "\\u003c"))
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", style),
    )
    body = join(
        tag("main", _header(title, lead), _controls(), _panels(data), _help()),
        Html(f'<script type="application/json" id="data">{inside}</script>'),
        tag("script", script),
    )
    return f'<!doctype html>\n<html lang="en">\n<head>{head}</head>\n<body class="explorer">{body}</body>\n</html>\n'


def _header(title: str, lead: str) -> Html:
    return tag("header", tag("p", "explorer", class_="kicker"), tag("h1", title), tag("p", lead))


def _controls() -> Html:
    """Search and filters; what is below the line of sight stays within reach."""
    search = tag(
        "div",
        tag("label", "Find an image ( / )", for_="search"),
        tag(
            "input",
            id="search",
            type="search",
            placeholder="class or index",
            autocomplete="off",
            spellcheck="false",
        ),
        class_="search",
    )
    chips = [
        tag(
            "button",
            tag("span", sign, class_="sign", aria_hidden="true"),
            f" {words} ",
            tag("span", "", class_="count"),
            type="button",
            class_="chip",
            data_flag=flag,
            aria_pressed="false",
            title=meaning,
        )
        for flag, sign, words, meaning in FLAGS
    ]
    filters = tag(
        "div", tag("span", "Show only", class_="soft"), *chips, class_="filters", role="group", aria_label="Filters"
    )
    save = tag("button", "Save CSV", type="button", id="save", class_="plain")
    return tag("div", search, filters, save, class_="controls")


def _panels(data: Any) -> Html:
    """On the left what one picks from, on the right the query and, for each run, its negatives."""
    recorded = any(checkpoint["ages"] for run in data["runs"] for checkpoint in run["checkpoints"])
    choices = (*ORDERS, RECORDED) if recorded else ORDERS
    orders = [tag("option", words, value=order) for order, words in choices]
    picker = tag(
        "section",
        tag("h2", "Images ", tag("span", "", id="found", class_="soft")),
        tag("label", "Order ", tag("select", *orders, id="order"), class_="order"),
        tag("div", "", id="picker", role="listbox", aria_label="Images"),
        tag("button", "Show more", type="button", id="more", class_="plain"),
        class_="panel",
    )
    sides = [_side(number, run, len(data["runs"])) for number, run in enumerate(data["runs"])]
    plane = [_plane(number, run, len(data["runs"])) for number, run in enumerate(data["runs"])]
    legend = tag("div", "", id="legend", role="group", aria_label="Groups on the map")
    maps = tag("section", tag("h2", "Map"), *plane, legend, class_="panel")
    query = tag("section", "", id="query", class_="panel", aria_live="polite", aria_label="The query")
    right = tag("div", query, tag("div", *sides, class_="sides"), class_="right")
    return tag("div", tag("div", picker, maps, class_="left"), right, class_="columns")


def _side(number: int, run: Any, runs: int) -> Html:
    last = len(run["checkpoints"]) - 1
    alone = {"hidden": ""} if last == 0 else {}
    slider = tag(
        "input",
        id=f"slider{number}",
        type="range",
        min="0",
        max=str(last),
        value=str(last),
        step="1",
        aria_label=f"Checkpoint of {run['name']}",
    )
    checkpoint = tag(
        "div",
        tag("label", "Checkpoint", for_=f"slider{number}", **alone),
        tag("div", slider, tag("div", *_epochs(run), class_="ticks", aria_hidden="true"), class_="track", **alone),
        tag("output", "", for_=f"slider{number}"),
        class_="slider",
    )
    heading = (tag("h2", run["name"], class_="run"),) if runs > 1 else ()
    return tag(
        "section",
        *heading,
        checkpoint,
        tag("p", "", class_="hits note"),
        tag("div", "", class_="curve"),
        tag("div", "", class_="zones"),
        class_="panel side",
        data_run=str(number),
        aria_label=f"Negatives, {run['name']}",
    )


def _epochs(run: Any) -> list[Html]:
    """What stands below the slider: the epoch of each checkpoint, or its number."""
    epochs = [checkpoint["epoch"] for checkpoint in run["checkpoints"]]
    return [tag("span", f"{number if epoch is None else epoch:g}") for number, epoch in enumerate(epochs, start=1)]


def _plane(number: int, run: Any, runs: int) -> Html:
    name = (tag("h3", run["name"]),) if runs > 1 else ()
    canvas = tag(
        "canvas", "", id=f"plane{number}", tabindex="0", role="img", aria_label=f"Map of the images, {run['name']}"
    )
    return tag("div", *name, canvas, tag("p", "", class_="note axes"), class_="plane")


def _help() -> Html:
    keys = (
        ("/", "search"),
        ("← → ↑ ↓", "move among images or negatives"),
        ("Enter", "make the chosen negative the query"),
        (", .", "earlier, later checkpoint"),
        ("Esc", "back to the query"),
    )
    rows = join(*(join(tag("dt", tag("kbd", key)), tag("dd", words)) for key, words in keys))
    return tag("details", tag("summary", "Keys"), tag("dl", rows, class_="facts"), class_="keys")


def _sheet_rules(letter: str, sheets: Sheets | None) -> str:
    """A class for each sheet; a picture's place on it is set by the script."""
    if sheets is None:
        return ""
    return "".join(
        f".{letter}{number}{{background-image:url({data});background-size:{COLUMNS * 100}% {rows * 100}%}}\n"
        for number, (data, rows) in enumerate(zip(sheets.data, sheets.rows, strict=True))
    )


def _text(package: str, name: str) -> Html:
    return Html((resources.files(f"onca.{package.replace('/', '.')}") / name).read_text(encoding="utf-8"))


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
