"""Which negatives the loss comes from: the explanation that 2010.06682 gives of its Figure 3."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from onca.data import Splits
from onca.select import window
from onca.train import Run
from onca.train.checkpoint import write_json
from onca.train.loop import make_batch, start

Shares = list[tuple[float, float, float]]  # percentile from, to (100 is the hardest), share of the sum 0..1

FILE = "loss_share.json"
QUERIES = 1024  # training images whose negatives are looked at


@torch.no_grad()
def write_loss_share(run: Run, data: Splits, edges: Sequence[float]) -> None:
    """Measures a finished run and puts loss_share.json into its folder.

    For each band of difficulty, its share of the sum of exp(cosine / temperature) over a query's negatives (by which
    the gradient weighs them), averaged over queries; encoders in evaluation mode.
    """
    training = start(run, data)
    training.host.eval()
    rows = torch.arange(min(QUERIES, len(data.train)))
    pool = training.host.pools(make_batch(training, rows))[0]
    whole, shares = pool.negatives.lse(pool.scale), []
    for low, high in itertools.pairwise(edges):
        band = pool.negatives.only(window(low, high)(pool, pool.negatives))
        shares.append((low, high, float((band.lse(pool.scale) - whole).exp().mean())))
    write_json(run.folder / FILE, shares)


def read_loss_share(folder: Path) -> Shares | None:
    """What `write_loss_share` put into a run's folder, or None."""
    path = folder / FILE
    return [(low, high, share) for low, high, share in json.loads(path.read_text())] if path.exists() else None
