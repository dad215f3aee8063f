"""Do ContrastiveCrop's boxes lie where the objects are? `python -m benchmarks.boxes [--json FILE]`, about 4 minutes.

MoCo is trained for a few epochs on images of Tiny ImageNet, whose true boxes are known, with crops that follow the
encoder. Before and after each epoch every image's box is found, and compared with the true one by their intersection
over union (IoU), beside boxes that need no encoder. "another image's": the found boxes against the true boxes of other
images, which tells what of the agreement is due to the image and what to the usual place and size of objects.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from onca import views
from onca.data import ImageSet
from onca.train import Run, load_data
from onca.train.loop import Training, fit, start
from onca.train.progress import Tick

PACKS = Path(os.environ.get("ONCA_DATA") or Path(__file__).parents[2] / "shared" / "data") / "tinyimagenet_a"
SETTING = {"images": 4000, "epochs": 12, "encoder": "small(16)", "batch": 128, "queue": 2048}
CROP = "contrastive_crop(warmup=4, interval=4)"
SEEDS = (0, 1, 2)
THRESHOLDS = (0.1, 0.3, 0.5)  # of the heat map; the paper's first
FIXED = {
    "whole image": (0.0, 0.0, 1.0, 1.0),
    "fixed_crop(margin=0.25)": (0.25, 0.25, 0.75, 0.75),
    "fixed_crop(margin=0.1)": (0.1, 0.1, 0.9, 0.9),
}
CHUNK = 512


def true_boxes(images: ImageSet) -> Tensor:
    """The true boxes [I,4] of a set from the pack's train.npz: top, left, bottom, right in pixels, ends left out."""
    with np.load(PACKS / "train.npz", allow_pickle=False) as archive:
        x0, y0, x1, y1 = torch.from_numpy(archive["boxes"].astype(np.float64))[images.index].unbind(1)
    return torch.stack((y0, x0, y1 + 1, x1 + 1), 1)


def iou(boxes: Tensor, truth: Tensor) -> Tensor:
    """Intersection over union of boxes [n,4], ends left out: [n]."""

    def area(one: Tensor) -> Tensor:
        return (one[:, 2:] - one[:, :2]).clamp_min(0).prod(1)

    shared = torch.cat((torch.maximum(boxes[:, :2], truth[:, :2]), torch.minimum(boxes[:, 2:], truth[:, 2:])), 1)
    return area(shared) / (area(boxes) + area(truth) - area(shared))


def in_pixels(shares: Tensor, height: int, width: int, found: bool = False) -> Tensor:
    """Boxes [n,4] in shares as pixels, ends left out. found: from a heat map, whose last row and column are inside."""
    side = torch.tensor([height, width], dtype=torch.float64).repeat(2)
    boxes = (shares.double() * side).round() if found else shares.double() * side
    if found:
        boxes[:, 2:] = torch.minimum(boxes[:, 2:] + 1, side[2:])
    return boxes


def found_boxes(training: Training) -> Iterator[tuple[float, Tensor, Tensor]]:
    """For each threshold the boxes [I,4] in pixels that the encoder gives now, and whether its map is constant [I]."""
    height, width = training.images.shape
    heat = []
    for rows in torch.split(torch.arange(len(training.images)), CHUNK):
        features = training.network.maps(training.pixels.take(rows) / 255)
        heat.append(views.heat_maps(features, height, width))
    for threshold in THRESHOLDS:
        parts = [views.boxes_of(piece, threshold) for piece in heat]
        shares, constant = (torch.cat(part) for part in zip(*parts, strict=True))
        yield threshold, in_pixels(shares, height, width, found=True), constant


