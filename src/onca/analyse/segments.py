"""What the negatives of each query sum up to, part by part of their difficulty. B queries, C classes, S parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onca.analyse.pairs import Pairs, Ranked

Sums = NDArray[np.floating[Any]]

FIELDS = (
    *("count", "similarity", "labelled", "same", "covered", "lca_max", "lca_min"),
    *("same_covered", "same_lca_max", "same_lca_min"),
)
MEASURES = {  # name: (what is summed up, what it is divided by); the second of each is taken off
    "similarity": (("similarity",), ("count",)),
    "same_class": (("same",), ("labelled",)),
    "lca_max": (("lca_max",), ("covered",)),
    "lca_min": (("lca_min",), ("covered",)),
    "lca_max_other": (("lca_max", "same_lca_max"), ("covered", "same_covered")),
    "lca_min_other": (("lca_min", "same_lca_min"), ("covered", "same_covered")),
}


def grid(bins: int, cuts: Sequence[float]) -> tuple[Fraction, ...]:
    """Where parts begin and end, percent from the hardest (0) to the easiest (100): bins, percentiles, both ends' cuts.

    Numbers count as they are written: 0.1 is a tenth.
    """
    at = {Fraction(100 * place, bins) for place in range(bins + 1)} | {Fraction(place) for place in range(101)}
    for cut in cuts:
        at |= {Fraction(str(cut)), 100 - Fraction(str(cut))}
    return tuple(sorted(at))


def ranks(at: Sequence[Fraction], count: int) -> NDArray[np.int64]:
    """The first of `count` ranks at or after each percentage: floor(count p / 100 + 1/2), as `onca.window` has it."""
    return np.array([int(count * percent / 100 + Fraction(1, 2)) for percent in at])


class Labels:
    """Labels and depths of pairs, with a class of its own (the last) for what is unknown."""

    def __init__(self, pairs: Pairs) -> None:
        space = pairs.space
        classes = len(space.names)
        label = torch.where(space.label < 0, classes, space.label)
        self.query, self.negative, self.unknown = label[pairs.query], label[pairs.negative], classes
        self.max, self.min = torch.zeros(2, classes + 1, classes + 1)
        self.covered = torch.zeros(classes + 1, classes + 1)
        if space.hierarchy is not None:
            for table, depth in ((self.max, space.hierarchy.depth_max), (self.min, space.hierarchy.depth_min)):
                table[:classes, :classes] = depth.clamp_min(0).float()
            self.covered[:classes, :classes] = (space.hierarchy.depth_max >= 0).float()

    def of(self, seen: Ranked) -> dict[str, Tensor]:
        """labelled, same, covered (0 or 1), lca_max, lca_min of each pair, float32 [b,n]."""
        own, other = self.query[seen.query], self.negative[seen.place]
        labelled = (other != self.unknown).float() * (own != self.unknown).float()[:, None]
        found = {"labelled": labelled, "same": (other == own[:, None]).float() * labelled}
        for name, table in (("covered", self.covered), ("lca_max", self.max), ("lca_min", self.min)):
            found[name] = table[own].gather(1, other)
        return found

    def own_depth(self, query: Tensor) -> tuple[Tensor, ...]:
        """covered, lca_max, lca_min of a pair within the class of each of these queries, float32 [b,1] each."""
        own = self.query[query]
        return tuple(table[own, own, None] for table in (self.covered, self.max, self.min))


@dataclass(frozen=True, eq=False)
class Segments:
    """Sums over the negatives of each query in each part of the grid, hardest first: `fields`, as FIELDS, [B,S] each.

    They are kept in float32: counts and sums of depths are whole numbers below 2^24 and exact.
    """

    at: tuple[Fraction, ...]
    fields: dict[str, Sums]

    @classmethod
    def empty(cls, at: tuple[Fraction, ...], queries: int) -> Segments:
        return cls(at, {name: np.zeros((queries, len(at) - 1), dtype=np.float32) for name in FIELDS})

    def see(self, seen: Ranked, related: dict[str, Tensor], labels: Labels) -> None:
        edges = ranks(self.at, seen.place.shape[1])
        rows = seen.query.numpy()
        self.fields["count"][rows] = np.diff(edges)
        self.fields["similarity"][rows] = _sums(seen.score.double(), edges)
        for name, values in related.items():
            self.fields[name][rows] = _sums(values, edges)
        covered, deepest, deepest_min = (value.numpy() for value in labels.own_depth(seen.query))
        same = self.fields["same"][rows]
        self.fields["same_covered"][rows] = same * covered
        self.fields["same_lca_max"][rows] = same * covered * deepest
        self.fields["same_lca_min"][rows] = same * covered * deepest_min

    def part(self, low: float | Fraction, high: float | Fraction) -> slice:
        """The parts from `low` to `high` percent, counted from the hardest; both must be in the grid."""
        return slice(self._places[Fraction(str(low))], self._places[Fraction(str(high))])

    @cached_property
    def _places(self) -> dict[Fraction, int]:
        return {percent: place for place, percent in enumerate(self.at)}


def _sums(values: Tensor, edges: NDArray[np.int64]) -> Sums:
    """Sums between the edges [b,S]; parts of no width are zero. Whole numbers below 2^24 stay exact in float32."""
    array = values.numpy()
    sums = np.add.reduceat(array, np.minimum(edges[:-1], array.shape[1] - 1), axis=1)
    sums[:, np.diff(edges) == 0] = 0
    return sums


def over(fields: Mapping[str, Sums], measure: str, parts: slice) -> tuple[NDArray[np.float64], ...]:
    """Sum and weight of a measure over some parts, for each row of the fields: its mean is sum / weight."""
    found = []
    for first, *rest in MEASURES[measure]:
        total = fields[first][:, parts].sum(1, dtype=np.float64)
        for name in rest:
            total = total - fields[name][:, parts].sum(1, dtype=np.float64)
        found.append(total)
    return tuple(found)
