"""onca: a workbench for the negatives and positives of contrastive learning."""

from onca import hosts, sliced
from onca.bag import Bag
from onca.difficulty import Difficulty, cosine, label_distance, random, support_max, support_mean
from onca.drop_in import Contrast, contrast
from onca.identity import given, near_duplicate, reached, same_class, same_image
from onca.link import Link, Slice
from onca.memory import Queue
from onca.method import chain, total
from onca.objectives import Method, Objective, debiased, infonce, mass, supcon, triplet
from onca.part import Part, read
from onca.pool import Pool, pool
from onca.rules import Rule, add, attract, drop, harden, keep
from onca.schedule import Schedule, after, cosine_decay, ramp
from onca.select import Selector, above, easiest, farthest, hardest, nearest, sample, semihard, window

__version__ = "0.1.0"

__all__ = [
    "Bag",
    "Contrast",
    "Difficulty",
    "Link",
    "Method",
    "Objective",
    "Part",
    "Pool",
    "Queue",
    "Rule",
    "Schedule",
    "Selector",
    "Slice",
    "above",
    "add",
    "after",
    "attract",
    "chain",
    "contrast",
    "cosine",
    "cosine_decay",
    "debiased",
    "drop",
    "easiest",
    "farthest",
    "given",
    "harden",
    "hardest",
    "hosts",
    "infonce",
    "keep",
    "label_distance",
    "mass",
    "near_duplicate",
    "nearest",
    "pool",
    "ramp",
    "random",
    "reached",
    "read",
    "same_class",
    "same_image",
    "sample",
    "semihard",
    "sliced",
    "supcon",
    "support_max",
    "support_mean",
    "total",
    "triplet",
    "window",
]
