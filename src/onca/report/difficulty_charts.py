"""Charts along difficulty, of the analyses of a space. As in charts.py: roles and plain values, no colours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt

HEIGHT = 240
MARKS = "●■"  # of the first and the second line

Chart = Any  # altair's single and layered charts share no public type
Values = Sequence[float | None]


@dataclass(frozen=True)
class Course:
    """A line: its name and its values by x, with low and high where they are known. A second line is dashed."""

    name: str
    x: Sequence[float]
    values: Values
    low: Values | None = None
    high: Values | None = None


def courses(
    lines: Sequence[Course], x_title: str, y_title: str, *, ends: tuple[float, float] | None = None, whole: bool = False
) -> Chart:
    """One or two lines, the first with a band for its interval. ends: of x. whole: whole numbers along x, one tick
    each."""
    names = [line.name for line in lines]
    # Vega's expressions and an ordinal scale agree only where the domain is said.
    color = alt.Color("series:N", scale=alt.Scale(domain=names), legend=None)
    ticks = alt.Axis(values=list(lines[0].x), format="d", grid=False) if whole else alt.Axis(tickCount=6, grid=False)
    domain = list(ends) if ends else alt.Undefined
    x = alt.X("x:Q", title=x_title, axis=ticks, scale=alt.Scale(nice=False, domain=domain, padding=8 if whole else 0))
    y_scale = alt.Scale(zero=False, padding=8)
    layers = [_legend(names, color)] if len(lines) > 1 else []
    for place, line in enumerate(lines):
        rows = _rows(line)
        data = _data(rows)
        if line.low is not None:
            layers.append(
                data.mark_area(opacity=0.22).encode(
                    x=x, y=alt.Y("low:Q", title=y_title, scale=y_scale), y2="high:Q", color=color)
            )  # fmt: skip
        tooltip = ["series:N", alt.Tooltip("x:Q", format=".4~g"), alt.Tooltip("value:Q", format=".4~g")]
        if line.low is not None:
            tooltip += [alt.Tooltip(f"{end}:Q", format=".4~g") for end in ("low", "high")]
        encoded = {"x": x, "y": alt.Y("value:Q", title=y_title, scale=y_scale), "color": color, "tooltip": tooltip}
        layers.append(data.mark_line(strokeWidth=2, strokeDash=[5, 3] if place else [1, 0]).encode(**encoded))
        if len(rows) <= 30:
            shape = "square" if place else "circle"
            layers.append(data.mark_point(size=34, filled=True, opacity=1, shape=shape).encode(**encoded))
    return alt.layer(*layers).properties(height=HEIGHT)


def bars(edges: Sequence[float], share: Values, expected: Values | None, x_title: str, y_title: str) -> Chart:
    """A histogram [K] between edges [K+1] in percent, and as a line of steps what is expected."""
    rows = [
        {"from": low, "to": high, "share": 100 * (value or 0), "expected": 100 * (chance or 0)}
        for low, high, value, chance in zip(edges, edges[1:], share, expected or share, strict=False)
    ]
    x = alt.X("from:Q", title=x_title, axis=alt.Axis(tickCount=8, grid=False), scale=alt.Scale(nice=False))
    tooltip = [alt.Tooltip(f"{name}:Q", format=".3~g") for name in ("from", "to", "share")]
    layers = [
        _data(rows).mark_bar(style="curve", opacity=0.75, strokeWidth=0).encode(
            x=x, x2="to:Q", y=alt.Y("share:Q", title=y_title), y2=alt.datum(0), tooltip=tooltip)
    ]  # fmt: skip
    if expected is not None:
        names = ["seen", "if every query's negatives were shuffled"]
        color = alt.Color("series:N", scale=alt.Scale(domain=names), legend=None)
        steps = [{"x": row["from"], "value": row["expected"], "series": names[1]} for row in rows]
        line = _data(steps).mark_line(interpolate="step-after", strokeWidth=2, strokeDash=[5, 3])
        layers += [line.encode(x="x:Q", y="value:Q", color=color), _legend(names, color)]
    return alt.layer(*layers).properties(height=HEIGHT)


def _legend(names: Sequence[str], color: Any) -> Chart:
    """Names in the colour of their lines, above the chart."""
    rows = [
        {"series": name, "text": f"{MARKS[place]} {name}", "y": 18 * (place - len(names))}
        for place, name in enumerate(names)
    ]
    return _data(rows).mark_text(style="legend", align="left").encode(
        x=alt.value(0), y=alt.Y("y:Q", scale=None, axis=None), text="text:N", color=color)  # fmt: skip


def _rows(line: Course) -> list[dict[str, object]]:
    ends = line.low or [None] * len(line.x), line.high or [None] * len(line.x)
    return [
        {"series": line.name, "x": x, "value": value, "low": low, "high": high}
        for x, value, low, high in zip(line.x, line.values, *ends, strict=True)
        if value is not None
    ]


def _data(values: Sequence[dict[str, Any]]) -> Any:
    return alt.Chart({"values": list(values)})
