"""Which classes lie close and which far apart: Table A3 of 2010.06682. C classes, D dimensions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from onca.analyse.pairs import Pairs

LISTED = 10
DRAWS = 10_000


@dataclass(frozen=True)
class ClassPair:
    """A query's and a negative's class, their mean dot product over all pairs of images, and how related they are.

    lca: depth of the lowest common ancestor (depth_max), None where the hierarchy does not cover them.
    """

    query: str
    negative: str
    similarity: float
    lca: int | None
    pairs: int


@dataclass(frozen=True)
class ClassPairs:
    """The pairs of two classes with the largest, the smallest and the smallest absolute mean dot product.

    class_pairs  of two classes, all there are; order counts where queries and negatives are not the same images
    lca_all      mean depth over all of them that the hierarchy covers; lca_correlated and so on: over those listed
    p_*          chance that as many drawn from all are at least as related as those listed (10,000 draws)
    """

    correlated: tuple[ClassPair, ...]
    anticorrelated: tuple[ClassPair, ...]
    zero: tuple[ClassPair, ...]
    class_pairs: int
    lca_all: float | None
    lca_correlated: float | None
    lca_anticorrelated: float | None
    lca_zero: float | None
    p_correlated: float | None
    p_anticorrelated: float | None


def class_pairs(pairs: Pairs, seed: int) -> ClassPairs | None:
    """Mean dot products of classes, from the sums of their rows; None where fewer than two classes are labelled.

    Images of two classes are never one image, so nothing needs to be left out.
    """
    space = pairs.space
    (first, first_count), (second, second_count) = (_sums(pairs, rows) for rows in (pairs.query, pairs.negative))
    counts = first_count[:, None] * second_count  # [C,C]
    similarity = first @ second.T / counts.clamp_min(1)
    there = (counts > 0).fill_diagonal_(False)
    if torch.equal(pairs.query, pairs.negative):
        there = there.triu()
    at = there.nonzero()
    if not len(at):
        return None
    value = similarity[there]
    hierarchy = space.hierarchy
    depth = torch.full((len(at),), -1) if hierarchy is None else hierarchy.depth_max[there]
    orders = [(-value).argsort(stable=True), value.argsort(stable=True), value.abs().argsort(stable=True)]
    listed = [order[:LISTED] for order in orders]

    def named(place: int) -> ClassPair:
        a, b = at[place].tolist()
        lca = int(depth[place]) if depth[place] >= 0 else None
        return ClassPair(space.names[a], space.names[b], float(value[place]), lca, int(counts[a, b]))

    correlated, anticorrelated, zero = (tuple(named(place) for place in places.tolist()) for places in listed)
    near, far, between = (_mean(depth[places]) for places in listed)
    return ClassPairs(
        correlated,
        anticorrelated,
        zero,
        class_pairs=len(at),
        lca_all=_mean(depth),
        lca_correlated=near,
        lca_anticorrelated=far,
        lca_zero=between,
        p_correlated=_chance(depth, listed[0], seed),
        p_anticorrelated=_chance(depth, listed[1], seed),
    )


def _sums(pairs: Pairs, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Sum of the rows of each class float64 [C,D], and how many there are [C]."""
    space = pairs.space
    label = space.label[rows]
    known = label >= 0
    classes = len(space.names)
    total = torch.zeros(classes, space.rows.shape[1], dtype=torch.float64)
    total.index_add_(0, label[known], space.rows[rows[known]].double())
    return total, label[known].bincount(minlength=classes)


def _mean(depth: Tensor) -> float | None:
    known = depth[depth >= 0]
    return float(known.double().mean()) if len(known) else None


def _chance(depth: Tensor, listed: Tensor, seed: int) -> float | None:
    """Share of draws of as many covered pairs whose mean depth is at least that of the listed ones."""
    known, own = depth[depth >= 0].numpy(), depth[listed]
    own = own[own >= 0]
    if not len(own):
        return None
    drawn = np.random.default_rng(seed).choice(known, (DRAWS, len(own))).mean(1)
    return float((1 + (drawn >= float(own.double().mean()) - 1e-9).sum()) / (1 + DRAWS))
