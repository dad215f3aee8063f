"""Spaces for explorers of others: embedding-atlas and FiftyOne."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from onca.analyse import Space


def export(space: Space, folder: str | Path, *, duplicates: Tensor | None = None, k: int = 20) -> tuple[Path, Path]:
    """Write one space for two explorers of others, each with the images; returns both paths.

    `FOLDER/atlas.parquet` is for embedding-atlas: a row an image with x, y, the picture, labels and facts, and a column
    `neighbors` of {ids, distances}: the rows of its k hardest negatives and 1 - cosine.
    `FOLDER/fiftyone/` is a FiftyOneImageClassificationDataset: `data/<index>.png` and `labels.json` with attributes.

    Raises:
        ValueError: a space without images, k out of range, pyarrow is not installed.
    """
    raise NotImplementedError
