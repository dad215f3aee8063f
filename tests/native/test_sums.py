"""onca_sums, onca_spread, onca_mutual and onca_hinge against their formulas in float64, on every level that
this machine has."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sums_checks import check, check_mutual, made, mirrored, near, wrong
from sums_driver import KINDS, Case, Exact, Native


@pytest.mark.parametrize("density", [None, 0.0, 0.01, 0.05, 0.2, 0.35, 0.5, 1.0])
def test_every_density(levelled: Native, density: float | None) -> None:
    check(levelled, made(37, 1003, 48, density), 5.0)


@pytest.mark.parametrize("dim", [1, 3, 16, 100, 128, 513])
@pytest.mark.parametrize("density", [None, 0.03, 0.6])
def test_every_dim(levelled: Native, dim: int, density: float | None) -> None:
    check(levelled, made(20, 850, dim, density), 3.0)


@pytest.mark.parametrize("keys", [1, 2, 63, 65, 191, 192, 385, 767, 768, 769, 1537])
@pytest.mark.parametrize("queries", [1, 5, 6, 7])
def test_ragged_sizes(levelled: Native, keys: int, queries: int) -> None:
    for density in (None, 0.1, 0.9):
        check(levelled, made(queries, keys, 20, density), 4.0)


@pytest.mark.parametrize("scale", [100.0, 20.0, 1.0, 0.2, 0.0, -7.0])
@pytest.mark.parametrize("density", [0.05, 0.7])
def test_every_temperature(levelled: Native, scale: float, density: float) -> None:
    check(levelled, made(13, 700, 32, density, factors=False), scale)


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("density", [0.05, None])
def test_every_type_of_key(levelled: Native, kind: torch.dtype, density: float | None) -> None:
    case = made(9, 400, 37, density, kind=kind)
    wide = torch.empty(400, 50, dtype=kind)  # rows further apart than they are long
    wide[:, :37] = case.key
    case.key = wide[:, :37]
    check(levelled, case, 6.0)


@pytest.mark.parametrize("density", [0.05, None])
def test_large_magnitudes(levelled: Native, density: float | None) -> None:
    """Scores up to 2000: a fixed reference would overflow, and the largest entry is nearly all of the sum."""
    check(levelled, made(11, 500, 64, density, unit=2000), 1.0)


@pytest.mark.parametrize("density", [0.05, 0.3, None])
def test_several_scales_at_once(levelled: Native, density: float | None) -> None:
    """The same bits as each alone, whatever the order and however many have slopes."""
    case, scales = made(140, 1700, 40, density), [7.0, 3.0, -2.0]
    alone = [levelled.sums(case, scale) for scale in scales]
    for slopes in range(4):
        lse, toward, mean = levelled.sums_at(case, scales, slopes)
        assert toward.shape[0] == mean.shape[0] == slopes
        for place, found in enumerate(alone):
            assert torch.equal(lse[place], found[0])
            if place < slopes:
                assert torch.equal(toward[place], found[1]) and torch.equal(mean[place], found[2])
    case.threads = 3
    assert all(torch.equal(a, b) for a, b in zip(levelled.sums_at(case, scales, 3), (lse, toward, mean), strict=True))


def test_a_rising_maximum(levelled: Native) -> None:
    """Each chunk outdoes the last, so that all sums are rescaled again and again; and the other way about."""
    case = made(8, 4000, 16, None, factors=False)
    order = (case.key @ case.query[0]).argsort()
    for turned in (order, order.flip(0)):
        check(levelled, Case(case.query, case.key[turned].contiguous()), 50.0)


def test_mixed_blocks(levelled: Native) -> None:
    """Dense, sparse, single and empty rows beside each other."""
    case = made(300, 1700, 24, 0.02)
    assert case.there is not None
    case.there[40:170] = True
    case.there[171:230] = False
    case.there[200, 77] = True
    case.there[:, 384:1152] &= np.arange(300)[:, None] % 2 == 0
    check(levelled, case, 5.0)


@pytest.mark.parametrize("rows", [1, 5, 6, 64, 65, 191, 192, 193, 385, 577, 1000])
def test_rows_among_themselves(levelled: Native, rows: int) -> None:
    for density in (None, 0.02, 0.7):
        check_mutual(levelled, mirrored(rows, 20, density), 4.0)


@pytest.mark.parametrize("scale", [500.0, 40.0, 5.0, 0.0, -7.0])
@pytest.mark.parametrize("unit", [1.0, 0.1, 30.0])
def test_rows_among_themselves_at_every_temperature(levelled: Native, scale: float, unit: float) -> None:
    """Also where exp would overflow, so that a running reference is needed."""
    check_mutual(levelled, mirrored(250, 33, 0.8, unit=unit), scale)


@pytest.mark.parametrize("dim", [1, 16, 128, 300])
def test_rows_of_every_dim_among_themselves(levelled: Native, dim: int) -> None:
    check_mutual(levelled, mirrored(400, dim, 0.9, factors=False), 10.0)


@pytest.mark.parametrize("density", [0.5, None])
def test_rows_among_themselves_by_threads(levelled: Native, density: float | None) -> None:
    """The same bits for any number of threads, whichever is ahead."""
    case, weight = mirrored(1500, 17, density), torch.linspace(-1, 2, 1500)
    first = levelled.mutual(case, 5.0, weight)
    for threads in (2, 3, 7, 200, 2, 3):
        case.threads = threads
        assert all(torch.equal(a, b) for a, b in zip(first, levelled.mutual(case, 5.0, weight), strict=True))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_among_rows_shows(levelled: Native, value: float) -> None:
    case = mirrored(400, 16, 0.5)
    assert case.there is not None
    clean = levelled.sums(case, 5.0)[0]
    case.query[7, 3] = value
    lse, _, _ = levelled.mutual(case, 5.0, torch.ones(400))
    hit = torch.from_numpy(case.there[7] | (np.arange(400) == 7))
    assert torch.allclose(lse[~hit], clean[~hit])
    # a product with inf may be -inf, which is left out of a sum; the row itself has entries of both signs
    assert lse[hit].isnan().all() if value != value else not lse[7].isfinite()


def test_hinge(levelled: Native) -> None:
    for density in (None, 0.0, 0.04, 0.6):
        case = made(31, 700, 33, density)
        exact = Exact.of(case)
        offset = torch.linspace(-0.6, 0.6, 31)
        over = exact.score + offset.double().numpy()[:, None]
        on, close = (over > 0) & exact.there, np.abs(over) < wrong(exact, 1)
        assert not close.any(), "the seed puts a score on the edge: its side is a matter of rounding"
        hinge, active, toward, mean = levelled.hinge(case, offset)
        assert (active.numpy() == on.sum(1)).all()
        near(hinge, np.where(on, over, 0).sum(1), on.sum(1) * (wrong(exact, 1) + 4e-6) + 1e-30)
        near(toward, exact.slopes(on * 1.0)[0], (on.sum(1) * 3 * (wrong(exact, 1) + 1e-6))[:, None] + 1e-30)
        near(mean, np.where(on, exact.score, 0).sum(1), on.sum(1) * (wrong(exact, 1) + 4e-6) + 1e-30)


@pytest.mark.parametrize("density", [0.05, 0.3, None])
def test_threads_and_repeats(levelled: Native, density: float | None) -> None:
    """Rows are the same bits for any number of threads. What is summed over threads, the queries' side of a spread that
    also gives the keys' side, is the same bits for the same number."""
    case = made(100, 1200, 40, density)
    weight, first = torch.ones(100), None
    for threads in (1, 2, 5, 200):
        case.threads = threads
        results = []
        for _ in range(2):
            sums = levelled.sums(case, 5.0)
            results.append(
                (*sums, *levelled.hinge(case, torch.zeros(100)), *levelled.spread(case, 5.0, sums[0], weight))
            )
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))
        first = first or results[0]
        by_thread = (7, 10)  # toward and mean of the spread
        for place, (a, b) in enumerate(zip(first, results[0], strict=True)):
            assert torch.equal(a, b) or (place in by_thread and torch.allclose(a, b, rtol=1e-4, atol=1e-6)), place
    check(levelled, case, 5.0)


