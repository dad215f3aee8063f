"""Sums over sets whose scores a selection has kept: what they give with these scores and without is the same, they do
use them, and they make scores anew where an entry is not among them."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
from driver import Array, Case, Known, Library, at, bfloat16, unit

SHAPES = [(5, 63, 16), (7, 700, 17), (9, 2500, 33), (130, 1600, 64)]  # one chunk of keys and more, ragged and not
SCALE = 5.0


class Hardest:
    """The hardest seventh of a case, their set, and its scores."""

    def __init__(self, library: Library, case: Case) -> None:
        self.library, self.case = library, case
        self.rank = np.full((case.shape[0], 1), case.shape[1] // 7)
        self.known = Known(case, self.rank, 0.5)
        status, _, _, (self.inside,), _ = library.select(case, self.rank, known=self.known)
        assert status == 0

    def sums(self, present: Array, known: bool, slopes: bool = True) -> list[Array]:
        """lse [B], slope by the queries [B,D], mean [B]; with kept scores or without."""
        bag, (b, d) = self.case.bag, self.case.query.shape
        bag.present = at(present)
        bag.known, bag.known_start = at(self.known.score if known else None), at(self.known.start)
        bag.known_set = at(self.inside)
        found = [np.empty(b, np.float32), np.empty((b, d), np.float32), np.empty(b, np.float32)]
        scale = np.array([SCALE], np.float32)
        how = ctypes.c_int64(1), at(scale), ctypes.c_int64(int(slopes))
        assert self.library.of.onca_sums(ctypes.byref(bag), *how, *map(at, found)) == 0
        return found


def case_of(shape: tuple[int, int, int], kind: str, factors: bool, threads: int) -> Case:
    b, n, d = shape
    rng = np.random.default_rng(b)
    query, key = unit(rng, b, d), unit(rng, n, d)
    key = bfloat16(key) if kind == "bfloat16" else key.astype(kind)
    lengths = (rng.uniform(0.5, 2, b), rng.uniform(0.5, 2, n)) if factors else (None, None)
    return Case(query, key, *lengths, threads=threads)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("shape", SHAPES)
def test_kept_scores_change_nothing(library: Library, shape: tuple[int, int, int], kind: str, threads: int) -> None:
    for factors in (False, True):
        hardest = Hardest(library, case_of(shape, kind, factors, threads))
        rng = np.random.default_rng(0)
        some = hardest.inside & rng.integers(0, 2**64, hardest.inside.shape, np.uint64)  # a rule took more away
        for present in (hardest.inside, some):
            # Both round a score once, by other products of the same rows: 20 units in the last place of scale * score.
            for mine, theirs in zip(hardest.sums(present, True), hardest.sums(present, False), strict=True):
                np.testing.assert_allclose(mine, theirs, rtol=0, atol=3e-5)


def test_they_are_used_where_they_are_known_and_only_there(library: Library) -> None:
    hardest = Hardest(library, case_of(SHAPES[2], "float32", False, 1))
    right = hardest.sums(hardest.inside, True)[0]
    hardest.known.score[:-1] += 1
    np.testing.assert_allclose(hardest.sums(hardest.inside, True)[0], right + SCALE, atol=1e-4)
    other = hardest.inside.copy()
    other[:, 3] = ~np.uint64(0)  # of 192 keys from 192 on, 64 are present, most of them not among the hardest
    away = other.copy()
    away[:, :12] = 0  # the first chunk of keys
    mixed, rest = (np.exp(hardest.sums(x, True)[0].astype(np.float64)) for x in (other, away))
    first = other.copy()
    first[:, 12:] = 0
    unknown = np.exp(hardest.sums(first, False)[0].astype(np.float64))
    np.testing.assert_allclose(mixed, rest + unknown, rtol=1e-4)  # anew in that chunk, as they are kept in the others
