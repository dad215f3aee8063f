"""A table on paper (100 columns), as JSON, and as the main program of its module."""

from __future__ import annotations

import argparse
import json
import statistics
import textwrap
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import machine
from benchmarks.measure import SLACK, Row, Table, Target

WIDTH = 100
NAME = 36


def main(make: Callable[[], Table]) -> None:
    """`python -m benchmarks.NAME [--json FILE]`: measures, prints, and exits with 1 when a row fails."""
    parser = argparse.ArgumentParser(description=make.__doc__)
    parser.add_argument("--json", type=Path, help="writes everything raw to this file")
    file = parser.parse_args().json
    torch.set_num_threads(1)
    about = machine.environment() | {"load before": machine.load()}
    table = make()
    about |= {"load after": machine.load()}
    print("\n".join(lines(table, about)), flush=True)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(as_json(table, about), indent=1) + "\n", encoding="utf-8")
    raise SystemExit(int(any(row.fails for row in table.rows)))


def lines(table: Table, about: dict[str, Any]) -> list[str]:
    """The table as it is printed."""
    head = f"{'':{NAME}}{'theirs, ms':>14}{'ours, ms':>15}"
    second = _line("", ("least", "median", "least", "median"), "figure", "target")
    found = [f"== {table.name}: {table.title}", *_about(about), "", head, second]
    group = None
    for row in table.rows:
        if row.group != group:
            group = row.group
            found.append(group)
        found += _row(row)
    return [*found, *_wrapped(table.checked, ""), ""]


def as_json(table: Table, about: dict[str, Any]) -> dict[str, Any]:
    """Everything raw; seconds in the order in which they were taken."""
    rows = []
    for row in table.rows:
        record: dict[str, Any] = {"group": row.group, "name": row.name, "found": row.found, "unit": row.unit}
        if row.target:
            record["target"] = {"value": row.target.value, "at": "most" if row.target.most else "least"}
        record |= {"fails": row.fails, "state": row.state, "note": row.note}
        record |= {
            "ours": row.ours,
            "theirs": row.theirs,
            "threads": row.threads,
            "differences": row.differences,
        } | row.more
        rows.append(record)
    return {"table": table.name, "title": table.title, "checked": table.checked, "environment": about, "rows": rows}


def verdict(target: Target, found: float) -> str:
    """The target, and whether a figure reaches it."""
    missed = target.missed(found)
    word = "met" if not missed else f"{'missed' if missed <= SLACK else 'MISSED'} by {100 * missed:.0f} %"
    return f"{bound(target)}: {word}"


def bound(target: Target) -> str:
    return f"{'≤' if target.most else '≥'} {target.value:g}"


def _row(row: Row) -> Iterable[str]:
    figure = "" if row.found is None else f"{number(row.found)} {row.unit}"
    target = "" if row.target is None else bound(row.target) if row.found is None else verdict(row.target, row.found)
    name, *more = textwrap.wrap(row.name, NAME - 2)
    yield _line(name, _times(row), figure, target)
    yield from (f"    {line}" for line in more)
    if row.note:
        yield from _wrapped(row.note, "    ")


def _line(name: str, times: Sequence[str], figure: str, target: str) -> str:
    cells = "".join(f"{cell:>{width}}" for cell, width in zip(times, (7, 7, 8, 7), strict=True))
    return f"  {name:{NAME - 2}}{cells}{figure:>9}  {target}".rstrip()


def _times(row: Row) -> list[str]:
    sides: Sequence[Sequence[float]] = (row.theirs, row.ours)
    return [number(1e3 * of(side)) if side else "" for side in sides for of in (min, statistics.median)]


def number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:#.3g}".rstrip(".")


def _about(about: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items() if version)
    load = f"load {about['load before']:.1f} before and {about['load after']:.1f} after"
    where = f"{about['processor']} ({' '.join(about['flags'])}), {about['cores']} cores"
    return _wrapped(f"{where}; threads: {about['threads']}; {load}; engine: {about['engine']}; {versions}", "   ")


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent=indent, subsequent_indent=indent)
