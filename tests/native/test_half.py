"""Sums over keys of bf16, whose products are taken in 16-bit whole numbers: rows and weights for which that is hardest.

Bounds hold for any input (`sums_checks`); what is usual is far below them, and is asked of drawn rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sums_checks import check, check_mutual, half, made, mirrored
from sums_driver import Case, Exact, Native

BF16 = torch.bfloat16


def case_of(query: torch.Tensor, key: torch.Tensor) -> Case:
    return Case(query.to(BF16).float(), key.to(BF16))


def drawn(rows: int, dim: int, seed: int = 0) -> torch.Tensor:
    return torch.nn.functional.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def share_off(got: torch.Tensor, expected: np.ndarray) -> float:
    return float(np.linalg.norm(got.double().numpy() - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("dim", [64, 128, 512])
@pytest.mark.parametrize("scale", [5.0, 14.3])
def test_what_is_usual(levelled: Native, dim: int, scale: float) -> None:
    """Far below what bf16 rounds, 1e-3 of a row's length."""
    case = case_of(drawn(60, dim, 1), drawn(5000, dim, 2))
    exact, weight = Exact.of(case), torch.ones(60)
    lse, toward, _ = levelled.sums(case, scale)
    assert np.abs(lse.numpy() - exact.lse(scale)).max() < 4e-6 * scale
    slopes = exact.slopes(exact.share(scale) * scale)
    assert share_off(toward, slopes[0]) < 3e-4
    again = levelled.spread(case, scale, lse, weight)
    assert share_off(again[0], slopes[0]) < 3e-4 and share_off(again[1], slopes[1]) < 3e-4
    if half(levelled, case):  # or nothing of this file is tested
        assert share_off(toward, slopes[0]) > 1e-5


@pytest.mark.parametrize("dim", [1, 2, 3, 31, 33, 100, 264, 300, 2048, 2049])
@pytest.mark.parametrize("density", [None, 0.6])
def test_every_dim(levelled: Native, dim: int, density: float | None) -> None:
    check(levelled, made(20, 450, dim, density, kind=BF16), 3.0)
    check_mutual(levelled, mirrored(200, dim, density, kind=BF16), 3.0)


@pytest.mark.parametrize("keys", [1, 2, 63, 65, 191, 192, 385, 767, 768, 769, 1537])
@pytest.mark.parametrize("queries", [1, 5, 7, 64, 133, 139])
def test_ragged_sizes(levelled: Native, keys: int, queries: int) -> None:
    for density in (None, 0.9):
        check(levelled, made(queries, keys, 20, density, kind=BF16), 4.0)


@pytest.mark.parametrize("rows", [1, 5, 64, 65, 191, 192, 193, 385, 577])
def test_rows_among_themselves(levelled: Native, rows: int) -> None:
    for density in (None, 0.7):
        check_mutual(levelled, mirrored(rows, 20, density, kind=BF16), 4.0)


@pytest.mark.parametrize("scale", [100.0, 1.0, 0.0, -7.0])
def test_every_temperature(levelled: Native, scale: float) -> None:
    check(levelled, made(13, 700, 32, 0.7, kind=BF16, factors=False), scale)
    check_mutual(levelled, mirrored(250, 33, 0.8, kind=BF16), scale)


