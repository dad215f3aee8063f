"""Exact neighbours against all products in float64, on every engine: scores, rows, order, ties, and memory."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

import onca
from onca import search
from onca.engine import View, chosen
from onca.neighbours import Nearby, neighbours
from onca.search import Search

ENGINES = ["torch", "torch, first look in bf16", "native"]
QUANTISED = "quantised"  # eighths: products and their sums are exact in float32


@pytest.fixture(params=ENGINES)
def served(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What finds the neighbours."""
    if request.param == "native":
        try:
            chosen = onca.engine("native")
        except ValueError as reason:
            pytest.skip(str(reason))
    else:
        chosen = onca.engine("torch")
    monkeypatch.setattr(Search, "fast", torch.bfloat16 if "bf16" in request.param else torch.float32)
    with chosen:
        yield request.param


def rows(count: int, dim: int, seed: int, kind: str = "normal") -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    if kind == QUANTISED:
        return torch.randint(-4, 5, (count, dim), generator=draw) / 8
    if kind == "crowded":
        return torch.ones(dim) + 1e-3 * torch.randn(count, dim, generator=draw)
    if kind == "lengths":
        return torch.randn(count, dim, generator=draw) * torch.rand(count, 1, generator=draw).mul(12).sub(6).exp()
    return torch.randn(count, dim, generator=draw)


