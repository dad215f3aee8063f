"""A figure: charts one below the other with a caption, for a page or as files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from onca.report.theme import FILE

WIDTH = 600  # pixels, in a file; a page draws at its own width


@dataclass(frozen=True)
class Panel:
    """One chart (altair) of a figure, and the heading above it."""

    chart: Any
    title: str = ""

    def specification(self) -> dict[str, Any]:
        """Its Vega-Lite specification, without the configuration and the schema's address that altair adds."""
        written: dict[str, Any] = self.chart.to_dict()
        return {key: value for key, value in written.items() if key not in ("config", "$schema")}


@dataclass(frozen=True)
class Figure:
    """Panels one below the other. `key` names its files and its place in the page."""

    key: str
    title: str
    caption: str
    panels: tuple[Panel, ...]

    def save(self, folder: Path) -> None:
        """Write `<key>.svg` and `<key>.png` (twice the size), on white, so that they stand on any page."""
        import vl_convert

        drawn = [p.specification() | {"width": WIDTH} | ({"title": p.title} if p.title else {}) for p in self.panels]
        title = {"text": self.title, "fontSize": 15, "offset": 14}
        # Altair puts a chart's values at its top under a name; where charts are joined, they belong to the top of all.
        values = {name: rows for panel in drawn for name, rows in panel.pop("datasets", {}).items()}
        specification = {"title": title, "vconcat": drawn, "datasets": values, "spacing": 28, "config": FILE}
        svg = vl_convert.vegalite_to_svg(specification)
        (folder / f"{self.key}.svg").write_text(svg, encoding="utf-8")
        (folder / f"{self.key}.png").write_bytes(vl_convert.svg_to_png(svg, scale=2))
