"""The data of the page as JSON: text as it is, numbers as little-endian arrays in base64, `{"u16": "..."}`."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onca.analyse import Space
from onca.report.explorer.ages import Ages
from onca.report.explorer.layout import Layout
from onca.report.explorer.series import Checkpoint, Series, groups, short
from onca.report.explorer.sheets import Sheets

KINDS = {"u8": "<u1", "i8": "<i1", "u16": "<u2", "i32": "<i4", "f32": "<f4", "f64": "<f8"}
NONE = 65535  # in place of -1 where a column is u16


def array(values: Tensor, kind: str) -> dict[str, str]:
    """Any tensor in row-major order. -1 becomes NONE in u16."""
    numbers = values.numpy()
    if kind == "u16":
        numbers = np.where(numbers < 0, NONE, np.minimum(numbers, NONE - 1))
    return {kind: base64.b64encode(np.ascontiguousarray(numbers).astype(KINDS[kind]).tobytes()).decode()}


def payload(title: str, series: Sequence[Series], layout: Layout, pictures: Sheets | None, views: Sheets | None) -> Any:
    """Everything the script needs; page.js reads these names."""
    first = series[0].checkpoints[0]
    return {
        "title": title,
        "images": _images(first),
        "thumbs": _sheet(pictures),
        "viewThumbs": _sheet(views),
        "layout": _layout(layout),
        "runs": [
            {"name": one.name, "checkpoints": [_checkpoint(checkpoint) for checkpoint in one.checkpoints]}
            for one in series
        ],
    }


def _images(first: Checkpoint) -> dict[str, Any]:
    space = first.space
    name, group, names = groups(space)
    return {
        "index": array(space.index, "i32"),
        "label": array(space.label, "i32"),
        "names": list(space.names),
        "group": {"name": name, "of": array(group, "i8"), "names": list(names)},
        "duplicates": None if first.group is None else array(first.group, "i32"),
        "depth": _depth(space),
    }


def _depth(space: Space) -> dict[str, Any] | None:
    if space.hierarchy is None:
        return None
    table = space.hierarchy.depth_max
    return {"source": space.hierarchy.source, "classes": len(table), "table": array(table, "i8")}


def _sheet(sheets: Sheets | None) -> dict[str, Any] | None:
    """Where a picture stands; the pictures themselves are in the style."""
    if sheets is None:
        return None
    return {"height": sheets.height, "width": sheets.width, "rows": list(sheets.rows)}


def _layout(layout: Layout) -> dict[str, Any]:
    return {
        "negatives": layout.negatives,
        "hard": layout.hard,
        "percentile": array(layout.percentile(torch.arange(layout.negatives)), "f64"),
        "edges": [{"percent": edge.percent, "rank": edge.rank} for edge in layout.edges],
        "zones": [{"key": zone.key, "title": zone.title, "ranks": list(zone.ranks)} for zone in layout.zones],
        "curve": list(layout.curve),
    }


def _checkpoint(checkpoint: Checkpoint) -> dict[str, Any]:
    found = checkpoint.entries
    return {
        "source": short(checkpoint.space.source),
        "epoch": checkpoint.space.epoch,
        "width": found.row.shape[1],
        "row": array(found.row, "u16"),
        "rank": array(found.rank, "u16"),
        "similarity": array(found.similarity, "f32"),
        "curve": array(found.curve, "f32"),
        "hits": array(found.hits, "i32"),
        "often": array(checkpoint.often, "u8"),
        "views": array(found.views, "f32"),
        "above": array(found.above, "i32"),
        "points": array(checkpoint.plane.points, "f32"),
        "axes": checkpoint.plane.axes,
        "ages": _ages(checkpoint.ages),
    }


def _ages(ages: Ages | None) -> dict[str, Any] | None:
    if ages is None:
        return None
    return {
        "pair": array(ages.pair, "i32"),
        "image": array(ages.image, "f32"),
        "records": array(ages.records, "i32"),
    }
