"""Looking into one run of a study: who its negatives were while it trained, and what its space holds afterwards."""

from __future__ import annotations

import warnings
from importlib.util import find_spec
from typing import Any

from onca.analyse import Record, agreements, analyse, brief, embed, write_extremes, write_record
from onca.analyse.false_negatives import false_negatives
from onca.analyse.record import FILE
from onca.audit.run import finish, of_run
from onca.data import Splits
from onca.ledger import Ledger
from onca.train import Observer, Run, train
from onca.train.progress import Watch

IMAGES = 2000  # of the test part that are analysed: every pair of them
COMPARED = 500  # queries on which snapshots are compared with each other


def followed(run: Run, data: Splits, resume: bool, watch: Watch | None = None) -> dict[str, Any]:
    """Trains a run with audit, a snapshot each epoch and, where pyarrow is there to write it, the ledger; its result is
    that of any other training."""
    audit = of_run(run, data)
    observers: list[Observer] = [audit]
    if find_spec("pyarrow") is None:
        warnings.warn('no ledger is kept, which needs pyarrow: pip install "onca[analysis]"', stacklevel=2)
    else:
        observers.append(Ledger(run.folder / "ledger", seed=run.seed, epochs=run.epochs))
    result = train(run, resume=resume, watch=watch, data=data, observers=observers, snapshots=1)
    finish(audit, run, data)
    return result


def analysed(run: Run) -> None:
    """Writes RUN/analysis: the last space, those before it in brief, and how far they agree; once."""
    folder = run.folder / "analysis"
    if (folder / FILE).exists():
        return
    spaces = embed(run.folder, images=IMAGES, epochs="all")
    each = [analyse(space, floor=False) for space in spaces[:-1]]
    last = analyse(spaces[-1])
    found = agreements(spaces, queries=min(COMPARED, len(spaces[-1]))) if len(spaces) > 1 else ()
    false = tuple(one for space in spaces if (one := false_negatives(space)) is not None)
    write_extremes(spaces[-1], last, folder)
    write_record(Record(last, tuple(brief(one) for one in (*each, last)), found, false), folder)