def extremes() -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Queries and keys whose products, or whose sums over a run, come near the ends of 32 bits; and uneven rows."""
    g = torch.Generator().manual_seed(3)
    ones, one = torch.ones(12, 128), torch.zeros(12, 128)
    one[:, 5] = 1
    uneven = torch.randn(800, 128, generator=g) * 10 ** torch.empty(800, 1).uniform_(-4, 4, generator=g)
    spike = torch.randn(800, 128, generator=g) * 1e-3
    spike[torch.arange(800), torch.arange(800) % 128] = 1
    return {
        "all numbers of all rows are the same": (ones, ones[:1].expand(800, -1)),
        "opposite rows": (ones, -ones[:1].expand(800, -1)),
        "one number in all rows": (one, one[:1].expand(800, -1)),
        "one number of either sign": (one, one[:1] * (torch.arange(800)[:, None] % 2 * 2 - 1)),
        "one large number beside small ones": (spike[:12], spike),
        "rows of very different lengths": (drawn(12, 128) * 1e-3, uneven),
        "keys along the query": (drawn(1, 128).expand(12, -1), drawn(1, 128) * torch.linspace(0.5, 1, 800)[:, None]),
        "rows of zeros between others": (drawn(12, 128), drawn(800, 128) * (torch.arange(800)[:, None] % 3 == 0)),
        "zeros alone": (drawn(12, 128), torch.zeros(800, 128)),
        "a query of zeros": (drawn(12, 128) * (torch.arange(12)[:, None] != 4), drawn(800, 128)),
    }


@pytest.mark.parametrize("name", list(extremes()))
@pytest.mark.parametrize("scale", [0.5, 20.0])
def test_extreme_rows(levelled: Native, name: str, scale: float) -> None:
    case = case_of(*extremes()[name])
    lengths = case.query.norm(dim=1).max() * case.key.float().norm(dim=1).max()
    check(levelled, case, scale / float(lengths.clamp_min(1)))
    rows = case.key[:300]
    check_mutual(levelled, Case(rows.float(), rows), scale / float(rows.float().norm(dim=1).max().clamp_min(1)) ** 2)


@pytest.mark.parametrize("length", [1e-38, 1e-25, 1e-12, 1e-7, 1e7, 1e15])
def test_lengths_out_of_range(levelled: Native, length: float) -> None:
    """One row of such a length, or all of them, among keys and among queries: that block goes in float32."""
    for some in (slice(7, 8), slice(None)):
        query, key = drawn(20, 48), drawn(800, 48, 1)
        key[some] *= length
        check(levelled, case_of(query, key), min(5.0, 5 / length))
        check(levelled, case_of(key[:20], drawn(800, 48, 2)), min(5.0, 5 / length))


def test_factors_of_every_size(levelled: Native) -> None:
    case = made(14, 900, 40, None, kind=BF16)
    assert case.key_factor is not None and case.query_factor is not None
    case.key_factor *= 10 ** torch.linspace(-3, 0, 900)
    case.key_factor[::7] = 0
    case.query_factor[3] = 0
    check(levelled, case, 6.0)


@pytest.mark.parametrize("apart", [3.0, 8.0, 10.0, 11.0, 11.7, 12.5, 16.0])
def test_many_small_weights_beside_a_large_one(levelled: Native, apart: float) -> None:
    """A key that weighs exp(apart) times the others, once in all or once in each run: the others, which all lie the
    same way, must keep their part of the slope."""
    for step in (64, 6400):
        key = torch.zeros(6400, 32)
        key[:, 1] = 1
        key[5::step] = torch.eye(32)[0]
        query = torch.eye(32)[:1].expand(6, -1)
        check(levelled, case_of(query, key), apart)


def test_weights_of_queries_of_every_size(levelled: Native) -> None:
    """What is given to the keys: runs of queries whose weights are of both signs and of very different sizes."""
    case = case_of(drawn(150, 64), drawn(500, 64, 1))
    exact, scale = Exact.of(case), 5.0
    weight = 10 ** torch.linspace(-8, 3, 150) * (torch.arange(150) % 2 * 2 - 1)
    lse = torch.from_numpy(exact.lse(scale)).float()
    toward, back, _, _ = levelled.spread(case, scale, lse, weight)
    by_score = exact.share(scale) * weight.double().numpy()[:, None] * scale
    slopes = exact.slopes(by_score)
    for mine, its in zip(toward.double().numpy(), slopes[0], strict=True):
        assert np.linalg.norm(mine - its) <= 1e-3 * np.linalg.norm(its)
    assert (np.abs(back.double().numpy() - slopes[1]).max(1) <= 2e-3 * np.abs(by_score).sum(0)).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_finite_shows(levelled: Native, value: float) -> None:
    """In a row, and in what a spread is given."""
    case, weight = case_of(drawn(20, 16), drawn(400, 16, 1)), torch.ones(20)
    lse = levelled.sums(case, 5.0)[0]
    weight[3] = value
    toward, back, _, mean = levelled.spread(case, 5.0, lse, weight)
    assert not toward[3].isfinite().any() and not mean[3].isfinite() and not back.isfinite().any()
    assert bool(toward[4:].isfinite().all())
    case.key[7, 3] = value
    assert not levelled.sums(case, 5.0)[1].isfinite().all(1).any()


def test_threads_and_repeats(levelled: Native) -> None:
    """The same bits for any number of threads, and at several scales as at each alone; for the queries' side of a
    spread, which is summed over threads, for the same number."""
    case, pairs = made(150, 1700, 40, 0.8, kind=BF16), mirrored(800, 17, 0.8, kind=BF16)
    scales, weight = [7.0, 3.0, -2.0], torch.linspace(-1, 2, 800)
    alone = [levelled.sums(case, scale) for scale in scales]
    back, rows = levelled.spread(case, 7.0, alone[0][0], weight[:150])[1], levelled.mutual(pairs, 5.0, weight)
    for threads in (1, 2, 3, 7):
        case.threads = pairs.threads = threads
        lse, toward, mean = levelled.sums_at(case, scales, 3)
        for place, found in enumerate(alone):
            assert all(torch.equal(a[place], b) for a, b in zip((lse, toward, mean), found, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(levelled.mutual(pairs, 5.0, weight), rows, strict=True))
        once, twice = (levelled.spread(case, 7.0, lse[0], weight[:150]) for _ in range(2))
        assert torch.equal(once[1], back) and all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))


def test_blocks_of_every_kind(levelled: Native) -> None:
    """Blocks of queries in 16 bits, in float32 and with few entries take turns over the same chunks."""
    case = made(60, 1700, 24, 0.9, kind=BF16, factors=False)
    assert case.there is not None
    case.query[6:12] *= 1e-9
    case.query[30] *= 1e-9
    case.there[18:30] &= np.random.default_rng(0).random((12, 1700)) < 0.05
    case.there[:, 768:900] = False
    check(levelled, case, 5.0)
