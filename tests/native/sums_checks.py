"""What onca_sums, onca_spread and onca_mutual should give, and how near.

Let u = 2^-24 and L = |q| |k| times the factors, the most that a score can be. A float32 product of D terms in several
running sums is off by at most some 20 u L (measured: below 6), and scale * score by 20 u |scale| L, `wrong` below. An
lse is off by that, by its own rounding, and by 2e-6 for exp and the sums. A softmax weight is off by the factor
1 + 2 * wrong + 4e-6, and a slope by this share of |scale| * sum of weight * |row|, which bounds it.

Keys of bf16 are multiplied in 16 bits on levels that have them. A number is then off by half a step, and a step is at
most 1 / 32,767 of its row's length: a row is off by at most sqrt(D) / 65,534 of its length, `half` below, and a product
by twice that share of L. 64 weights of a run are off by half a step each, 1 / 65,534 of their sum at most (of mixed
signs 1 / 32,767), and a row has 32,767 to 46,300 steps: `lost` is what a slope loses by that.
"""

from __future__ import annotations

import numpy as np
import torch
from sums_driver import Array, Case, Exact, Native

ULP = 2.0**-24
STEP = 1 / 32767


def made(
    b: int,
    n: int,
    d: int,
    density: float | None,
    *,
    kind: torch.dtype = torch.float32,
    factors: bool = True,
    unit: float = 1,
    seed: int = 0,
) -> Case:
    """Rows of length `unit` (times what the factors make of it); None is present NULL."""
    g = torch.Generator().manual_seed(seed)
    query, key = torch.randn(b, d, generator=g), torch.randn(n, d, generator=g)
    query *= unit / query.norm(dim=1, keepdim=True)
    key /= key.norm(dim=1, keepdim=True)
    there = None if density is None else np.random.default_rng(seed).random((b, n)) < density
    factor = (0.5 + torch.rand(b, generator=g), 0.5 + torch.rand(n, generator=g)) if factors else (None, None)
    return Case(query, key.to(kind), there, *factor)


def half(native: Native, case: Case) -> float:
    """By which share of their length rows may be off, where products are taken in 16 bits; else 0."""
    dim, narrow = case.query.shape[1], native.level in ("avx512", "amx")
    return STEP * dim**0.5 / 2 if case.key.dtype == torch.bfloat16 and narrow and dim <= 2048 else 0.0


def lost(off: float, mixed: bool) -> float:
    """Where rows are off by a share `off`: by which share of the sum of |weight| * |row| slopes may be."""
    return off + 32 * (STEP if mixed else STEP / 2) * 46300 * STEP if off else 0.0


def wrong(exact: Exact, scale: float, off: float = 0.0) -> float:
    """How far scale * score may be off, where rows are off by a share `off` of their length."""
    lengths = [
        np.linalg.norm(x, axis=1) * f for x, f in ((exact.query, exact.query_factor), (exact.key, exact.key_factor))
    ]
    return (20 * ULP + 2 * off) * abs(scale) * float(lengths[0].max() * lengths[1].max()) if lengths[1].size else 0.0


def near(got: torch.Tensor, expected: Array, tolerance: float | Array) -> None:
    off = np.abs(got.double().numpy() - expected)
    assert (off <= tolerance).all(), f"off by {np.max(off / np.maximum(tolerance, 1e-300)):.3g} tolerances"


def check(native: Native, case: Case, scale: float) -> None:
    """All outputs of sums and of spread."""
    exact, off = Exact.of(case), half(native, case)
    lse, toward, mean = native.sums(case, scale)
    expected, share, slack = exact.lse(scale), exact.share(scale), wrong(exact, scale, off)
    some = np.isfinite(expected)
    assert (torch.isneginf(lse).numpy() == ~some).all()
    near(lse[some], expected[some], slack + 2e-6 + 2 * ULP * np.abs(expected[some]))
    rows = np.linalg.norm(exact.key, axis=1) * exact.key_factor
    relative = float(np.expm1(2 * slack)) + 4e-6
    bound = abs(scale) * exact.query_factor * (share @ rows) * (relative + lost(off, mixed=False))
    near(toward, scale * exact.slopes(share)[0], bound[:, None] + 1e-30)
    near(
        mean,
        (share * exact.score).sum(1),
        (share * np.abs(exact.score)).sum(1) * relative + wrong(exact, 1.0, off) + 1e-30,
    )
    spread(native, case, exact, scale, lse, relative)


def spread(native: Native, case: Case, exact: Exact, scale: float, lse: torch.Tensor, relative: float) -> None:
    off = half(native, case)
    weight = torch.linspace(-1, 2, len(lse))
    by_score = exact.share(scale) * weight.double().numpy()[:, None]
    size = np.abs(by_score)
    relative += 4 * ULP * float(np.abs(lse.numpy()[np.isfinite(lse.numpy())]).max(initial=0))
    toward, back, factor, mean = native.spread(case, scale, lse, weight)
    expected = [scale * slope for slope in exact.slopes(by_score)]
    keys = np.linalg.norm(exact.key, axis=1)
    queries = np.linalg.norm(exact.query, axis=1) * exact.query_factor
    near(
        toward,
        expected[0],
        (abs(scale) * exact.query_factor * (size @ (keys * exact.key_factor)) * (relative + lost(off, mixed=False)))[
            :, None
        ]
        + 1e-30,
    )
    bound = abs(scale) * (size.T @ queries) * (relative + lost(off, mixed=True))
    near(back, expected[1], (bound * exact.key_factor)[:, None] + 1e-30)
    near(factor, expected[2], bound * keys + 1e-30)
    near(mean, (by_score * exact.score).sum(1), (size @ (keys * exact.key_factor)) * queries * relative + 1e-30)


def mirrored(
    b: int,
    d: int,
    density: float | None,
    *,
    kind: torch.dtype = torch.float32,
    factors: bool = True,
    unit: float = 1,
) -> Case:
    """Queries that are the keys, of `kind`; who sees whom is mutual."""
    case = made(b, b, d, density, factors=factors, unit=unit)
    if case.there is not None:
        case.there = np.triu(case.there) | np.triu(case.there, 1).T
    rows = case.query.to(kind)
    return Case(rows.float(), rows, case.there, case.query_factor, case.query_factor)


def check_mutual(native: Native, case: Case, scale: float) -> None:
    exact, off, weight = Exact.of(case), half(native, case), torch.linspace(-1, 2, len(case.query))
    lse, toward, mean = native.mutual(case, scale, weight)
    expected, slack = exact.lse(scale), wrong(exact, scale, off)
    some = np.isfinite(expected)
    assert (torch.isneginf(lse).numpy() == ~some).all()
    near(lse[some], expected[some], slack + 2e-6 + 2 * ULP * np.abs(expected[some]))
    by_score = exact.share(scale) * weight.double().numpy()[:, None]
    both = by_score + by_score.T
    lengths = np.linalg.norm(exact.query, axis=1) * exact.query_factor
    relative = float(np.expm1(2 * slack)) + 4e-6 + 4 * ULP * float(np.abs(expected[some]).max(initial=0))
    relative += lost(off, mixed=True)
    bound = (np.abs(by_score) + np.abs(by_score).T) @ lengths * relative
    near(toward, scale * exact.slopes(both)[0], (abs(scale) * exact.query_factor * bound)[:, None] + 1e-30)
    near(mean, (both * exact.score).sum(1), lengths * bound + 1e-30)
