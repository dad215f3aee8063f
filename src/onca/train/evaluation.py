"""What a trained encoder's features are worth: kNN and a linear probe, frozen weights, clean images."""

from __future__ import annotations

import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Literal

import torch

from onca.data import ImageSet, Splits, load
from onca.evaluate import assess
from onca.method import as_method
from onca.part import nearest
from onca.train import assemble
from onca.train.checkpoint import load_checkpoint
from onca.train.folder import load_run
from onca.train.network import Network, device
from onca.train.run import Run

NEIGHBOURS = 200  # that vote in kNN, fewer where there are fewer

ACCURACIES = ("linear_top1", "linear_top5", "knn_top1")  # percent

Part = Literal["test", "validation"]
Layer = Literal["backbone", "head", "spaces"]


def evaluate(
    folder: str | Path,
    on: str | None = None,
    level: str | None = None,
    split: Part = "test",
    data: Splits | None = None,
    layer: Layer = "backbone",
) -> dict[str, Any]:
    """Accuracy of the run in `folder`, in percent: linear_top1, linear_top5, knn_top1, and what they were measured on.

    Features are those of the query encoder, in evaluation mode. The probe is fitted on, and neighbours are
    taken from, the training part; `split` is what is classified. Test accuracy is for reporting: choose on validation.

    Args:
        on: another data source (its own training part and labels); None is the run's.
        level: another level of the labels' hierarchy, by name. data: the data where it is loaded already.
        layer: backbone; head (the embedding); spaces (the first layer of each head of a LooC run: LooC++).

    Raises:
        ValueError: no run or no checkpoint there, no labels, no such level.
    """
    run = load_run(Path(folder))
    network, facts = load_network(run, Path(folder))
    if data is None:
        data = load(
            on or run.data,
            size=facts["size"],
            images=None if on else run.images,
            classes=None if on else run.classes,
            bad=run.bad,
        )
    return {"epoch": facts["epoch"], "on": on or run.data, **measure(network, data, level, split, layer)}


def load_network(run: Run, folder: Path) -> tuple[Network, dict[str, Any]]:
    """The query encoder of a run as the checkpoint in its folder holds it, and the checkpoint's facts.

    Raises:
        ValueError: no checkpoint.
    """
    place = device(run.device)
    found = load_checkpoint(folder / "checkpoint", place)
    if found is None:
        raise ValueError(f"{folder} holds no checkpoint yet: train first ({run.command})")
    with torch.random.fork_rng():
        network = assemble.network(run, torch.zeros(3), torch.ones(3), place)
        host = assemble.host(run, network, as_method(run.method), found[1]["images"], place)
    host.load_state_dict({k.removeprefix("host."): v for k, v in found[0].items() if k.startswith("host.")})
    return network, found[1]


def measure(
    network: Network, data: Splits, level: str | None = None, split: Part = "test", layer: Layer = "backbone"
) -> dict[str, Any]:
    """kNN and linear probe of `network` on `data`; images without a label are left out.

    Without any labels accuracies are None.

    `confusions`: for each coarser level of the labels, which share of the linear probe's errors (percent) stays within
    the right group, beside the share that errors spread evenly over the wrong classes would have.
    """
    begun = time.perf_counter()
    bank, asked = at_level(data.train, level), at_level(getattr(data, split), level)
    if not all(bool((images.label >= 0).any()) for images in (bank, asked)):
        return {
            **dict.fromkeys(ACCURACIES),
            "split": split,
            "level": level,
            "images": 0,
            "confusions": {},
            "seconds": 0.0,
        }
    found = assess(
        network.encoder,
        bank,
        asked,
        network.mean.flatten().tolist(),
        network.std.flatten().tolist(),
        layer=layer,
        k=min(NEIGHBOURS, max(1, int((bank.label >= 0).sum()))),
        bf16=network.dtype == torch.bfloat16,
    )
    del found["labels"], found["predictions"]
    return {
        **{name: round(value, 4) if isinstance(value, float) else value for name, value in found.items()},
        "split": split,
        "level": level,
        "classes": len(bank.names),
        "train_images": len(bank),
        "confusions": {name: asdict(confusion) for name, confusion in found["confusions"].items()},
        "seconds": round(time.perf_counter() - begun, 2),
    }


def at_level(images: ImageSet, level: str | None) -> ImageSet:
    """The set with the labels and names of one level of its hierarchy; None is its own.

    Raises:
        ValueError: no such level; those there are.
    """
    if level is None:
        return images
    if level not in images.levels:
        raise ValueError(f"{images.source} has no level {level!r}; {nearest(level, images.levels)}")
    label, names = images.levels[level]
    return replace(images, label=label, names=names)
