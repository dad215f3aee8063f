"""The spaces of a run: its encoder's embeddings of a set of images, at its last or at every snapshot."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from onca.analyse.space import Space

Encoder = Literal["query", "momentum"]
Layer = Literal["head", "backbone"]
Part = Literal["train", "validation", "test"]


def embed(
    folder: str | Path,
    *,
    on: str | None = None,
    part: Part = "test",
    encoder: Encoder = "query",
    layer: Layer = "head",
    images: int | None = None,
    epochs: Literal["last", "all"] = "last",
    hierarchy: str | None = None,
) -> list[Space]:
    """Spaces of the run in `folder`, one an epoch, in the order of epochs.

    Args:
        on: another data source than the run's. part: which of its parts. images: at most so many, spread over classes.
        encoder: the trained one, or its moving average where the host has one.
        layer: head (where the loss is), or backbone (what is kept for other tasks).
        epochs: last: the checkpoint; all: every snapshot (`onca train --snapshots 1`).
        hierarchy: as `onca.data.hierarchy.hierarchy_of` takes it.

    Raises:
        ValueError: no run, no checkpoint, no snapshot, no momentum encoder.
    """
    raise NotImplementedError
