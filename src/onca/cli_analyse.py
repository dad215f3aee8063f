"""The command about what a trained space, or any embeddings, holds."""

from __future__ import annotations

import json as text
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from onca.data import ImageSet

if TYPE_CHECKING:  # scipy is loaded when the command runs, so that other commands start without it
    from onca.analyse import Agreement, Analysis, FalseNegatives, Space

PIXELS = "pixels"
ASKED = 1000  # queries on which spaces are compared with each other


def analyse(
    what: tyro.conf.Positional[str],
    on: str | None = None,
    part: Literal["test", "validation", "train"] = "test",
    images: int | None = None,
    labels: str | None = None,
    hierarchy: str | None = None,
    encoder: Literal["query", "momentum"] = "query",
    layer: Literal["head", "backbone"] = "head",
    queries: int | None = None,
    negatives: int | None = None,
    preset: Literal["all", "paper"] = "all",
    depth: Literal["max", "min"] = "max",
    bins: int = 20,
    cuts: tuple[float, ...] = (0.1, 1.0, 5.0, 10.0, 50.0),
    epochs: Literal["last", "all"] = "last",
    against: tuple[str, ...] = (),
    bad: Literal["refuse", "drop"] = "refuse",
    seed: int = 0,
    out: str | None = None,
    json: bool = False,
) -> dict[str, Any]:
    """Look into a trained space, or any embeddings.

    Section 4 of 2010.06682 (who is hard, who is easy), beside raw pixels.

    RUN/analysis/analysis.json receives all numbers.

    For example:
      onca analyse runs/3f2a90c417de
      onca analyse runs/3f2a90c417de --epochs all --against runs/77e1b2c8d0f4
      onca analyse vectors.npz --labels labels.txt --hierarchy tree.csv
      onca analyse pixels --on npz:../data/cifar100 --preset paper

    Args:
        what: a run's folder, a file of embeddings (.npy, .npz, .parquet), or pixels (with --on).
        on: run: another source of images. File: the images that it is of.
        part: of the source.
        images: at most so many, spread over the classes.
        labels: file: a file of labels for it.
        hierarchy: wordnet, levels, none, or a file of child,parent (None: what is
            there).
        encoder: run: query, or its moving average.
        layer: run: head (where the loss is) or backbone.
        queries: so many, class by class in turn (None: all).
        negatives: so many of what follows them (None: all).
        preset: all pairs, or paper: 2,000 x 2,000 at random.
        depth: what is printed: depths by longest (max) or by shortest paths to the root.
        bins: of difficulty.
        cuts: percent, where the hardest and the easiest are cut off.
        epochs: run: last, or all: every snapshot too.
        against: folders of other runs on these images: is the same hard there?
        bad: file: rows without a direction, refuse or drop them.
        seed: of samples and resampling.
        out: folder to write to (None: RUN/analysis; else nothing is written).
        json: print all numbers instead of sentences.
    """
    from onca.analyse import Record, summary, write_extremes, write_record

    run = {"on": on, "part": part, "encoder": encoder, "layer": layer, "images": images, "hierarchy": hierarchy}
    chosen = {"queries": queries, "negatives": negatives, "preset": preset, "bins": bins, "cuts": cuts, "seed": seed}
    place = Path(what)
    of_run = {"encoder": encoder != "query", "layer": layer != "head", "epochs": epochs != "last"}
    of_file = {"labels": labels is not None, "bad": bad != "refuse"}
    of_images = {"images": images is not None, "part": part != "test", "against": bool(against)}
    if what == PIXELS:
        _refuse("pixels", of_run | of_file)
        spaces = [_pixels(_images(on, part, images), hierarchy)]
    elif place.is_dir():
        _refuse("a run", of_file)
        spaces = _embedded(what, epochs=epochs, **run)
    else:
        _refuse("a file", of_run)
        _refuse("a file without --on", {} if on else of_images)
        spaces = [_read(what, labels, hierarchy, _images(on, part, images) if on else None, bad)]
    others = [space for folder in against for space in _embedded(folder, **run)]
    analysis, each = _analysed(spaces, chosen, floor=what != PIXELS)
    record = Record(analysis, each, _compared([*spaces, *others], seed), _false_negatives(spaces, seed))
    folder = out or (place / "analysis" if place.is_dir() else None)
    path = write_record(record, folder) if folder else None
    if folder:
        write_extremes(spaces[-1], analysis, folder)
    found = record.json()
    print(text.dumps(found, allow_nan=False) if json else summary(record, depth))
    if path and not json:
        print(path)
    return found


def _refuse(what: str, given: dict[str, bool]) -> None:
    """Says which flags mean nothing here, where they are given."""
    names = [f"--{name}" for name, here in given.items() if here]
    if names:
        raise ValueError(f"{', '.join(names)} mean nothing for {what}: leave them out")


def _analysed(spaces: Sequence[Space], chosen: dict[str, Any], floor: bool) -> tuple[Analysis, tuple[Analysis, ...]]:
    """The analysis of the last space, and in brief that of each where there are several."""
    from onca.analyse import analyse, brief
    from onca.analyse.progress import progress

    with progress("analysing", "queries") as watch:
        last = analyse(spaces[-1], floor=floor, watch=watch, **chosen)
    if len(spaces) == 1:
        return last, ()
    with progress("analysing earlier epochs", "epochs") as watch:
        each = []
        for place, space in enumerate(spaces[:-1]):
            watch(place, len(spaces) - 1)
            each.append(brief(analyse(space, floor=False, **chosen)))
    return last, (*each, brief(last))


def _false_negatives(spaces: Sequence[Space], seed: int) -> tuple[FalseNegatives, ...]:
    from onca.analyse import false_negatives
    from onca.analyse.progress import progress

    found = []
    with progress("looking for false negatives", "spaces") as watch:
        for place, space in enumerate(spaces):
            found.append(false_negatives(space, seed=seed))
            watch(place + 1, len(spaces))
    return tuple(one for one in found if one is not None)


def _compared(spaces: Sequence[Space], seed: int) -> tuple[Agreement, ...]:
    from onca.analyse import agreements
    from onca.analyse.progress import progress

    if len(spaces) < 2:
        return ()
    with progress("comparing", "queries") as watch:
        return agreements(spaces, queries=min(ASKED, *map(len, spaces)), seed=seed, watch=watch)


def _embedded(folder: str, **asked: Any) -> list[Space]:
    from onca.analyse import embed
    from onca.analyse.progress import progress

    with progress("encoding", "images") as watch:
        return embed(folder, watch=watch, **asked)


def _read(
    file: str, labels: str | None, hierarchy: str | None, images: ImageSet | None, bad: Literal["refuse", "drop"]
) -> Space:
    from onca.analyse import read_space

    return read_space(file, labels=labels, hierarchy=hierarchy, images=images, bad=bad)


def _pixels(images: ImageSet, hierarchy: str | None) -> Space:
    from onca.analyse import pixels
    from onca.data.hierarchy import hierarchy_of

    return pixels(images, hierarchy_of(hierarchy, images.names, images=images))


def _images(on: str | None, part: Literal["test", "validation", "train"], most: int | None) -> ImageSet:
    """Images of a source, at their own size."""
    from onca.analyse.embed import some_images

    if on is None:
        raise ValueError("pixels of which images? Give --on, a source of images (`onca data list`)")
    return some_images(on, part, most)