def measure(training: Training, truth: Tensor) -> dict[float, dict[str, Tensor]]:
    """For each threshold and image: IoU with the true box, with that of another image, share of the image's area."""
    others = truth.roll(len(truth) // 2, 0)  # images are sorted by class: of another class, too
    height, width = training.images.shape
    return {
        threshold: {
            "iou": iou(boxes, truth),
            "another": iou(boxes, others),
            "area": (boxes[:, 2:] - boxes[:, :2]).prod(1) / (height * width),
            "constant": constant.double(),
        }
        for threshold, boxes, constant in found_boxes(training)
    }


def train(seed: int, runs: str, **changes: Any) -> tuple[ImageSet, list[dict[float, dict[str, Tensor]]]]:
    """Trains one run; what `measure` gives before the first epoch and after each."""
    run = Run(data=f"npz:{PACKS}", seed=seed, runs=runs, **{**SETTING, "crop": CROP, **changes})
    run.folder.mkdir(parents=True)
    training = start(run, load_data(run))
    truth = true_boxes(training.images)
    measured = [measure(training, truth)]

    def watch(tick: Tick) -> None:
        if tick.step % training.per_epoch == 0:
            measured.append(measure(training, truth))

    fit(training, watch)
    return training.images, measured


def spread(values: Tensor) -> dict[str, float]:
    """Mean over images [I] with its 95 % interval."""
    mean, half = float(values.mean()), 1.96 * float(values.std()) / len(values) ** 0.5
    return {"mean": round(mean, 4), "low": round(mean - half, 4), "high": round(mean + half, 4)}


def summarise(images: ImageSet, measured: list[list[dict[float, dict[str, Tensor]]]]) -> dict[str, Any]:
    """measured: by seed, then by epoch. Intervals are over images, whose values are first averaged over seeds."""
    truth = true_boxes(images)
    fixed = {name: iou(in_pixels(torch.tensor([box]), *images.shape), truth) for name, box in FIXED.items()}
    rows = []
    for epoch in range(len(measured[0])):
        for threshold in THRESHOLDS:
            seeds = [by_epoch[epoch][threshold] for by_epoch in measured]
            mean = {name: torch.stack([one[name] for one in seeds]).mean(0) for name in seeds[0]}
            row: dict[str, Any] = {"epoch": epoch, "threshold": threshold, "iou": spread(mean["iou"])}
            row["by_seed"] = [round(float(one["iou"].mean()), 4) for one in seeds]
            row["another image's"] = spread(mean["another"])
            row["less another image's"] = spread(mean["iou"] - mean["another"])
            row |= {f"less {name}": spread(mean["iou"] - values) for name, values in fixed.items()}
            row["area"], row["constant"] = round(float(mean["area"].mean()), 4), float(mean["constant"].sum())
            rows.append(row)
    area = (truth[:, 2:] - truth[:, :2]).prod(1) / (images.shape[0] * images.shape[1])
    return {"fixed": {name: spread(values) for name, values in fixed.items()}, "true area": spread(area), "found": rows}


def table(result: dict[str, Any]) -> list[dict[str, str | float]]:
    """Boxes that need no encoder, then each threshold before training, halfway and at the end."""
    rows: list[dict[str, str | float]] = [
        {"name": name, "IoU": value["mean"], "low": value["low"], "high": value["high"]}
        for name, value in result["fixed"].items()
    ]
    last = result["found"][-1]["epoch"]
    for threshold in THRESHOLDS:
        for row in result["found"]:
            if row["threshold"] == threshold and row["epoch"] in (0, 1, last // 2, last):
                rows.append(
                    {"name": f"found, threshold {threshold:g}, after {row['epoch']} epochs", "IoU": row["iou"]["mean"],
                     "low": row["iou"]["low"], "high": row["iou"]["high"],
                     "another image's": row["another image's"]["mean"], "% of the area": 100 * row["area"],
                     "constant maps": row["constant"]}
                )  # fmt: skip
    return rows


def main(file: Path | None = None) -> list[dict[str, str | float]]:
    """The table; all numbers go to `file`. Without the data set there is nothing to measure."""
    if not PACKS.is_dir():
        print(f"no data set at {PACKS}: set ONCA_DATA")
        return []
    torch.set_num_threads(1)
    begun, measured = time.monotonic(), []
    with tempfile.TemporaryDirectory() as runs:
        for seed in SEEDS:
            images, by_epoch = train(seed, runs)
            measured.append(by_epoch)
    result = {"setting": {**SETTING, "crop": CROP, "seeds": SEEDS, "size": images.shape}, **summarise(images, measured)}
    result["seconds"] = round(time.monotonic() - begun)
    if file:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    return table(result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", type=Path)
    for row in main(parser.parse_args().json):
        figures = [f"{value:8.3f} {unit}" for unit, value in row.items() if isinstance(value, float)]
        print(f"{row['name']:40}", *figures)
