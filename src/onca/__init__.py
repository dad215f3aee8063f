"""onca: a workbench for the negatives and positives of contrastive learning."""

from importlib import import_module
from types import ModuleType

from onca import hosts, sliced
from onca.bag import Bag
from onca.bank import Bank
from onca.difficulty import Difficulty, cosine, external, label_distance, random, support_max, support_mean
from onca.drop_in import Contrast, contrast
from onca.engine import engine
from onca.identity import given, near_duplicate, reached, same_class, same_image
from onca.lasting import Lasting, lasting
from onca.link import Link, Slice
from onca.memory import Queue
from onca.method import chain, total
from onca.methods import (
    aggregation,
    anneal_down,
    auto,
    ball,
    cancel,
    fnc,
    hcl,
    invp,
    likely,
    margin,
    mirror,
    mochi,
    nce,
    own_views,
    ring,
    with_positives,
)
from onca.neighbours import Neighbours, neighbours
from onca.objectives import Method, Objective, debiased, infonce, mass, supcon, triplet
from onca.part import Part, read
from onca.pool import Pool, pool
from onca.rules import Rule, add, attract, drop, harden, keep
from onca.schedule import Schedule, adaptive, after, cosine_decay, exponential_decay, gaussian_ramp, ramp, staircase
from onca.select import above, easiest, farthest, hardest, nearest, sample, semihard, window
from onca.selector import Selector

__version__ = "0.1.0"

LATER = ("analyse", "audit", "ledger")  # packages that are loaded when they are first asked for: `onca.audit.watch`


def __getattr__(name: str) -> ModuleType:
    if name in LATER:
        return import_module(f"onca.{name}")
    raise AttributeError(f"module 'onca' has no attribute {name!r}")


__all__ = [
    "Bag",
    "Bank",
    "Contrast",
    "Difficulty",
    "Lasting",
    "Link",
    "Method",
    "Neighbours",
    "Objective",
    "Part",
    "Pool",
    "Queue",
    "Rule",
    "Schedule",
    "Selector",
    "Slice",
    "above",
    "adaptive",
    "add",
    "after",
    "aggregation",
    "anneal_down",
    "attract",
    "auto",
    "ball",
    "cancel",
    "chain",
    "contrast",
    "cosine",
    "cosine_decay",
    "debiased",
    "drop",
    "easiest",
    "engine",
    "exponential_decay",
    "external",
    "farthest",
    "fnc",
    "gaussian_ramp",
    "given",
    "harden",
    "hardest",
    "hcl",
    "hosts",
    "infonce",
    "invp",
    "keep",
    "label_distance",
    "lasting",
    "likely",
    "margin",
    "mass",
    "mirror",
    "mochi",
    "nce",
    "near_duplicate",
    "nearest",
    "neighbours",
    "own_views",
    "pool",
    "ramp",
    "random",
    "reached",
    "read",
    "ring",
    "same_class",
    "same_image",
    "sample",
    "semihard",
    "sliced",
    "staircase",
    "supcon",
    "support_max",
    "support_mean",
    "total",
    "triplet",
    "window",
    "with_positives",
]
