"""Exact selection in C, at every level that runs here (AMX as plain C where there is none): sets, ranks and ties are
those of a stable sort of the engine's own scores, and these are right within what float32 sums can lose."""

from __future__ import annotations

import ctypes
from pathlib import Path

import numpy as np
import pytest
from driver import (
    COMPILER,
    SOURCE,
    Array,
    Case,
    Library,
    at,
    bfloat16,
    check_above,
    check_nearest,
    check_select,
    compiled,
    pack,
    unit,
    unpack,
)

pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")
SHAPES = [(3, 1, 5), (5, 63, 16), (7, 65, 1), (9, 500, 17), (5, 600, 33), (33, 1300, 100), (4, 9001, 64)]


def ranks(b: int, n: int, *percent: float) -> Array:
    return np.repeat([[round(n * p / 100) for p in percent]], b, 0)


@pytest.mark.parametrize(("b", "n", "d"), SHAPES)
def test_windows_and_threads(library: Library, b: int, n: int, d: int) -> None:
    rng = np.random.default_rng(1)
    q, k = unit(rng, b, d), unit(rng, n, d)
    for threads in (1, 2, 5):
        check_select(library, Case(q, k, threads=threads), ranks(b, n, 5, 10))
    check_select(library, Case(q, k), ranks(b, n, 0, 0.1, 40, 60, 100, 120))
    for many in (1, 7, n + 3):
        check_nearest(library, Case(q, k, threads=2), many)
    scores = library.scores(Case(q, k))
    for bound in (np.median(scores, 1), scores.max(1), np.full(b, -np.inf, np.float32), np.full(b, np.inf, np.float32)):
        check_above(library, Case(q, k, threads=2), bound.astype(np.float32))


@pytest.mark.parametrize(("b", "n", "d"), SHAPES)
def test_collapsed_and_tied(library: Library, b: int, n: int, d: int) -> None:
    rng = np.random.default_rng(2)
    q, k, place = unit(rng, b, d), unit(rng, n, d), rng.permutation(n) + 7
    many, half = ranks(b, n, 5, 50, 90), k.copy()
    half[rng.random(n) < 0.7] = k[0]
    check_select(library, Case(q, np.repeat(k[:1], n, 0), place=place), many)
    check_select(library, Case(q, half, place=place, threads=2), many)
    check_select(library, Case(q, half, place=np.arange(n)[::-1]), many)
    few = Case(np.sign(q) * (rng.random(q.shape) < 0.3), np.sign(k))
    check_select(library, few, many)
    check_nearest(library, few, 20)


