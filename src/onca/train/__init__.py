"""Training: a `Run` is text and numbers, `train` makes it, its folder keeps all that it leaves behind."""

from onca.train.checkpoint import NotSaved
from onca.train.evaluation import evaluate
from onca.train.folder import load_run
from onca.train.interrupt import Interrupted
from onca.train.loop import load_data, plain
from onca.train.observe import Observer
from onca.train.progress import Bar, Tick
from onca.train.run import Run
from onca.train.session import begun, result_of, train
from onca.train.snapshot import load_snapshot, snapshot_facts, snapshots
from onca.train.state import NotFinite

__all__ = [
    "Bar",
    "Interrupted",
    "NotFinite",
    "NotSaved",
    "Observer",
    "Run",
    "Tick",
    "begun",
    "evaluate",
    "load_data",
    "load_run",
    "load_snapshot",
    "plain",
    "result_of",
    "snapshot_facts",
    "snapshots",
    "train",
]
