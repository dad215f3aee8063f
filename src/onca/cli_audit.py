"""The command about who the negatives were."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import tyro

if TYPE_CHECKING:
    from onca.audit import Finding

STEPS, QUERIES = 8, 64  # of a run


def audit(
    what: tyro.conf.Positional[str],
    labels: str | None = None,
    steps: int = STEPS,
    queries: int = QUERIES,
    json: Path | None = None,
) -> int:
    """Say who the negatives were, of a run or of embeddings.

    Ends with 1 where there is an alarm. RUN/audit.json keeps the findings.

    For example:
      onca audit runs/3f2a90c417de
      onca audit embeddings.npy --labels labels.npy
      onca audit embeddings.npz --json audit.json

    Args:
        what: folder of a run, or a file of embeddings (.npy, .npz, .parquet).
        labels: embeddings: a file of labels for them.
        steps: run: batches that are looked at.
        queries: run: looked at in each batch.
        json: where findings are written too.
    """
    from onca.audit import FILE, exit_code, text, write_audit

    found = _findings(Path(what), labels, steps, queries)
    print(text(found))
    if Path(what).is_dir():
        print(Path(what) / FILE)
    if json is not None:
        write_audit(json, found, what, {})
    return exit_code(found)


def _findings(place: Path, labels: str | None, steps: int, queries: int) -> list[Finding]:
    """Raises ValueError for what is neither, and for a flag that has no meaning there."""
    from rich.console import Console
    from rich.progress import Progress

    from onca.audit import audit_embeddings, audit_run

    if place.is_dir() and labels is not None:
        raise ValueError(f"{place} is the folder of a run, whose data have their labels: leave --labels out")
    if not place.is_dir() and (steps, queries) != (STEPS, QUERIES):
        raise ValueError(f"{place} is no folder of a run: --steps and --queries are for runs")
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(f"audit of {place.name}", total=None)

        def watch(done: int, total: int) -> None:
            bar.update(task, completed=done, total=total)

        if place.is_dir():
            return audit_run(place, steps, queries, watch=watch)
        return audit_embeddings(place, labels, watch=watch)
