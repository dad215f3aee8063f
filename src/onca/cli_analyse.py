"""The command about what a trained space, or any embeddings, holds."""

from __future__ import annotations

import json as text
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from onca.data import ImageSet

if TYPE_CHECKING:  # scipy is loaded when the command runs, so that other commands start without it
    from onca.analyse import Agreement, Analysis, Record, Space

PIXELS = "pixels"
WIDTH = 80
WIDTHS = (6, 12, 11, 13, 10, 9, 8, 8)  # of the table over training
KEPT = "\u00a0"  # a space at which no line ends
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
        what: folder of a run, a file of embeddings (.npy, .npz, .parquet), or
            pixels, which takes --on.
        on: run: another source of images. File: the images that it is of.
        part: of the source.
        images: at most so many, spread over the classes.
        labels: file: a file of labels for it.
        hierarchy: wordnet, levels, or a file of child,parent (None: what there
            is).
        encoder: run: query, or its moving average.
        layer: run: head (where the loss is) or backbone.
        queries: so many, class by class in turn (None: all).
        negatives: so many of what follows them (None: all).
        preset: all pairs, or paper: 2,000 x 2,000 at random.
        bins: of difficulty.
        cuts: percent, where the hardest and the easiest are cut off.
        epochs: run: last, or all: every snapshot too.
        against: folders of other runs on these images: is the same hard there?
        bad: file: rows without a direction, refuse or drop them.
        seed: of samples and resampling.
        out: folder to write to (None: RUN/analysis; else nothing is written).
        json: print all numbers instead of sentences.
    """
    from onca.analyse import Record, write_record

    run = {"on": on, "part": part, "encoder": encoder, "layer": layer, "images": images, "hierarchy": hierarchy}
    chosen = {"queries": queries, "negatives": negatives, "preset": preset, "bins": bins, "cuts": cuts, "seed": seed}
    place = Path(what)
    if what == PIXELS:
        spaces = [_pixels(_images(on, part, images), hierarchy)]
    elif place.is_dir():
        spaces = _embedded(what, epochs=epochs, **run)
    else:
        spaces = [_read(what, labels, hierarchy, _images(on, part, images) if on else None, bad)]
    others = [space for folder in against for space in _embedded(folder, **run)]
    analysis, each = _analysed(spaces, chosen, floor=what != PIXELS)
    record = Record(analysis, each, _compared([*spaces, *others], seed))
    folder = out or (place / "analysis" if place.is_dir() else None)
    path = write_record(record, folder) if folder else None
    found = record.json()
    print(text.dumps(found, allow_nan=False) if json else summary(record))
    if path and not json:
        print(path)
    return found


def summary(record: Record) -> str:
    """What is found, in sentences of 80 columns."""
    from onca.analyse import findings

    analysis = record.analysis
    epoch = "" if analysis.epoch is None else f", epoch {analysis.epoch:g}"
    lines = [
        f"{analysis.feature}{epoch}, on {analysis.data}",
        f"queries: {analysis.queries}; negatives: {analysis.negatives}",
        f"hierarchy: {analysis.hierarchy or 'none'}{_covered(analysis.covered)}",
    ]
    for found in findings(analysis):
        said = ", ".join(word for word in (found.verdict, found.beyond) if word)
        lines += ["", *_wrapped(f"{found.name}{said and f' [{said}]'}: {found.text}")]
        if found.floor:
            lines += _wrapped(f"raw pixels: {found.floor}", "    ")
    if record.epochs:
        lines += ["", *_table(record.epochs)]
    if record.agreements:
        lines += ["", "difficulty of the same pairs in two spaces, rank correlation:"]
        lines += [line for agreement in record.agreements for line in _wrapped(_agreement(agreement), "    ")]
    return "\n".join([*(short for line in lines[:3] for short in _wrapped(line)), *lines[3:]])


def _wrapped(line: str, before: str = "") -> list[str]:
    joined = line.replace(" %", KEPT + "%")
    wrapped = textwrap.wrap(
        joined, WIDTH, initial_indent=before, subsequent_indent=before + "  ", break_on_hyphens=False
    )
    return [short.replace(KEPT, " ") for short in wrapped]


def _table(epochs: Sequence[Analysis]) -> list[str]:
    """Over training, a line an epoch: the hardest 5 % against the rest, and the space."""
    heads = ("epoch", "same class", "LCA depth", "easiest LCA", "std hard", "uniform", "align", "rank")
    lines = ["over training: differences of the hardest (easiest) 5 %, and the space"]
    lines.append("".join(f"{head:>{width}}" for head, width in zip(heads, WIDTHS, strict=True)))
    for one in epochs:
        contrasts = (one.contrast("same_class"), one.contrast("lca_max"), one.contrast("lca_max_other", "easiest"))
        same, depth, easiest = (None if contrast is None else contrast.difference.value for contrast in contrasts)
        values = (
            f"{one.epoch:g}",
            "-" if same is None else f"{100 * same:+.2f} %",
            "-" if depth is None else f"{depth:+.3f}",
            "-" if easiest is None else f"{easiest:+.3f}",
            f"{100 * one.hard_frequency.std:.2f} %",
            f"{one.uniformity:.2f}",
            "-" if one.alignment is None or one.alignment.value is None else f"{one.alignment.value:.3f}",
            f"{one.effective_rank:.1f}",
        )
        lines.append("".join(f"{value:>{width}}" for value, width in zip(values, WIDTHS, strict=True)))
    return lines


def _covered(share: float | None) -> str:
    return "" if share is None or share == 1 else f", which holds {100 * share:.0f} % of the classes"


def _agreement(found: Agreement) -> str:
    names = [("", found.first_epoch), ("", found.second_epoch)]
    if found.first != found.second:
        names = [(f"{found.first}, ", found.first_epoch), (f"{found.second}, ", found.second_epoch)]
    first, second = (name.removesuffix(", ") if epoch is None else f"{name}epoch {epoch:g}" for name, epoch in names)
    rank = found.rank
    said = "undefined" if rank.value is None else f"{rank.value:.3f} ({rank.low:.3f} to {rank.high:.3f})"
    return f"{said}  {first} and {second}"


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