def by_hand(query: Tensor, keys: Tensor, k: int, exclude: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """A stable descending sort of all products in float64."""
    scores = query.double() @ keys.double().T
    if exclude is not None:
        there = exclude >= 0
        scores[there.nonzero()[:, 0], exclude[there]] = -torch.inf
    score, row = scores.sort(dim=1, descending=True, stable=True)
    row = torch.where(score > -torch.inf, row, -1)
    missing = max(0, k - len(keys))
    score = torch.cat([score, score.new_full((len(query), missing), -torch.inf)], 1)
    return score[:, :k], torch.cat([row, row.new_full((len(query), missing), -1)], 1)[:, :k]


def is_exact(query: Tensor, keys: Tensor, k: int, exclude: Tensor | None = None) -> None:
    """For numbers whose products are exact: the same scores and the same rows in the same order."""
    score, row = by_hand(query, keys, k, exclude)
    found = neighbours(query, keys, k, exclude=exclude)
    assert torch.equal(found.row, row)
    assert torch.equal(found.score.double(), score)


# N = 16 * 16 * 16 + 5: more than one block of keys, and a last group that is not full. k = 8 is the largest of the
# first look; 600 and more are found by a threshold.
MANY = 4101


@pytest.mark.parametrize("k", [1, 2, 7, 8, 9, 100, 600, MANY - 1, MANY, MANY + 3])
def test_sets_and_order_are_those_of_float64(served: str, k: int) -> None:
    is_exact(rows(37, 12, 0, QUANTISED), rows(MANY, 12, 1, QUANTISED), k)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("keys_dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_every_type_beside_every_other(served: str, dtype: torch.dtype, keys_dtype: torch.dtype) -> None:
    query, keys = rows(9, 12, 0, QUANTISED).to(dtype), rows(MANY, 12, 1, QUANTISED).to(keys_dtype)
    is_exact(query, keys, 5)
    wide = torch.float64 in (dtype, keys_dtype)
    assert neighbours(query, keys, 5).score.dtype == (torch.float64 if wide else torch.float32)


@pytest.mark.parametrize("k", [1, 6, 300])
def test_ties_go_to_the_row_that_comes_first(served: str, k: int) -> None:
    query = rows(20, 6, 0, QUANTISED)
    few = rows(40, 6, 1, QUANTISED)
    is_exact(
        query, few[torch.randint(40, (MANY,), generator=torch.Generator().manual_seed(2))], k
    )  # each a hundredfold
    is_exact(query, few[:1].expand(MANY, -1), k)
    is_exact(query, torch.cat([few[:1].expand(MANY * 7 // 10, -1), rows(MANY * 3 // 10, 6, 3, QUANTISED)]), k)
    is_exact(torch.zeros(3, 6), few, min(k, 40))
    is_exact(torch.zeros(3, 6), rows(MANY, 6, 1), k)
    is_exact(query, torch.zeros(MANY, 6), k)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 5),
    st.one_of(st.integers(1, 200), st.integers(1000, 1100)),
    st.integers(1, 9),
    st.floats(0, 1.1),
    st.booleans(),
    st.sampled_from(["torch", "auto"]),
    st.integers(0, 99),
)
def test_any_sizes(queries: int, number: int, dim: int, share: float, leave: bool, name: str, seed: int) -> None:
    k = 1 + int(share * number) if seed % 2 else 1 + seed % 4
    query, keys = rows(queries, dim, seed, QUANTISED), rows(number, dim, seed + 1, QUANTISED)
    exclude = torch.randint(-1, number, (queries,), generator=torch.Generator().manual_seed(seed)) if leave else None
    with onca.engine(name):
        is_exact(query, keys, k, exclude)


@pytest.mark.parametrize("k", [1, 8, 50, MANY - 1, MANY, MANY + 2])
def test_rows_that_are_excluded_are_not_found(served: str, k: int) -> None:
    keys = rows(MANY, 12, 1, QUANTISED)
    exclude = torch.tensor([0, 17, MANY - 1, -1, 300, 5])
    query = keys[exclude.clamp_min(0)] * 2  # each finds itself first, if it may
    is_exact(query, keys, k, exclude)
    assert not (neighbours(query, keys, k, exclude=exclude).row == exclude[:, None])[exclude >= 0].any()
    assert int(neighbours(query, keys, 1).row[1]) == 17


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("k", [1, 4, 30, 39])
def test_nearby_rows_are_the_same_among_those_that_hold_them(served: str, k: int, threads: int) -> None:
    """With their scores known or not; ties go to the same rows."""
    keys = rows(MANY, 12, 1, QUANTISED)
    exclude = torch.tensor([0, 17, MANY - 1, 4, 300, 5])
    query = keys[exclude] * 2
    wanted = by_hand(query, keys, k, exclude)[1]
    near, kernels = Nearby(query, keys, k, exclude), chosen(query, keys)[0]
    assert torch.equal(near.rows(), wanted)
    if kernels is None:
        return
    selected = kernels.select(View(query, keys), torch.full((6, 1), 40))
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        near.among = selected.chosen[0]
        assert torch.equal(near.rows(), wanted)
        near.known = selected.known
        assert near.known is not None and torch.equal(near.rows(), wanted)
        near.among = torch.zeros_like(near.among)
        assert (near.rows() == -1).all()
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("kind", ["normal", "lengths", "crowded"])
@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("k", [1, 8, 200])
def test_recall_is_one_for_any_numbers(served: str, kind: str, unit: bool, k: int) -> None:
    """Float32 rounds: nothing that is found scores less, beyond rounding, than anything that is not."""
    query, keys = rows(21, 40, 0, kind), rows(MANY, 40, 1, kind)
    keys[7], query[3] = 0, 0
    found = neighbours(query, keys, k, normalize=unit)
    mine, theirs = (normalize(query.double(), dim=1), normalize(keys.double(), dim=1)) if unit else (query, keys)
    exact = mine.double() @ theirs.double().T
    rounding = 64 * 2.0**-24 * mine.double().norm(dim=1) * theirs.double().norm(dim=1).max()
    best = exact.sort(dim=1, descending=True).values[:, :k]
    assert ((found.score.double() - best).abs() <= rounding[:, None]).all()
    assert ((exact.gather(1, found.row) - best).abs() <= 2 * rounding[:, None]).all()
    assert (found.score[:, 1:] <= found.score[:, :-1]).all()
    assert all(len(set(row)) == k for row in found.row.tolist())
    assert found.row[3].tolist() == list(range(k)) and (found.score[3] == 0).all()  # all keys score 0


def test_a_bound_that_is_too_narrow_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With half of the slack of bf16 still nothing is lost on these numbers; without any, rows are."""
    monkeypatch.setattr(Search, "fast", torch.bfloat16)
    query, keys = rows(200, 40, 0), rows(MANY, 40, 1)
    with onca.engine("torch"):
        right = neighbours(query, keys, 8).row
        monkeypatch.setattr(search, "slack_of", lambda dim, fast: 0.0)
        assert not torch.equal(neighbours(query, keys, 8).row, right)


@pytest.mark.parametrize("dim", [1, 3, 128, 1000, 4096])
@pytest.mark.parametrize("fast", [torch.float32, torch.bfloat16])
def test_the_first_look_is_as_near_as_its_bound_says(dim: int, fast: torch.dtype) -> None:
    """Rows along which all roundings add up, and rows at random: against the products in float64."""
    far = 1 + 0.99 * 2.0**-8  # is rounded to 1 in bf16
    for query, keys in (
        (rows(20, dim, 0), rows(50, dim, 1)),
        (rows(20, dim, 0).abs(), rows(50, dim, 1).abs()),
        (torch.full((1, dim), far), torch.full((2, dim), far)),
    ):
        query, keys = normalize(query.double(), dim=1), normalize(keys.double(), dim=1)
        found = search._product(keys.float().to(fast), query.float().to(fast))
        assert float((found.double() - keys @ query.T).abs().max()) <= search.slack_of(dim, fast)
    assert search.slack_of(dim, torch.float32) < 2e-3 and search.slack_of(dim, torch.bfloat16) < 2e-2


def test_strides_of_any_kind(served: str) -> None:
    wide = rows(MANY * 2, 30, 1, QUANTISED)
    for keys in (wide[::2, 3:15], wide[:MANY, ::2][:, :12], wide.T.contiguous().T[:MANY, :12], wide[5 : MANY + 5, :12]):
        is_exact(rows(24, 5, 0, QUANTISED).view(12, 10).T, keys, 5)


def test_a_query_finds_the_same_alone_and_beside_others(served: str) -> None:
    query, keys = rows(70, 12, 0, QUANTISED), rows(MANY, 12, 1, QUANTISED)
    for k in (5, 400):
        together = neighbours(query, keys, k)
        alone = [neighbours(one[None], keys, k) for one in query[:5]]
        assert torch.equal(torch.cat([one.row for one in alone]), together.row[:5])
        again = neighbours(query, keys, k)
        assert torch.equal(again.row, together.row) and torch.equal(again.score, together.score)


def test_nothing_to_look_for_and_nothing_to_find(served: str) -> None:
    assert neighbours(torch.empty(0, 4), rows(9, 4, 0), 3).row.shape == (0, 3)
    assert neighbours(torch.empty(0, 4), rows(MANY, 4, 0), 3).score.shape == (0, 3)
    score, row = neighbours(rows(2, 4, 0), torch.empty(0, 4), 3)
    assert row.tolist() == [[-1] * 3] * 2 and score.tolist() == [[-torch.inf] * 3] * 2
    alone = neighbours(rows(1, 4, 0), rows(1, 4, 0), 2, exclude=torch.tensor([0]))
    assert alone.row.tolist() == [[-1, -1]] and alone.score.tolist() == [[-torch.inf] * 2]


def test_no_graph_and_no_autocast(served: str) -> None:
    query, keys = rows(5, 12, 0).requires_grad_(), rows(MANY, 12, 1).requires_grad_()
    plain = neighbours(query, keys, 4)
    assert not plain.score.requires_grad
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(neighbours(query, keys, 4).score, plain.score)


@pytest.mark.parametrize("unit", [False, True])
@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_a_number_that_is_none_is_named_with_its_row(served: str, value: float, unit: bool) -> None:
    for number in (100, MANY):
        query, keys = rows(5, 12, 0), rows(number, 12, 1)
        keys[33, 2] = value
        with pytest.raises(ValueError, match=rf"row 33 of keys \(1 of {number}\) holds nan, inf"):
            neighbours(query, keys, 4, normalize=unit)
        query[2, 1], keys[33, 2] = value, 0
        with pytest.raises(ValueError, match=r"row 2 of query \(1 of 5\) holds nan, inf"):
            neighbours(query, keys, 4, normalize=unit)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda q, n: neighbours(q[0], n, 2), "query [B,D] and keys [N,D] on one device; got [4] on cpu and [9, 4]"),
        (lambda q, n: neighbours(q, n[:, :3], 2), "got [5, 4] on cpu and [9, 3] on cpu"),
        (lambda q, n: neighbours(q, n.to("meta"), 2), "[9, 4] on meta"),
        (lambda q, n: neighbours(q.long(), n, 2), "rows of float numbers; got torch.int64 and torch.float32"),
        (lambda q, n: neighbours(q, n, 0), "k=0: the number of neighbours is a whole number from 1"),
        (lambda q, n: neighbours(q, n, 2.0), "k=2.0: the number"),
        (lambda q, n: neighbours(q, n, True), "k=True: the number"),
        (lambda q, n: neighbours(q, n, 2, exclude=torch.zeros(4).long()), "int64 [5] on cpu, -1 for none; got [4]"),
        (lambda q, n: neighbours(q, n, 2, exclude=torch.zeros(5)), "got [5] of torch.float32"),
        (lambda q, n: neighbours(q, n, 2, exclude=torch.tensor([0, 1, 9, 0, 0])), "exclude runs from 0 to 9: rows"),
        (lambda q, n: neighbours(q, n, 2, exclude=torch.tensor([0, -2, 8, 0, 0])), "exclude runs from -2 to 8: rows"),
    ],
)
def test_what_does_not_fit_is_refused(act: Callable[[Tensor, Tensor], object], words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        act(rows(5, 4, 0), rows(9, 4, 1))


@pytest.mark.parametrize("served", ["torch", "native"], indirect=True)
def test_memory_is_that_of_some_rows_and_not_of_all(served: str) -> None:
    """The most that a fresh process ever held, less what it held before: by the first look, by a threshold, and where
    keys crowd together. B x N is 1.2 GB, 160 MB and 160 MB; the largest result 14 MB."""
    program = f"""
import resource, sys, torch
sys.path.insert(0, {str(Path(__file__).parent)!r})
import onca
from onca.neighbours import neighbours
from test_neighbours import rows
torch.set_num_threads(1)
held = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
with onca.engine({served!r}):
    for queries, k, kind in (3000, 5, "normal"), (400, 3000, "normal"), (400, 5, "crowded"):
        query, keys = rows(queries, 8, 0, kind), rows(100_000, 8, 1, kind)
        before = held()
        neighbours(query, keys, k)
        print(held() - before)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert all(float(line) < 150 for line in done.stdout.split()), done.stdout
