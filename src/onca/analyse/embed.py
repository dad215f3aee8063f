"""The spaces of a run: what its encoder makes of a set of images, at its last or at every snapshot."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import normalize

from onca import views
from onca.analyse.agreement import Watch
from onca.analyse.pairs import by_turns
from onca.analyse.space import Space, space
from onca.data import ImageSet, load
from onca.data.hierarchy import hierarchy_of
from onca.evaluate import features
from onca.train import assemble, load_run, load_snapshot, snapshot_facts, snapshots
from onca.train.checkpoint import load_checkpoint
from onca.train.network import Network
from onca.train.run import Run

VIEWED = 2000  # images whose views are drawn, for alignment
BATCH = 500
CHUNK = 2048  # images between two words on progress

Which = Literal["query", "momentum"]
Layer = Literal["head", "backbone"]
Part = Literal["train", "validation", "test"]


def embed(
    folder: str | Path,
    *,
    on: str | None = None,
    part: Part = "test",
    encoder: Which = "query",
    layer: Layer = "head",
    images: int | None = None,
    epochs: Literal["last", "all"] = "last",
    hierarchy: str | None = None,
    watch: Watch | None = None,
) -> list[Space]:
    """Spaces of the run in `folder`, one an epoch, in the order of epochs; two views of up to 2,000 images come along.

    Where an encoder has several embeddings (LooC's spaces, CMC's two halves), each is brought to unit length and they
    stand side by side: a dot product is the mean of theirs.

    Args:
        on: another data source than the run's. part: which of its parts.
        images: at most so many, class by class in turn.
        encoder: the trained one, or its moving average where the host has one.
        layer: head (where the loss is), or backbone (what is kept for other tasks).
        epochs: last: the checkpoint; all: every snapshot (`onca train --snapshots 1`).
        hierarchy: as `onca.data.hierarchy.hierarchy_of` takes it.
        watch: hears how many images are encoded, of how many.

    Raises:
        ValueError: no run, no checkpoint, no snapshot, no momentum encoder, no such hierarchy.
    """
    place = Path(folder)
    run = load_run(place)
    held = _held(run, place, encoder, epochs)
    chosen = images_of(run, on, part, held[0][1], images)
    depths = hierarchy_of(hierarchy, chosen.names, images=chosen)
    spaces = []
    for number, (epoch, size, asked) in enumerate(held):
        network = load_snapshot(place, asked, encoder)
        spaces.append(
            space(
                encode(network, run, layer, chosen, _after(watch, number, len(held))),
                chosen.label,
                chosen.names,
                index=chosen.index,
                source=f"{encoder} encoder, {layer}, run {place.name}",
                epoch=epoch,
                images=chosen,
                hierarchy=depths,
                views=two_views(network, run, layer, chosen, size),
            )
        )
    return spaces


def images_of(run: Run, on: str | None, part: Part, size: int, most: int | None) -> ImageSet:
    """The images of one part of the run's data, or of another source, at the run's size."""
    more: dict[str, Any] = {"size": size, "bad": run.bad}
    if on is None:
        more |= {"images": run.images, "classes": run.classes}
    return some_images(on or run.data, part, most, **more)


def some_images(source: str, part: Part, most: int | None = None, **more: Any) -> ImageSet:
    """One part of a source, at most so many of its images, class by class in turn; `more`: as `load` takes it."""
    if part != "train":
        more["images"] = 1  # of the training images, which nobody looks at; the other parts do not depend on it
    found: ImageSet = getattr(load(source, **more), part)
    if most is None or most >= len(found):
        return found
    return found.subset(by_turns(found.label)[:most].sort().values)


def encode(network: Network, run: Run, layer: Layer, images: ImageSet, watch: Watch | None = None) -> Tensor:
    """Rows [N,F] of whole images."""
    mean, std = network.mean.flatten().tolist(), network.std.flatten().tolist()
    found = []
    for part in torch.split(torch.arange(len(images)), CHUNK):
        some = images.subset(part)
        found.append(features(network.encoder, some, mean, std, layer=layer, bf16=network.dtype == torch.bfloat16))
        if watch:
            watch(int(part[-1]) + 1, len(images))
    return _parts(torch.cat(found).float().cpu(), run, layer)


@torch.no_grad()
def two_views(network: Network, run: Run, layer: Layer, images: ImageSet, size: int) -> tuple[Tensor, Tensor]:
    """Unit rows [M,F] of two random views, as the run draws them, of the first images class by class in turn."""
    recipe, draw = assemble.recipe(run, size), torch.Generator().manual_seed(run.seed)
    see = network if layer == "head" else network.features
    found: tuple[list[Tensor], list[Tensor]] = [], []
    for rows in torch.split(by_turns(images.label)[:VIEWED], BATCH):
        pixels = images.take(rows)
        height, width = pixels.shape[-2:]
        for rows_of_view in found:
            view = views.apply(views.draw(recipe, len(rows), height, width, draw), pixels)
            rows_of_view.append(_parts(see(view.to(network.mean.device)).float().cpu(), run, layer))
    first, second = (normalize(torch.cat(rows).double(), dim=1).float() for rows in found)
    return first, second


def _after(watch: Watch | None, number: int, count: int) -> Watch | None:
    """What hears of the images of one space of several."""
    return watch and (lambda done, images: watch(number * images + done, count * images))


def _held(
    run: Run, folder: Path, encoder: Which, epochs: Literal["last", "all"]
) -> list[tuple[float, int, int | None]]:
    """Epoch, pixels of an image's side, and what `load_snapshot` is asked for, of each space."""
    if epochs == "last":
        found = load_checkpoint(folder / "checkpoint", torch.device("cpu"))
        if found is None:
            raise ValueError(f"{folder} holds no checkpoint yet: train first ({run.command})")
        return [(found[1]["epoch"], found[1]["size"], None)]
    kept = snapshots(folder)
    if not kept:
        raise ValueError(f"{folder} has no snapshots: train with --snapshots 1, or leave --epochs all out")
    return [(float(epoch), snapshot_facts(folder, epoch)["size"], epoch) for epoch in kept]


def _parts(rows: Tensor, run: Run, layer: Layer) -> Tensor:
    """Each embedding of several that stand side by side at unit length; backbones as they are."""
    if layer == "backbone" or rows.shape[1] == run.dim:
        return rows
    return normalize(rows.view(len(rows), -1, run.dim), dim=2).flatten(1)