@pytest.mark.parametrize(("b", "n", "d"), SHAPES)
def test_absent_entries(library: Library, b: int, n: int, d: int) -> None:
    rng = np.random.default_rng(3)
    q, k, there = unit(rng, b, d), unit(rng, n, d), rng.random((b, n)) < 0.3
    there[0] = False
    ring = (n // 3 - np.arange(n)) % n  # a ring buffer's places fall, and start anew once
    check_select(library, Case(q, k, present=there, place=ring, threads=2), rng.integers(0, n + 5, (b, 2)))
    check_nearest(library, Case(q, k, present=there), min(n, 12))
    broken = k.copy()
    broken[n // 2] = np.nan
    there[:, n // 2] = False
    check = Case(q, broken, present=there)
    whole = library.select(Case(q, k, present=there), ranks(b, n, 3, 20))
    for ours, theirs in zip(library.select(check, ranks(b, n, 3, 20)), whole, strict=True):
        assert np.array_equal(ours, theirs)


@pytest.mark.parametrize(("b", "n", "d"), SHAPES)
def test_failing_brackets_are_done_again(library: Library, b: int, n: int, d: int) -> None:
    rng = np.random.default_rng(4)
    q, k = unit(rng, b, d), unit(rng, n, d)
    for sample, threads in ((8, 1), (1, 2)):
        check_select(library, Case(q, k, threads=threads), ranks(b, n, 5, 50), sample, 0.1)


@pytest.mark.parametrize(("b", "n", "d"), SHAPES)
def test_types_factors_and_strides(library: Library, b: int, n: int, d: int) -> None:
    rng = np.random.default_rng(5)
    q, k = unit(rng, b, d), unit(rng, n, d)
    signed = rng.uniform(-1, 1, b), rng.uniform(-1, 1, n)
    check_select(library, Case(q, k * rng.uniform(0.1, 9, (n, 1)).astype(np.float32), *signed), ranks(b, n, 5, 40))
    off = rng.integers(0, 2, b), rng.integers(0, 2, n)
    check_select(library, Case(q, k, *off), ranks(b, n, 5, 40))
    check_select(library, Case(q, bfloat16(k)), ranks(b, n, 5))
    check_select(library, Case(q, k.astype(np.float16)), ranks(b, n, 5))
    wide = np.full((n, d + 9), np.nan, np.float32)
    wide[:, :d] = k
    check_select(library, Case(q, wide[:, :d]), ranks(b, n, 5))


@pytest.mark.parametrize("views", [2, 3, 7, 40])
def test_views_score_as_their_largest(library: Library, views: int) -> None:
    rng = np.random.default_rng(6)
    b, n, d = 9, 1500, 40
    q, factor = unit(rng, b, views, d), rng.uniform(-0.5, 1, (b, views))
    case = Case(q, unit(rng, n, d), factor, threads=2)
    each = [library.scores(Case(q[:, v], case.key, factor[:, v])) for v in range(views)]
    assert np.array_equal(library.scores(case), np.max(each, 0))
    check_select(library, case, ranks(b, n, 5, 30))
    check_above(library, case, np.max(each, 0).mean(1))


@pytest.mark.parametrize("size", [1e18, 1e8, 1e-18, 1e-30, 3e-42])
def test_sizes(library: Library, size: float) -> None:
    rng = np.random.default_rng(7)
    b, n, d = 6, 1700, 48
    q, k, times = unit(rng, b, d), unit(rng, n, d), np.float32(size)
    some, large, zeros = k.copy(), k.copy(), k.copy()
    some[::5] *= times
    large[:, 0] *= 50
    zeros[::3] = 0
    empty = np.vstack([q[:-1], np.zeros((1, d), np.float32)])
    for query, key in ((q, some), (q, k * times), (q * times, k), (q * times, large), (empty, zeros), (q + 3, k + 3)):
        check_select(library, Case(query, key), ranks(b, n, 5, 30))
    check_select(library, Case(q, k, np.full(b, times), np.full(n, 1 / max(size, 1e-38))), ranks(b, n, 5, 30))


def test_what_is_not_finite_is_said(library: Library) -> None:
    rng = np.random.default_rng(8)
    for n in (60, 3000):
        q, k = unit(rng, 4, 20), unit(rng, n, 20)
        for wrong in (np.nan, np.inf, -np.inf):
            key, query = k.copy(), q.copy()
            key[n // 2, 3] = query[1, 19] = wrong
            for case in (Case(q, key), Case(query, k)):
                assert library.select(case, ranks(4, n, 5))[0] == 1
                assert library.nearest(case, 3)[0] == 1
                assert library.above(case, np.zeros(4, np.float32))[0] == 1


def worst_case(n: int = 4000, d: int = 100) -> tuple[Case, Array]:
    """Keys along what 8 bits leave of the query, so that screening errs by all that its bound allows the query's side;
    their scores lie closer to the bound [1] than that."""
    rng = np.random.default_rng(11)
    q = unit(rng, 1, d)
    step = np.abs(q).max() / 127
    left = q - np.rint(q / step) * step
    sign, near = rng.choice([-1, 1], (n, 1)), rng.uniform(-1, 1, (n, 1)) * np.linalg.norm(left)
    along = sign * left / np.linalg.norm(left)
    keys = along + (near - along @ q.T) * q
    return Case(q, keys.astype(np.float32)), np.zeros(1, np.float32)


def test_keys_along_the_rounding_of_a_query(library: Library) -> None:
    case, bound = worst_case()
    check_above(library, case, bound)
    check_select(library, case, ranks(1, 4000, 5, 50))


def test_a_bound_that_is_too_tight_is_seen(tmp_path: Path) -> None:
    for path in SOURCE.parent.glob("*.[ch]"):
        text = path.read_text("utf-8")
        for term in ("b->rows.coarse[r] * d->tile.norm", "b->rows.fine[r] * d->tile.rest"):
            text = text.replace(term, f"0.4f * {term}")
        (tmp_path / path.name).write_text(text, "utf-8")
    with pytest.raises(AssertionError):
        check_above(Library(compiled(tmp_path, tmp_path / SOURCE.name)), *worst_case())


def test_scores_are_right_and_equal_at_all_levels(object_file: Path) -> None:
    rng = np.random.default_rng(9)
    library, seen = Library(object_file), []
    for d in (1, 15, 16, 128, 1000):
        case = Case(unit(rng, 7, d), unit(rng, 130, d), rng.uniform(0.5, 2, 7), rng.uniform(0.5, 2, 130))
        exact = case.query.astype(np.float64) @ case.key.T.astype(np.float64)
        exact *= case.factors[0][:, None].astype(np.float64) * case.factors[1]
        # d / 16 + 5 additions and three products each round by 2^-24 of what |q| |k| = 1 bounds; factors are below 4
        most = 4 * (d / 16 + 9) * 2.0**-24
        for level in ("portable", "avx2", "avx512", "amx"):
            if library.use(level):
                score = library.scores(case)
                assert np.abs(score - exact).max() < most
                seen += [score] if level != "portable" else []
        assert all(np.array_equal(seen[0], other) for other in seen)
        seen.clear()


def lengths(library: Library, key: Array, threads: int = 1) -> Array:
    found, kind = np.full(len(key), -1, np.float32), {"float32": 0, "uint16": 1, "float16": 2}[key.dtype.name]
    size = (ctypes.c_int64(x) for x in key.shape)
    stride = ctypes.c_int64(key.strides[0] // key.itemsize)
    assert library.of.onca_lengths(*size, at(key), stride, kind, threads, at(found)) == 0
    return found


@pytest.mark.parametrize("d", [1, 15, 16, 17, 128, 1000])
def test_lengths(library: Library, d: int) -> None:
    rng = np.random.default_rng(11)
    wide = rng.standard_normal((130, d + 3)).astype(np.float32) * rng.uniform(0.01, 100, (130, 1)).astype(np.float32)
    wide[5] = 0
    halves = (wide.view(np.uint32) >> 16).astype(np.uint16)
    for rows, exact in (
        (wide, wide),
        (halves, (halves.astype(np.uint32) << 16).view(np.float32)),
        (wide.astype("f2"),) * 2,
    ):
        want = np.sqrt((exact[:, :d].astype(np.float64) ** 2).sum(1))
        for threads in (1, 3):
            found = lengths(library, rows[:, :d], threads)
            np.testing.assert_allclose(found, want, rtol=(d / 16 + 8) * 2.0**-24)
            assert found[5] == 0
    wide[0, 0], wide[1, 0], wide[2] = np.nan, -np.inf, 1e30
    found = lengths(library, wide[:, :d])
    assert np.isnan(found[0]) and np.isinf(found[1:3]).all() and np.isfinite(found[3:]).all()


def test_lengths_are_the_same_bits_at_all_levels_but_the_lowest(object_file: Path) -> None:
    library, key = Library(object_file), unit(np.random.default_rng(12), 300, 100)
    seen = [lengths(library, key) for level in ("avx2", "avx512", "amx") if library.use(level)]
    assert all(np.array_equal(seen[0], other) for other in seen[1:])


def test_bits(library: Library) -> None:
    rng = np.random.default_rng(10)
    for b, n, kinds in ((3, 1, 3), (4, 64, 3), (5, 200, 3), (1, 0, 3), (70, 300, 3), (70, 300, 60), (300, 700, 2**62)):
        mine, theirs = rng.integers(-1, kinds, b), rng.integers(-1, kinds, n)
        theirs[::3] = rng.choice(mine, theirs[::3].shape)  # of few kinds and of many, each number often or hardly ever
        bits = np.zeros((b, -(-n // 64)), np.uint64)
        size = ctypes.c_int64(b), ctypes.c_int64(n)
        expected = (mine[:, None] == theirs) & (mine[:, None] >= 0)
        library.of.onca_equal(*size, at(mine), at(theirs), 2, at(bits))
        assert np.array_equal(bits, pack(expected)) and np.array_equal(unpack(bits, n), expected)
        count, hits, listed = np.empty(b, np.int64), np.empty(n, np.int64), np.empty((b, 4), np.int64)
        library.of.onca_count(*size, at(bits), at(count))
        library.of.onca_hits(*size, at(bits), at(hits))
        library.of.onca_listed(*size, at(bits), ctypes.c_int64(4), at(listed))
        assert np.array_equal(count, expected.sum(1)) and np.array_equal(hits, expected.sum(0))
        for row, found in zip(expected, listed, strict=True):
            assert found.tolist() == (np.flatnonzero(row)[:4].tolist() + [-1] * 4)[:4]