@pytest.mark.parametrize("density", [0.1, 0.9, None])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_shows(levelled: Native, density: float | None, value: float) -> None:
    """nan where it is present, and nowhere else."""
    for holder in ("key", "query"):
        case = made(20, 400, 16, density)
        there = np.ones((20, 400), bool) if case.there is None else case.there
        clean = levelled.sums(case, 5.0)
        place = 7 if holder == "query" else 205
        getattr(case, holder)[place, 3] = value
        lse, toward, mean = levelled.sums(case, 5.0)
        hit = torch.from_numpy(there[:, place] if holder == "key" else np.arange(20) == place)
        assert not toward[hit].isfinite().all(1).any() and not (lse[hit].isfinite() & mean[hit].isfinite()).any()
        assert torch.allclose(lse[~hit], clean[0][~hit]) and torch.allclose(toward[~hit], clean[1][~hit], atol=1e-5)
        spoilt = levelled.spread(case, 5.0, clean[0], torch.ones(20))
        assert not spoilt[0][hit].isfinite().all(1).any() and bool(spoilt[0][~hit].isfinite().all())
        if holder == "query" and value != value:
            assert (spoilt[1].isnan().any(1).numpy() == there[place]).all()
            assert bool(levelled.hinge(case, torch.zeros(20))[0].isnan()[place])


