"""The command that writes the explorer's page."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from onca.data import ImageSet, near_duplicates
from onca.train import Run, load_data, load_run, load_snapshot, plain, snapshots
from onca.train.assemble import recipe

if TYPE_CHECKING:  # scipy is loaded when the command runs, so that other commands start without it
    from torch import Tensor

    from onca.analyse import Space
    from onca.report.explorer import Views

MOST, EACH = 8, 5  # checkpoints of a run on a page, alone and of each of two, spread over its epochs


def explore(
    run: tyro.conf.Positional[Path],
    against: Path | None = None,
    on: str | None = None,
    images: int = 2000,
    edges: tuple[float, ...] = (90.0, 95.0),
    ledger: bool = False,
    map: Literal["pca", "umap"] = "pca",
    export: Path | None = None,
) -> Path:
    """Write a page to see whom each image is contrasted with.

    RUN/explorer.html opens from disk; explorer.parquet holds its rows.

    For example:
      onca explore runs/3f2a90c417de
      onca explore runs/3f2a90c417de --against runs/8b1e0d55a2c6
      onca explore runs/3f2a90c417de --ledger --edges 95 99
      onca explore runs/3f2a90c417de --images 500 --export atlas

    Args:
        run: folder of a run; with `onca train --snapshots 5` one sees it over training.
        against: a second run, shown beside the first.
        on: another data source than the run's.
        images: at most so many, of the test part.
        edges: of a window, in percent, drawn into the difficulty.
        ledger: show ages from the run's ledger; the images are then those that trained.
        map: pca, or umap (pip install umap-learn).
        export: a folder that receives files for embedding-atlas and FiftyOne.
    """
    from onca.analyse.progress import progress
    from onca.report import explorer

    settings, other = load_run(run), load_run(against or run)
    if on is None and plain(settings) != plain(other):
        on = settings.data  # whole, for both: each alone would take its own part of it
    part: Literal["train", "test"] = "train" if ledger else "test"
    spaces = _spaces(run, on, part, images, EACH if against else MOST)
    others = _spaces(against, on, part, images, EACH) if against else []
    shown = spaces[0].images
    assert shown is not None  # a run's spaces are of image sets
    groups = near_duplicates(shown)
    table = find_spec("pyarrow") is not None
    with progress("ranking", "images") as watch:
        page = explorer.explore(
            spaces,
            path=run / "explorer.html",
            title=f"{settings.method} on {(on or settings.data).rsplit('/', 1)[-1]}",
            against=others,
            edges=edges,
            duplicates=groups,
            ledger=run if ledger else None,
            ledger_index=load_data(settings).train.index if ledger else None,
            views=_views(settings, shown, run, spaces, against, others),
            names=_names(settings, other),
            map=map,
            table=table,
            watch=watch,
        )
    print(page)
    if not table:
        print('explorer.parquet, the same rows as a table, needs pyarrow: pip install "onca[analysis]"')
    if export is not None:
        print(*explorer.export(spaces[-1], export, duplicates=groups), sep="\n")
    return page


def _spaces(folder: Path, on: str | None, part: Literal["train", "test"], images: int, most: int) -> list[Space]:
    """At most so many spaces of a run, the first and the last among them."""
    from onca.analyse import embed
    from onca.analyse.progress import progress

    with progress("encoding", "images") as watch:
        asked: Literal["all", "last"] = "all" if snapshots(folder) else "last"
        found = embed(folder, on=on, part=part, images=images, epochs=asked, watch=watch)
    if len(found) <= most:
        return found
    return [found[round(place * (len(found) - 1) / (most - 1))] for place in range(most)]


def _views(
    settings: Run, images: ImageSet, run: Path, spaces: list[Space], against: Path | None, others: list[Space]
) -> Views | None:
    """Two views of each image as the run would draw them, where its encoder makes one embedding of an image."""
    from onca.report.explorer import Views
    from onca.report.explorer.views import draw_views

    if settings.host in ("looc", "cmc"):
        return None
    pixels = draw_views(images, recipe(settings, min(images.shape)))
    return Views(pixels, _rows(pixels, run, spaces), _rows(pixels, against, others) if against else ())


def _rows(pixels: Tensor, folder: Path, spaces: list[Space]) -> tuple[Tensor, ...]:
    """Where the views lie in each of a run's spaces."""
    from onca.report.explorer.views import rows_of

    kept = bool(snapshots(folder))
    return rows_of(pixels, [load_snapshot(folder, int(space.epoch or 0) if kept else None) for space in spaces])


def _names(first: Run, second: Run) -> tuple[str, str]:
    """What tells two runs apart: their methods, else their names."""
    if first.method != second.method:
        return first.method, second.method
    return f"{first.method}, {first.name}", f"{second.method}, {second.name}"
