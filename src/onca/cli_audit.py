"""The command about who the negatives were."""

from __future__ import annotations

from pathlib import Path

import tyro


def audit(
    what: tyro.conf.Positional[str],
    labels: str | None = None,
    steps: int = 8,
    queries: int = 64,
    json: Path | None = None,
) -> int:
    """Say who the negatives were: of a run's checkpoint, or of embeddings.

    Ends with 1 where there is an alarm. RUN/audit.json keeps the findings.

    For example:
      onca audit runs/3f2a90c417de
      onca audit embeddings.npy --labels labels.npy
      onca audit embeddings.npz --json audit.json

    Args:
        what: folder of a run, or a file of embeddings (.npy, .npz, .parquet).
        labels: embeddings: a file of labels for them.
        steps: run: batches that are looked at.
        queries: looked at in each batch.
        json: where findings are written too.
    """
    raise NotImplementedError