def test_rows_without_entries(levelled: Native) -> None:
    case = made(10, 300, 8, 0.5)
    assert case.there is not None
    case.there[3] = False
    lse, toward, mean = levelled.sums(case, 5.0)
    assert lse[3] == -torch.inf and not toward[3].any() and mean[3] == 0
    toward, back, _, mean = levelled.spread(case, 5.0, lse, torch.ones(10))
    assert not toward[3].any() and mean[3] == 0 and bool(back.isfinite().all())


def test_keys_that_nothing_chose(levelled: Native) -> None:
    case = made(10, 300, 8, 0.5)
    assert case.there is not None
    case.there[:, 17] = False
    lse = levelled.sums(case, 5.0)[0]
    _, back, factor, _ = levelled.spread(case, 5.0, lse, torch.ones(10))
    assert not back[17].any() and factor[17] == 0


def test_what_is_not_wanted(levelled: Native) -> None:
    """NULL for any output gives the same others."""
    case, weight = made(14, 500, 20, 0.4), torch.ones(14)
    lse, toward, _ = levelled.sums(case, 5.0)
    _, back, factor, _ = levelled.spread(case, 5.0, lse, weight)
    alone = [torch.empty_like(x) for x in (lse, toward, back, factor)]
    levelled.call("onca_sums", case.bag(), 1, torch.tensor([5.0]), 0, alone[0], None, None)
    levelled.call("onca_spread", case.bag(), 5.0, lse, weight, alone[1], None, None, None)
    levelled.call("onca_spread", case.bag(), 5.0, lse, weight, None, alone[2], None, None)
    levelled.call("onca_spread", case.bag(), 5.0, lse, weight, None, None, alone[3], None)
    assert torch.equal(alone[0], lse) and torch.equal(alone[2], back) and torch.equal(alone[3], factor)
    assert torch.allclose(alone[1], toward, atol=1e-5)


def test_a_zero_factor(levelled: Native) -> None:
    """A key of length 0 counts with score 0, and its factor's slope is that of the product it multiplies."""
    case = made(12, 200, 10, None)
    assert case.key_factor is not None
    case.key_factor[5] = 0
    check(levelled, case, 4.0)


def test_the_formulas_by_differences() -> None:
    """The slopes that the other tests trust, against central differences of the lse in float64."""
    exact, scale, step = Exact.of(made(4, 9, 3, 0.6)), 3.0, 1e-6
    weight = np.linspace(-1, 2, 4)
    slopes = exact.slopes(exact.share(scale) * weight[:, None] * scale)

    def value() -> float:
        lse = exact.lse(scale)
        return float((weight * np.where(np.isfinite(lse), lse, 0)).sum())

    for array, slope in zip((exact.query, exact.key, exact.key_factor), slopes, strict=True):
        for place in np.ndindex(array.shape):
            kept = array[place]
            array[place] = kept + step
            above = value()
            array[place] = kept - step
            below = value()
            array[place] = kept
            assert abs((above - below) / (2 * step) - slope[place]) < 1e-7
