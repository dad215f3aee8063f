"""How the time of a window grows with queries, keys, dimensions and its width: `python -m benchmarks.growth [--json
FILE]`.

One number changes at a time, the others stay at 256 queries, 65,536 keys, 128 dimensions, hardest 5 %; float32,
forward and backward. Points of a line are measured in turn. The exponent e of time ~ number^e is that of a straight
line through the logarithms of the least times: 1 is in proportion.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from benchmarks import data
from benchmarks.measure import Row, Side, Table, clock, quiet, slope
from benchmarks.table import main
from benchmarks.window import ours

LINES: dict[str, Sequence[float]] = {
    "queries": (32, 64, 128, 256, 512, 1024),
    "keys": (4096, 16_384, 65_536, 262_144),
    "dimensions": (32, 64, 128, 256, 512),
    "percent": (0.1, 1, 5, 20, 50, 100),
}
BASE: dict[str, float] = {"queries": 256, "keys": 65_536, "dimensions": 128, "percent": 5}
ROUNDS, SECONDS = 5, 10.0  # rounds at least; more until so much time has gone, 25 at most
MOST = 25
CHECKED = "That a window gives the right results is checked in `window`."


def side(point: dict[str, float]) -> Side:
    rows = data.triple(int(point["queries"]), int(point["keys"]), int(point["dimensions"]))
    return slope(ours(f"chain(keep(hardest({point['percent']:g})), infonce)"), *rows)


def exponent(values: Sequence[float], times: Sequence[float]) -> float:
    return float(np.polyfit(np.log(values), np.log(times), 1)[0])


def line(name: str, values: Sequence[float], base: dict[str, float]) -> list[Row]:
    sides = [side(base | {name: value}) for value in values]
    times: list[list[float]] = [[] for _ in sides]
    for call in sides:
        call()
    began = time.perf_counter()
    with quiet():
        while len(times[0]) < ROUNDS or (len(times[0]) < MOST and time.perf_counter() - began < SECONDS):
            for call, spent in zip(sides, times, strict=True):
                spent.append(clock(call)[0])
    others = ", ".join(f"{base[other]:,g} {other}" for other in base if other != name)
    group = f"{name}, at {others}"
    rows = [Row(group, f"{value:,g} {name}", ours=tuple(spent)) for value, spent in zip(values, times, strict=True)]
    fitted = exponent(values, [min(spent) for spent in times])
    steps = [
        math.log(min(b) / min(a)) / math.log(y / x)
        for a, b, x, y in zip(times, times[1:], values, values[1:], strict=False)
    ]
    note = "from point to point: " + ", ".join(f"{step:.2f}" for step in steps)
    return [*rows, Row(group, "fitted exponent", fitted, "", note=note, more={"steps": steps})]


def table(lines: dict[str, Sequence[float]] | None = None, base: dict[str, float] | None = None) -> Table:
    """How the time of a window grows."""
    rows = [row for each in (lines or LINES).items() for row in line(*each, base or BASE)]
    return Table("growth", "how the time of a window grows", tuple(rows), CHECKED)


if __name__ == "__main__":
    main(table)
