"""The command that writes the explorer's page."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from onca.data import near_duplicates
from onca.train import Run, load_data, load_run, load_snapshot, plain, snapshots
from onca.train.assemble import recipe

if TYPE_CHECKING:  # scipy is loaded when the command runs, so that other commands start without it
    from torch import Tensor

    from onca.analyse import Space
    from onca.report.explorer import Views

MOST, EACH = 8, 5  # checkpoints of a run on a page, alone and of each of two, spread over its epochs


def explore(
    what: tyro.conf.Positional[Path],
    against: Path | None = None,
    on: str | None = None,
    images: int = 2000,
    edges: tuple[float, ...] = (90.0, 95.0),
    labels: Path | None = None,
    hierarchy: str | None = None,
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
      onca explore vectors.npz --on npz:../data/cifar100

    Args:
        what: folder of a run (`onca train --snapshots 5` shows it over
            training), or a file of embeddings (.npy, .npz, .parquet).
        against: a second one, shown beside the first.
        on: run: another source of images. File: the images that it is of.
        images: at most so many, of the test part.
        edges: of a window, in percent, drawn into the difficulty.
        labels: file: a file of labels for it.
        hierarchy: wordnet, levels, or a file of child,parent (None: what there
            is).
        ledger: run: show ages from its ledger; the images are then those that
            trained.
        map: pca, or umap (pip install umap-learn).
        export: a folder that receives files for embedding-atlas and FiftyOne.
    """
    from onca.analyse.progress import progress
    from onca.report import explorer

    if missing := [place for place in (what, against) if place and not place.exists()]:
        raise ValueError(f"{missing[0]}: there is neither a run nor a file of embeddings of this name")
    if what.is_dir():
        found = _runs(what, against, on, images, hierarchy, ledger)
    else:
        found = _files(what, against, on, images, labels, hierarchy)
    last = found["spaces"][-1]
    groups = None if last.images is None else near_duplicates(last.images)
    table = find_spec("pyarrow") is not None
    with progress("ranking", "images") as watch:
        page = explorer.explore(**found, edges=edges, duplicates=groups, map=map, table=table, watch=watch)
    print(page)
    if not table:
        print('its rows as a table need pyarrow: pip install "onca[analysis]"')
    if export is not None:
        print(*explorer.export(last, export, duplicates=groups), sep="\n")
    return page


def _runs(
    run: Path, against: Path | None, on: str | None, images: int, hierarchy: str | None, ledger: bool
) -> dict[str, Any]:
    """What the page of a run is made of, and of a second one beside it."""
    settings, other = load_run(run), load_run(against or run)
    if on is None and plain(settings) != plain(other):
        on = settings.data  # whole, for both: each alone would take its own part of it
    asked = {"on": on, "part": "train" if ledger else "test", "images": images, "hierarchy": hierarchy}
    spaces = _spaces(run, EACH if against else MOST, **asked)
    others = _spaces(against, EACH, **asked) if against else []
    return {
        "spaces": spaces,
        "against": others,
        "path": run / "explorer.html",
        "title": f"{settings.method} on {(on or settings.data).rsplit('/', 1)[-1]}",
        "names": _names(settings, other),
        "views": _views(settings, run, spaces, against, others),
        "ledger": run if ledger else None,
        "ledger_index": load_data(settings).train.index if ledger else None,
    }


def _files(
    file: Path, against: Path | None, on: str | None, images: int, labels: Path | None, hierarchy: str | None
) -> dict[str, Any]:
    """What the page of a file of embeddings is made of, and of a second one beside it."""
    from onca.analyse import read_space
    from onca.analyse.embed import some_images

    seen = some_images(on, "test") if on else None
    read = [read_space(place, labels=labels, hierarchy=hierarchy, images=seen) for place in (file, against) if place]
    spaces = [_some(space, images) for space in read]
    return {
        "spaces": spaces[:1],
        "against": spaces[1:],
        "path": file.with_suffix(".explorer.html"),
        "title": file.name,
        "names": (file.name, "" if against is None else against.name),
    }


def _some(space: Space, most: int) -> Space:
    """At most so many images of a space, class by class in turn."""
    from onca.analyse.pairs import by_turns

    rows = by_turns(space.label)[:most].sort().values
    images = None if space.images is None else space.images.subset(rows)
    index, label = space.index[rows], space.label[rows]
    return replace(space, rows=space.rows[rows], index=index, label=label, images=images, views=None)


def _spaces(folder: Path, most: int, **asked: Any) -> list[Space]:
    """At most so many spaces of a run, the first and the last among them."""
    from onca.analyse import embed
    from onca.analyse.progress import progress

    with progress("encoding", "images") as watch:
        found = embed(folder, epochs="all" if snapshots(folder) else "last", watch=watch, **asked)
    if len(found) <= most:
        return found
    return [found[round(place * (len(found) - 1) / (most - 1))] for place in range(most)]


def _views(settings: Run, run: Path, spaces: list[Space], against: Path | None, others: list[Space]) -> Views | None:
    """Two views of each image as the run would draw them, where its encoder makes one embedding of an image."""
    from onca.report.explorer import Views
    from onca.report.explorer.views import draw_views

    images = spaces[0].images
    if images is None or settings.host in ("looc", "cmc"):
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
