"""Colours and type of the charts, once for light pages and files, once for dark pages.

Charts name roles (a mark's `style`), a theme says what a role looks like, so one specification serves both. Colours
are those of Okabe and Ito, which stay apart for colour-blind eyes; black and yellow are left out, since one vanishes on
dark and the other on light. A role never rests on colour alone: it has a shape, a place or a word as well.
"""

from __future__ import annotations

from typing import Any

BLUE, SKY, ORANGE, VERMILLION = "#0072B2", "#56B4E9", "#E69F00", "#D55E00"
SEQUENCE = ("#e8e3c9", "#b5d3b0", "#6fb7ad", "#3c8fa5", "#3d5f91", "#4b2a6b")  # easy to hard, lightness falls evenly
FONT = "system-ui, 'DejaVu Sans', 'Liberation Sans', Arial, sans-serif"


def _theme(*, ink: str, soft: str, line: str, first: str, second: str, good: str, bad: str) -> dict[str, Any]:
    text = {"color": ink, "fontSize": 12}
    return {
        "background": "transparent",
        "font": FONT,
        "view": {"stroke": None},
        "point": {"color": first},
        "axis": {
            "labelColor": soft, "labelFontSize": 11, "titleColor": ink, "titleFontWeight": "normal",
            "titleFontSize": 12, "gridColor": line, "domainColor": line, "tickColor": line, "gridOpacity": 0.7,
        },
        "legend": {"labelColor": ink, "titleColor": ink, "titleFontWeight": "normal", "labelFontSize": 12,
                   "orient": "top", "labelLimit": 320, "symbolOpacity": 1},
        "title": {"color": ink, "anchor": "start", "fontSize": 13, "fontWeight": "bold"},
        "range": {"category": [first, second], "ordinal": list(SEQUENCE)},
        "style": {
            "name": {**text, "align": "left", "baseline": "middle"},
            "value": {**text, "align": "right", "baseline": "middle", "fontSize": 11, "color": soft},
            "heading": {**text, "fontWeight": "bold", "fontSize": 13},
            "remark": {**text, "fontSize": 11, "color": soft},
            "legend": {"fontSize": 12, "fontWeight": "bold"},
            "stretch": {"color": first},
            "shown": {**text, "color": good, "fontWeight": "bold"},
            "not-shown": {**text, "fontWeight": "bold"},
            "contradicted": {**text, "color": bad, "fontWeight": "bold"},
            "not-tested-here": {**text, "color": soft},
            "mean": {"color": first, "filled": True, "size": 110, "opacity": 1},
            "interval": {"color": first, "strokeWidth": 2.5, "strokeCap": "round", "opacity": 1},
            "seed": {"color": ink, "filled": False, "strokeWidth": 1.2, "size": 30, "opacity": 0.85},
            "reported": {"color": second, "filled": False, "strokeWidth": 2, "size": 80, "opacity": 1},
            "reference": {"color": soft, "strokeWidth": 1.2, "strokeDash": [4, 3]},
            "band": {"color": soft, "opacity": 0.16},
            "curve": {"color": first, "strokeWidth": 2},
        },
    }  # fmt: skip


LIGHT = _theme(
    ink="#1c1e21", soft="#5a6068", line="#dcdfe3", first=BLUE, second=VERMILLION, good="#00734f", bad="#b34700"
)
DARK = _theme(ink="#eceef0", soft="#a3abb5", line="#353b44", first=SKY, second=ORANGE, good="#3fc79a", bad="#ff9a4d")
# Files stand on any page: they bring their own ground.
FILE = {**LIGHT, "background": "#ffffff", "padding": 16, "font": "DejaVu Sans, Liberation Sans, Arial, sans-serif"}
