"""What a finished run's features tell of rotation."""

from __future__ import annotations

from pathlib import Path

from onca.evaluate.rotation import rotation_top1
from onca.train import load_data, load_run
from onca.train.evaluation import load_network


def rotation_of(folder: Path) -> dict[str, float]:
    """`rotation_top1` in percent of the run in `folder`, on its own data."""
    run = load_run(folder)
    network, _ = load_network(run, folder)
    data = load_data(run)
    mean, std = network.mean.flatten().tolist(), network.std.flatten().tolist()
    return {"rotation_top1": round(rotation_top1(network.encoder, data.train, data.test, mean, std), 4)}
