"""The explorer: one self-contained page on which one picks an image and sees whom it is contrasted with.

N images, K entries shown of each image and checkpoint, V views, D dimensions, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from onca.analyse import Space
from onca.analyse.agreement import Watch
from onca.report.explorer.ages import ages, pairs_of, read_record
from onca.report.explorer.document import document
from onca.report.explorer.entries import entries
from onca.report.explorer.export import export
from onca.report.explorer.layout import Layout, layout
from onca.report.explorer.payload import NONE, payload
from onca.report.explorer.plane import Kind, planes
from onca.report.explorer.series import Checkpoint, Series, check, groups_of, seen_in, short
from onca.report.explorer.sheets import Sheets, in_blocks, sheets
from onca.report.explorer.table import pyarrow, write_table
from onca.report.explorer.views import Views

__all__ = ["Views", "explore", "export"]

MOST_BYTES = 25_000_000  # of the page
LONGEST, VIEWED = 64, 32  # pixels of the longer side of a thumbnail, and of a view's


def explore(
    spaces: Sequence[Space],
    *,
    path: str | Path,
    title: str = "Explorer",
    against: Sequence[Space] = (),
    edges: Sequence[float] = (90.0, 95.0),
    duplicates: Tensor | None = None,
    ledger: Path | None = None,
    ledger_index: Tensor | None = None,
    views: Views | None = None,
    names: tuple[str, str] = ("this run", "the other run"),
    map: Kind = "pca",
    table: bool = True,
    watch: Watch | None = None,
) -> Path:
    """Write the page and, beside it, the rows it shows as a table; returns the page's path.

    Every image asks once for each checkpoint; its negatives are all other images, ranked by cosine as a window ranks
    them (a stable descending sort). Shown are the hardest, those around each edge, the median, the easiest, and the
    hardest and easiest of its own class and near-duplicates wherever they stand. The percentile of rank r of n
    negatives is 100 (1 - (r + 1/2) / n), so that `window(low, high)` holds exactly low <= percentile < high.

    Args:
        spaces: one a checkpoint, in order, all of the same images.
        against: the same images in a second run, shown beside the first.
        edges: percentiles drawn into the difficulty, those of a window; none: ().
        duplicates: int64 [I], the group of each image by index, as `onca.data.near_duplicates` gives it.
        ledger: folder of a run with a ledger: ages, as they were recorded up to each checkpoint of `spaces`.
        ledger_index: int64 [I], index of the image in each row of the training set, which is what a ledger calls it;
            None: the row itself.
        views: augmented views of each image: its positives.
        names: of the two runs, on the page and in the table.
        map: how the rows are laid out flat; "umap" needs umap-learn.
        watch: hears how many images have asked, of how many.
        table: write `path` with the suffix .parquet too; needs pyarrow.

    Raises:
        ValueError: no space or spaces of different images, fewer than 4 of them, an index that repeats, edges out of
            range, a page of more than 25 MB, a package that is not installed.
    """
    check(spaces, against, NONE - 1)
    if table:
        pyarrow()
    plan = layout(len(spaces[0]) - 1, edges)
    group = groups_of(spaces[0], duplicates)
    record = None if ledger is None else read_record(Path(ledger), ledger_index)
    flat = planes([space.rows for space in (*spaces, *against)], map)
    seen = seen_in(views, spaces, against)
    checkpoints = []
    for number, (space, plane, rows) in enumerate(zip((*spaces, *against), flat, seen, strict=True)):
        own = record if number < len(spaces) else None
        found = entries(space, plan, group, rows, None if own is None else pairs_of(own, space))
        known = None if own is None else ages(own, space, found)
        checkpoints.append(Checkpoint(space, found, plane, plan, group, known))
        if watch:
            watch((number + 1) * len(space), len(flat) * len(space))
    parts = (checkpoints[: len(spaces)], checkpoints[len(spaces) :])
    series = [Series(name, part) for name, part in zip(names, parts, strict=True) if part]
    place = _write(Path(path), title, series, plan, views)
    if table:
        write_table(series, place.with_suffix(".parquet"))
    return place


def _write(path: Path, title: str, series: Sequence[Series], plan: Layout, views: Views | None) -> Path:
    """Writes the page. Raises ValueError where it would be too large."""
    space = series[0].checkpoints[0].space
    pictures, seen = _sheets(space, views)
    page = document(title, _lead(space), payload(title, series, plan, pictures, seen), pictures, seen).encode()
    if len(page) > MOST_BYTES:
        raise ValueError(
            f"the page would have {len(page) / 1e6:.0f} MB, {MOST_BYTES / 1e6:.0f} MB are the most: take fewer than "
            f"{len(space):,} images, or fewer than {sum(len(one.checkpoints) for one in series)} checkpoints"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(page)
    return path


def _sheets(space: Space, views: Views | None) -> tuple[Sheets | None, Sheets | None]:
    """Thumbnails of the images and of their views, as far as there are any."""
    images = space.images
    pictures = None if images is None else sheets((images.take(rows) for rows in in_blocks(len(space))), LONGEST)
    seen = (
        None if views is None else sheets((views.pixels[rows].flatten(0, 1) for rows in in_blocks(len(space))), VIEWED)
    )
    return pictures, seen


def _lead(space: Space) -> str:
    what = short(space.images.source if space.images is not None else space.source)
    return (
        f"Whom is an image pushed away from? Each of {len(space):,} images of {what} asks all others. Its negatives "
        "are laid out from the hardest to the easiest, with the edges of the window drawn where they fall."
    )
