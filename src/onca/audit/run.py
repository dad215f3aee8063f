"""The audit of a run: at its checkpoint, or while it trains."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from onca.audit.audit import Audit
from onca.audit.finding import Finding

if TYPE_CHECKING:
    from onca.train import Run

FILE = "audit.json"  # in the folder of a run


def of_run(run: Run) -> Audit:
    """The audit of a run that is about to train: an observer for `onca.train.train`, which writes RUN/audit.json."""
    raise NotImplementedError


def audit_run(folder: str | Path, steps: int = 8, queries: int = 64) -> list[Finding]:
    """Audits a run at its checkpoint: the pools of `steps` batches, made as in training, with its memory as it is.

    Nothing of the run changes; RUN/audit.json is written.

    Raises:
        ValueError: no run, or no checkpoint there.
    """
    raise NotImplementedError
