"""Training: a `Run` is text and numbers, `train` makes it, its folder keeps all that it leaves behind."""

from onca.train.checkpoint import NotSaved
from onca.train.evaluation import evaluate
from onca.train.folder import load_run
from onca.train.interrupt import Interrupted
from onca.train.loop import NotFinite, load_data, plain
from onca.train.progress import Bar, Tick
from onca.train.run import Run
from onca.train.session import begun, result_of, train

__all__ = [
    "Bar",
    "Interrupted",
    "NotFinite",
    "NotSaved",
    "Run",
    "Tick",
    "begun",
    "evaluate",
    "load_data",
    "load_run",
    "plain",
    "result_of",
    "train",
]
