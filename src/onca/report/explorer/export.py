"""Spaces for explorers of others: embedding-atlas and FiftyOne. N images, k neighbours."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onca.analyse import Space
from onca.data import ImageSet
from onca.neighbours import neighbours
from onca.report.explorer.entries import entries, often_hard
from onca.report.explorer.layout import layout
from onca.report.explorer.plane import pca
from onca.report.explorer.series import groups
from onca.report.explorer.sheets import in_blocks, picture_of
from onca.report.explorer.table import pyarrow

NEIGHBOURS = 20


def export(
    space: Space, folder: str | Path, *, duplicates: Tensor | None = None, k: int = NEIGHBOURS
) -> tuple[Path, Path]:
    """Write one space for two explorers of others, each with the images; returns both paths.

    `FOLDER/atlas.parquet` is for embedding-atlas: a row an image with x, y, the picture, labels and facts, and a column
    `neighbors` of {ids, distances}: the rows of its k hardest negatives and 1 - cosine.
    `FOLDER/fiftyone/` is a FiftyOneImageClassificationDataset: `data/<index>.png` and `labels.json` with attributes.

    duplicates: int64 [I], the group of each image by index.

    Raises:
        ValueError: a space without images, k out of range, pyarrow is not installed.
    """
    if space.images is None:
        raise ValueError(f"{space.source} has no images: an export shows them, so embed an image set")
    if not 1 <= k < len(space):
        raise ValueError(f"k={k}: an image of {len(space)} has 1 to {len(space) - 1} neighbours")
    arrow, parquet = pyarrow()
    place = Path(folder)
    (place / "fiftyone" / "data").mkdir(parents=True, exist_ok=True)
    columns, pictures = _facts(space, duplicates), _pictures(space.images)
    score, row = neighbours(space.rows, space.rows, k, exclude=torch.arange(len(space)))
    near = [
        {"ids": ids, "distances": distances}
        for ids, distances in zip(row.tolist(), (1 - score.double()).tolist(), strict=True)
    ]
    images = [{"bytes": data, "path": _name(at)} for data, at in zip(pictures, columns["index"], strict=True)]
    atlas = place / "atlas.parquet"
    parquet.write_table(arrow.table({**columns, "image": images, "neighbors": near}), atlas, compression="zstd")
    for data, at in zip(pictures, columns["index"], strict=True):
        (place / "fiftyone" / "data" / _name(at)).write_bytes(data)
    labels = {"classes": list(space.names), "labels": _labels(space, columns)}
    (place / "fiftyone" / "labels.json").write_text(json.dumps(labels, ensure_ascii=False), encoding="utf-8")
    return atlas, place / "fiftyone"


def _facts(space: Space, duplicates: Tensor | None) -> dict[str, list[Any]]:
    """What is said of each image, a list a column."""
    plan = layout(len(space) - 1, ())
    hits = entries(space, plan).hits
    _, group, names = groups(space)
    points = pca(space.rows).points
    return {
        "index": space.index.tolist(),
        "x": points[:, 0].tolist(),
        "y": points[:, 1].tolist(),
        "class": [space.names[label] if label >= 0 else None for label in space.label.tolist()],
        "group": [names[label] if label >= 0 else None for label in group.tolist()],
        "hard_for": hits.tolist(),
        "times_chance": (hits / max(plan.hard, 1)).tolist(),
        "consistently_hard": often_hard(hits, plan).tolist(),
        "duplicates": [-1] * len(space) if duplicates is None else duplicates[space.index].tolist(),
    }


def _labels(space: Space, columns: dict[str, list[Any]]) -> dict[str, Any]:
    """For each picture its class as a number, and the columns as attributes; null where there is no label."""
    found: dict[str, Any] = {}
    for place, (index, label) in enumerate(zip(space.index.tolist(), space.label.tolist(), strict=True)):
        said = {name: column[place] for name, column in columns.items() if name != "class"}
        known = {name: value for name, value in said.items() if value is not None and not _nan(value)}
        found[Path(_name(index)).stem] = {"label": label, "attributes": known} if label >= 0 else None
    return found


def _nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _pictures(images: ImageSet) -> list[bytes]:
    """Each image as a PNG."""
    found = []
    for rows in in_blocks(len(images)):
        for pixels in images.take(rows):
            file = io.BytesIO()
            picture_of(pixels).save(file, "PNG")
            found.append(file.getvalue())
    return found


def _name(index: int) -> str:
    return f"{index:06d}.png"
