"""Charts as Vega-Lite specifications without colours or width: a theme and the page (or a file) bring those.

Each takes plain values and knows no study. A mark's `style` is its role; theme.py says what a role looks like.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import altair as alt

from onca.study.judge import signed
from onca.study.statistics import Estimate

ROW = 46  # pixels a row of a forest
ABOVE, BELOW = -12, 7  # where in a row, from its middle, name and numbers stand, and where the interval lies
SYMBOLS = {"shown": "✓", "not shown": "?", "contradicted": "✗", "fine": "✓", "note": "!", "unknown": "?", "alarm": "✗"}

Chart = Any  # altair's single and layered charts share no public type
Number = Callable[[float], str]
Limits = tuple[float, float] | None


@dataclass(frozen=True)
class Line:
    """A row of a forest: an estimate (None: no run), its values by seed, and what a paper reports: (value, source)."""

    name: str
    estimate: Estimate | None
    values: Mapping[int, float] = field(default_factory=dict)
    reported: tuple[tuple[float, str], ...] = ()
    detail: str = ""


@dataclass(frozen=True)
class Point:
    """A place on a line of `curves`: an estimate at x, and its values by seed."""

    series: str
    x: float
    estimate: Estimate
    values: Mapping[int, float]


@dataclass(frozen=True)
class Stretch:
    """A stretch of an axis: where it begins and ends, its name, and what was found: (words, outcome, numbers)."""

    start: str
    end: str
    name: str
    found: tuple[tuple[str, str, str], ...]


def plain(value: float) -> str:
    return f"{value:.2f}"


def interval(found: Estimate, number: Number) -> str:
    """The 95 % interval as text, or why there is none."""
    if found.low is None or found.high is None:
        return "(one seed)"
    return f"[{number(found.low)}, {number(found.high)}]"


def extent(lines: Sequence[Line], *also: float) -> Limits:
    """The range in which all lies that a forest draws, with a little air: forests to compare get the same."""
    found = [line.estimate for line in lines if line.estimate is not None]
    ends = [v for e in found for v in (e.mean, e.low, e.high) if v is not None]
    drawn = [*ends, *also, *(v for line in lines for v in (*line.values.values(), *(v for v, _ in line.reported)))]
    if not drawn:
        return None
    air = 0.04 * (max(drawn) - min(drawn)) or 1.0
    return min(drawn) - air, max(drawn) + air


def forest(
    lines: Sequence[Line], axis: str, limits: Limits, *, differences: bool = False, band: Estimate | None = None
) -> Chart:
    """One row per line: its name and numbers, below them the mean, the 95 % interval, every seed, the paper's values.

    `differences` marks 0 and writes signs; `band` shades the interval of an estimate to compare with.
    """
    number: Number = signed if differences else plain
    order = [line.name for line in lines]
    y = alt.Y("name:N", sort=order, axis=None, scale=alt.Scale(domain=order, paddingInner=0, paddingOuter=0))
    scale = alt.Scale(zero=False, nice=False, domain=list(limits) if limits else alt.Undefined)
    x = alt.X("value:Q", title=axis, scale=scale, axis=alt.Axis(tickCount=6))
    seeds = [{"name": line.name, "value": v, "seed": seed} for line in lines for seed, v in line.values.items()]
    papers = [{"name": line.name, "value": v, "source": source} for line in lines for v, source in line.reported]
    row = _data([_row(line, number) for line in lines]).encode(y=y)
    drawn = row.transform_filter("isValid(datum.value)")
    room = alt.ExprRef("width - 150")
    layers = [
        row.mark_text(style="name", yOffset=ABOVE, limit=room).encode(x=alt.value(0), text="name:N"),
        row.mark_text(style="value", yOffset=ABOVE).encode(x=alt.value("width"), text="text:N"),
        drawn.mark_rule(style="interval", yOffset=BELOW).encode(
            x=alt.X("low:Q", title=axis, scale=scale), x2="high:Q"),
        _data(seeds).mark_point(style="seed", yOffset=BELOW).encode(x=x, y=y, tooltip=["name:N", "seed:N", "value:Q"]),
        drawn.mark_point(style="mean", yOffset=BELOW).encode(x=x, tooltip=["name:N", "text:N", "n:Q", "method:N"]),
        _data(papers).mark_point(style="reported", shape="diamond", yOffset=BELOW).encode(
            x=x, y=y, tooltip=["name:N", "value:Q", "source:N"]),
    ]  # fmt: skip
    if band is not None and band.low is not None:
        layers.insert(0, _data([{"value": band.low, "to": band.high}]).mark_rect(style="band").encode(x=x, x2="to:Q"))
    if differences:
        layers.insert(0, _data([{"value": 0}]).mark_rule(style="reference").encode(x=x))
    return alt.layer(*layers).properties(height=ROW * len(lines))


def _row(line: Line, number: Number) -> dict[str, object]:
    found = line.estimate
    if found is None:
        return {"name": line.name, "text": "no run", "method": line.detail}
    text = f"{number(found.mean)} {interval(found, number)}"
    numbers = {"value": found.mean, "low": found.low, "high": found.high, "n": found.n}
    return {"name": line.name, "text": text, "method": line.detail, **numbers}


def curves(points: Sequence[Point], x_title: str, y_title: str) -> Chart:
    """Lines over a logarithmic x, at most two, with 95 % intervals and every seed, the lines side by side."""
    series = list(dict.fromkeys(point.series for point in points))
    places = sorted({point.x for point in points})
    scale = alt.Scale(type="log", domain=[places[0] / 1.1, places[-1] * 1.1], nice=False)
    x = alt.X("x:Q", title=x_title, axis=alt.Axis(values=places, grid=False), scale=scale)
    y = alt.Y("value:Q", title=y_title, scale=alt.Scale(zero=False, padding=12))
    color = alt.Color("series:N", sort=series, legend=None)
    shape = alt.Shape("series:N", sort=series, legend=None, scale=alt.Scale(range=["circle", "square"]))
    legend = [
        {"series": name, "text": f"{'●■'[i]} {name}", "y": 18 * (i - len(series))} for i, name in enumerate(series)
    ]
    layers = [
        _data(legend).mark_text(style="legend", align="left").encode(
            x=alt.value(0), y=alt.Y("y:Q", scale=None, axis=None), text="text:N", color=color)
    ]  # fmt: skip
    for order, name in enumerate(series):
        mine = [point for point in points if point.series == name]
        seeds = [{"x": p.x, "series": name, "seed": s, "value": v} for p in mine for s, v in p.values.items()]
        mean = _data([_row(Line(name, p.estimate), plain) | {"x": p.x, "series": name} for p in mine])
        aside = 8 * order - 4 * (len(series) - 1)
        layers += [
            mean.mark_line(strokeWidth=1.5, opacity=0.7, xOffset=aside).encode(x=x, y=y, color=color),
            mean.mark_rule(strokeWidth=2.5, xOffset=aside).encode(x=x, y="low:Q", y2="high:Q", color=color),
            _data(seeds).mark_point(size=26, strokeWidth=1.2, filled=False, opacity=1, xOffset=aside).encode(
                x=x, y=y, color=color, tooltip=["series:N", "x:Q", "seed:N", "value:Q"]),
            mean.mark_point(size=90, filled=True, opacity=1, xOffset=aside).encode(
                x=x, y=y, color=color, shape=shape, tooltip=["series:N", "x:Q", "text:N", "n:Q"]),
        ]  # fmt: skip
    return alt.layer(*layers).properties(height=240)


def shares(parts: Sequence[tuple[str, str, float]], row_title: str, part_title: str, x_title: str) -> Chart:
    """Stacked bars that each fill 100 %: (row, part, share 0..1), the parts in order from easy to hard."""
    rows, names = list(dict.fromkeys(row for row, _, _ in parts)), list(dict.fromkeys(part for _, part, _ in parts))
    values = [{"row": row, "part": part, "share": 100 * s, "order": names.index(part)} for row, part, s in parts]
    full = alt.Scale(domain=[0, 100])
    chart = _data(values).mark_bar(height=22).encode(
        y=alt.Y("row:N", title=row_title, sort=rows),
        x=alt.X("share:Q", title=x_title, stack="zero", scale=full, axis=alt.Axis(tickCount=6)),
        color=alt.Color("part:O", sort=names, legend=alt.Legend(columns=3, title=part_title)),
        order="order:Q",
        tooltip=["row:N", "part:N", alt.Tooltip("share:Q", format=".1f", title="percent")],
    )  # fmt: skip
    return chart.properties(height=34 * len(rows))


def stretches(parts: Sequence[Stretch], axis: str) -> Chart:
    """The one-look summary: stretches of an axis side by side, not to scale, the later the stronger in colour."""
    count = len(parts)
    bottom = 60 + 58 * max(len(part.found) for part in parts)
    boxes = [{"x": i / count, "to": (i + 1) / count, "name": part.name, "order": i} for i, part in enumerate(parts)]
    said = [
        {"x": i / count, "y": 52 + 58 * k, "text": f"{SYMBOLS.get(o, '–')} {words}", "outcome": o, "numbers": numbers}
        for i, part in enumerate(parts)
        for k, (words, o, numbers) in enumerate(part.found)
    ]
    x = alt.X("x:Q", axis=None, scale=alt.Scale(domain=[0, 1], nice=False))
    y = alt.Y("y:Q", axis=None, scale=None)
    strength = alt.Opacity("order:O", legend=None, scale=alt.Scale(range=[0.10 + 0.14 * i for i in range(count)]))
    box = _data(boxes)

    def remark(place: float, text: str, height: int, align: str = "left") -> Chart:
        written = _data([{"x": place, "y": height, "text": text}]).mark_text(style="remark", align=align)
        return written.encode(x=x, y=y, text="text:N")

    layers = [
        box.mark_rect(style="stretch").encode(x=x, x2="to:Q", y=alt.value(0), y2=alt.value(bottom), opacity=strength),
        box.mark_text(style="heading", align="left", xOffset=8).encode(x=x, y=alt.value(22), text="name:N"),
        _data(said).mark_text(style="remark", align="left", xOffset=8, yOffset=18, lineBreak="\n").encode(
            x=x, y=y, text="numbers:N"),
        remark(0, parts[0].start, bottom + 12),
        *(remark(i / count, part.start, bottom + 12, "center") for i, part in enumerate(parts) if i),
        remark(1, parts[-1].end, bottom + 12, "right"),
        remark(0, axis, bottom + 32),
    ]  # fmt: skip
    for outcome in dict.fromkeys(str(entry["outcome"]) for entry in said):
        mine = _data([entry for entry in said if entry["outcome"] == outcome])
        word = mine.mark_text(style=outcome.replace(" ", "-"), align="left", xOffset=8)
        layers.append(word.encode(x=x, y=y, text="text:N"))
    return alt.layer(*layers).properties(height=bottom + 40)


def trace(values: Sequence[Mapping[str, float]], x: str, y: str) -> Chart:
    """A plain curve, such as a loss over steps: rows with the keys x and y."""
    chart = _data(values).mark_line(style="curve", point=len(values) < 30).encode(
        x=alt.X(f"{x}:Q", scale=alt.Scale(nice=False), axis=alt.Axis(tickCount=8)),
        y=alt.Y(f"{y}:Q", scale=alt.Scale(zero=False)),
        tooltip=[f"{x}:Q", alt.Tooltip(f"{y}:Q", format=".4f")],
    )  # fmt: skip
    return chart.properties(height=240)


def _data(values: Sequence[Mapping[str, object]]) -> Any:
    return alt.Chart({"values": [dict(value) for value in values]})
