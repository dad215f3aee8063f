"""`make bench`: every module here that has a `main`, one after the other, each as a table of its rows."""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.table import Table

import benchmarks

Row = Mapping[str, str | float]  # "name", and numbers by unit


def main() -> None:
    console = Console(width=140, highlight=False)
    for module in sorted(found.name for found in pkgutil.iter_modules(benchmarks.__path__)):
        rows = [] if module == "__main__" else importlib.import_module(f"benchmarks.{module}").main()
        if rows:
            busy = f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"
            console.print(_table(f"{module} ({busy})", rows))


def _table(title: str, rows: Sequence[Row]) -> Table:
    units = list(dict.fromkeys(unit for row in rows for unit in row if unit != "name"))
    table = Table("", title=title, title_justify="left")
    for unit in units:
        table.add_column(unit, justify="right")
    for row in rows:
        table.add_row(str(row["name"]), *(_figure(row.get(unit, "")) for unit in units))
    return table


def _figure(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    main()
