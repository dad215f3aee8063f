"""Which classes lie close and which far apart: Table A3 of 2010.06682."""

from __future__ import annotations

from dataclasses import dataclass


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

    lca_all  mean depth over all pairs of two classes; lca_correlated and so on: over those that are listed
    p_*      share of as many pairs drawn at random that are at least as related as those listed
    """

    correlated: tuple[ClassPair, ...]
    anticorrelated: tuple[ClassPair, ...]
    zero: tuple[ClassPair, ...]
    classes: int
    lca_all: float | None
    lca_correlated: float | None
    lca_anticorrelated: float | None
    lca_zero: float | None
    p_correlated: float | None
    p_anticorrelated: float | None
