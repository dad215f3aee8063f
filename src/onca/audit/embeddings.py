"""The audit of nothing but embeddings: each row is a query, and all the others are its negatives."""

from __future__ import annotations

from pathlib import Path

from onca.audit.finding import Finding


def audit_embeddings(path: str | Path, labels: str | Path | None = None, queries: int = 2000) -> list[Finding]:
    """Near-duplicates by embedding, same-label share by difficulty, collapse, rows without a direction.

    path, labels: as `onca.analyse.read_space` takes them.

    Raises:
        ValueError: a file that cannot be read, counts that differ.
    """
    raise NotImplementedError
