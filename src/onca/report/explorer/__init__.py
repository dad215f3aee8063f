"""The explorer: one self-contained page on which one picks an image and sees whom it is contrasted with.

N images, K entries shown of each image and checkpoint, V views, D dimensions, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from torch import Tensor

from onca.analyse import Space
from onca.report.explorer.views import Views

__all__ = ["Views", "explore", "export"]


def explore(
    spaces: Sequence[Space],
    *,
    path: str | Path,
    title: str = "Explorer",
    against: Sequence[Space] = (),
    edges: Sequence[float] = (90.0, 95.0),
    duplicates: Tensor | None = None,
    ledger: Path | None = None,
    views: Views | None = None,
    map: Literal["pca", "umap"] = "pca",
    table: bool = True,
) -> Path:
    """Write the page and, beside it, the rows it shows as a table; returns the page's path.

    Every image asks once for each checkpoint; its negatives are all other images, ranked by cosine as a window ranks
    them (a stable descending sort). Shown are the hardest, those around each edge, the median, the easiest, and the
    hardest and easiest of its own class and near-duplicates wherever they stand. The percentile of rank r of n negatives is
    100 (1 - (r + 1/2) / n), so that `window(low, high)` holds exactly low <= percentile < high.

    Args:
        spaces: one a checkpoint, in order, all of the same images.
        against: the same images in a second run, shown beside the first.
        edges: percentiles drawn into the difficulty, those of a window; none: ().
        duplicates: int64 [I], the group of each image by index, as `onca.data.near_duplicates` gives it.
        ledger: a run's ledger folder: the age of a negative is that of its last record with the same query.
        views: augmented views of each image: its positives.
        map: how the rows are laid out flat; "umap" needs umap-learn.
        table: write `path` with the suffix .parquet too; needs pyarrow.

    Raises:
        ValueError: no space or spaces of different images, fewer than 4 of them, an index that repeats, edges out of
            range, a page of more than 25 MB, a package that is not installed.
    """
    raise NotImplementedError


def export(space: Space, folder: str | Path, *, duplicates: Tensor | None = None, k: int = 20) -> tuple[Path, Path]:
    """Write one space for two explorers of others, each with the images; returns both paths.

    `FOLDER/atlas.parquet` is for embedding-atlas: a row an image with x, y, the picture, labels and facts, and a column
    `neighbors` of {ids, distances}: the rows of its k hardest negatives and 1 - cosine.
    `FOLDER/fiftyone/` is a FiftyOneImageClassificationDataset: `data/<index>.png` and `labels.json` with attributes.

    Raises:
        ValueError: a space without images, k out of range, pyarrow is not installed.
    """
    raise NotImplementedError
