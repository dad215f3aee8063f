"""Embeddings of any encoder, from a file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from onca.analyse.space import Space
from onca.data import ImageSet


def read_space(
    path: str | Path,
    *,
    labels: str | Path | None = None,
    hierarchy: str | None = None,
    images: ImageSet | None = None,
    bad: Literal["refuse", "drop"] = "refuse",
) -> Space:
    """A space of the embeddings in a file.

    .npy      [N,D]
    .npz      `embeddings` [N,D], and what there is of `labels` [N], `names` [C], `index` [N], `wnids` [C]
    .parquet  a column `embedding` of lists, and what there is of `label` (numbers or text) and `index`

    Args:
        labels: a file of labels for them: .npy, .npz (`labels`, `names`) or text, a label a line (numbers or names).
        hierarchy: as `onca.data.hierarchy.hierarchy_of` takes it.
        images: the images that they are of, by `index` (else in their order).
        bad: rows without a direction (nan, inf, all zero): "refuse" or "drop" them.

    Raises:
        ValueError: a file that cannot be read so, counts that differ, a row without a direction.
    """
    raise NotImplementedError
