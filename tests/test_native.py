"""The native engine through its Python binding: sums against float64, sets against a stable sort of its own scores."""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onca.engine import build
from onca.engine.kernels import NotFinite, Selected, View, pack, unpack, words
from onca.engine.native import Native

try:
    build.compiler()
except build.NotBuilt as missing:
    pytest.skip(f"the native engine is not there: {missing}", allow_module_level=True)

Tensor = torch.Tensor
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
LEVELS = ("portable", "avx2", "avx512", "amx")
native = Native()  # fails where a compiler is there and the object is missing or stale: run the remedy that it names
HIGHEST = native.level


def there_is(level: str) -> bool:
    try:
        native.use(level)
    except ValueError:
        return False
    native.use(HIGHEST)
    return True


HERE = [level for level in LEVELS if there_is(level)]


@pytest.fixture(autouse=True)
def highest_level() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    native.use(HIGHEST)
    torch.set_num_threads(threads)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def whole(*shape: int, seed: int = 0, most: int = 3) -> Tensor:
    """Small whole numbers: products are exact in any order, and tie."""
    return torch.randint(-most, most + 1, shape, generator=torch.Generator().manual_seed(seed)).float()


def mask(share: float, *shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed + 99)) < share


def view(b: int, n: int, d: int, dtype: torch.dtype = torch.float32, views: int = 1, seed: int = 0) -> View:
    """Everything given: factors, a mask with an empty row, places that do not ascend."""
    there = mask(0.7, b, n, seed=seed)
    there[:1] = False
    place = torch.randperm(n, generator=torch.Generator().manual_seed(seed)) * 2
    query = normal(b, d, seed=seed) if views == 1 else normal(b, views, d, seed=seed)
    by_query = normal(*query.shape[:-1], seed=seed + 1).abs() + 0.1
    keys = normal(n, d, seed=seed + 2).to(dtype)
    return View(query, keys, by_query, normal(n, seed=seed + 3).abs() + 0.1, pack(there), place)


def wide(of: View) -> Tensor:
    """The scores in float64 [B,N]."""
    query = of.query.double() if of.query.dim() == 3 else of.query.double()[:, None]
    score = query @ of.keys.double().T
    if of.query_factor is not None:
        score = score * of.query_factor.double().reshape(*query.shape[:2], 1)
    return score.amax(1) * (1 if of.key_factor is None else of.key_factor.double())


def present(of: View) -> Tensor:
    return torch.ones(of.shape, dtype=torch.bool) if of.present is None else unpack(of.present, of.shape[1])


def places(of: View) -> Tensor:
    return torch.arange(of.shape[1]) if of.place is None else of.place


def order(of: View) -> list[Tensor]:
    """Of each query: the columns of its present entries, hardest first; ties by place."""
    by_place = places(of).argsort()
    sorted_by_place = native.scores(of)[:, by_place]
    found = by_place[sorted_by_place.sort(dim=1, descending=True, stable=True).indices]
    return [row[there[row]] for row, there in zip(found, present(of), strict=True)]


def expected(of: View, rank: Tensor) -> Selected:
    (b, n), edges, score = of.shape, rank.shape[1], native.scores(of)
    edge, place = torch.full((b, edges), torch.inf), torch.full((b, edges), -1)
    chosen, tied = torch.zeros(edges, b, n, dtype=torch.bool), False
    for row, columns in enumerate(order(of)):
        for e in range(edges):
            k = min(int(rank[row, e]), len(columns))
            chosen[e, row, columns[:k]] = True
            if k:
                last = columns[k - 1]
                edge[row, e], place[row, e] = score[row, last], places(of)[last]
                tied |= int((score[row, columns] == score[row, last]).sum()) > 1
    return Selected(edge, place, pack(chosen.flatten(0, 1)).view(edges, b, words(n)), tied)


def check_select(of: View, rank: Tensor, sample: int = 0, spread: float = 0.0) -> None:
    found, want = native.select(of, rank, sample, spread), expected(of, rank)
    assert torch.equal(found.score, want.score)
    assert torch.equal(found.place, want.place)
    assert torch.equal(found.chosen, want.chosen)
    assert found.tied == want.tied


def ranks(b: int, n: int) -> Tensor:
    """0, 1, a twentieth, a half, all, and more than there are."""
    return torch.tensor([0, 1, n // 20, n // 2, n, n + 3]).expand(b, -1)


def check_all(of: View) -> None:
    """Every method on one view. The tolerance is that of float32 sums of its terms."""
    b, n = of.shape
    check_select(of, ranks(b, n))
    check_above(of)
    check_nearest(of, min(7, n + 1))
    if of.query.dim() == 2:
        check_sums(of)


def check_above(of: View) -> None:
    score = native.scores(of)
    bound = score.median(1).values if score.numel() else score.new_zeros(len(score))
    assert torch.equal(native.above(of, bound), pack(present(of) & (score > bound[:, None])))


def check_nearest(of: View, k: int) -> None:
    score, (found, column) = native.scores(of), native.nearest(of, k)
    for row, columns in enumerate(order(replace(of, place=None))):
        number = min(k, len(columns))
        assert torch.equal(column[row, :number], columns[:number])
        assert torch.equal(found[row, :number], score[row, columns[:number]])
        assert (column[row, number:] == -1).all() and (found[row, number:] == -torch.inf).all()


def close(found: Tensor | None, want: Tensor, off: float = 2e-5) -> None:
    assert found is not None
    assert found.dtype == torch.float32
    size = float(want.abs().max()) if want.numel() else 0.0
    torch.testing.assert_close(found.double(), want, rtol=off, atol=off * size + 1e-30)


def check_sums(of: View, scale: float = 3.0) -> None:
    """Values and slopes against autograd in float64. A row where nothing is has -inf, 0, 0."""
    leaves = [of.query.double(), of.keys.double(), torch.ones(of.shape[1]).double()]
    query, keys, by_key = (leaf.requires_grad_() for leaf in leaves)
    if of.key_factor is not None:
        by_key = of.key_factor.double().requires_grad_()
    by_query = 1 if of.query_factor is None else of.query_factor.double()[:, None]
    score = (query @ keys.T) * by_key * by_query
    some = present(of).any(1)
    lse = (score * scale).masked_fill(~present(of), -torch.inf)[some].logsumexp(1)
    weight = normal(int(some.sum()), seed=5)
    slopes = torch.autograd.grad((lse * weight).sum(), (query, keys, by_key))
    mean = ((score * scale).masked_fill(~present(of), -torch.inf)[some].softmax(1) * score[some]).sum(1).detach()

    narrow = of.keys.dtype == torch.bfloat16 and native.level in (
        "avx512",
        "amx",
    )  # products in 16 bits, as c/half.h says
    off = 1e-3 if narrow else 2e-5
    (value,), (toward,), (middle,) = native.sums(of, [scale], 1)  # type: ignore[misc]
    assert (value[~some] == -torch.inf).all()
    close(value[some], lse.detach(), off)
    padded = torch.zeros(len(some)).index_put((some.nonzero()[:, 0],), weight)
    close(toward * padded[:, None], slopes[0], off)
    close(middle, torch.zeros(len(some)).double().index_put((some.nonzero()[:, 0],), mean), off)
    assert native.sums(of, [scale], 0)[1:] == (None, None)

    spread = native.spread(of, scale, value, padded, True, True)
    close(spread.toward, slopes[0], off)
    close(spread.back, slopes[1], off)
    close(spread.back_factor, slopes[2], off)
    assert spread.mean is not None
    close(spread.mean[some], mean * weight, off)
    none = native.spread(of, scale, value, padded, False, False)
    assert (none.toward, none.mean, none.back, none.back_factor) == (None, None, None, None)


SHAPES = [(1, 1, 1), (3, 63, 5), (2, 64, 16), (5, 65, 17), (4, 1000, 33), (7, 1024, 64), (3, 4097, 128), (40, 300, 100)]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_method_in_every_type(shape: tuple[int, int, int], dtype: torch.dtype) -> None:
    of = view(*shape, dtype)
    close(native.scores(of), wide(of))
    check_all(of)
    check_all(View(of.query, of.keys))


@pytest.mark.parametrize("shape", [(0, 5, 3), (4, 0, 3), (0, 0, 3)], ids=str)
def test_no_queries_or_no_keys(shape: tuple[int, int, int]) -> None:
    of = view(*shape)
    check_all(of)
    check_all(replace(of, present=None, query_factor=None, key_factor=None, place=None))


def test_no_edges_and_no_neighbours() -> None:
    of = view(3, 70, 4)
    found = native.select(of, torch.empty(3, 0, dtype=torch.int64))
    assert found.score.shape == (3, 0) and found.chosen.shape == (0, 3, 2) and not found.tied
    assert native.nearest(of, 0)[0].shape == (3, 0)


@pytest.mark.parametrize("views", [2, 3, 5])
def test_the_best_of_several_views_counts(views: int) -> None:
    of = view(5, 700, 24, torch.bfloat16, views)
    close(native.scores(of), wide(of))
    check_all(of)
    check_all(replace(of, query_factor=None, key_factor=None, present=None, place=None))


def strided(keys: Tensor) -> dict[str, Tensor]:
    """The same keys in memory of other shapes, without a copy where rows are whole."""
    n, d = keys.shape
    apart, behind = torch.zeros(n, d + 3, dtype=keys.dtype), torch.zeros(n * d + 1, dtype=keys.dtype)
    apart[:, 2 : d + 2], behind[1:] = keys, keys.flatten()
    every_other = torch.zeros(2 * n, d, dtype=keys.dtype)
    every_other[::2] = keys
    return {
        "rows apart": apart[:, 2 : d + 2],
        "off alignment": behind[1:].view(n, d),
        "every other row": every_other[::2],
        "columns": keys.T.contiguous().T,
    }


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("how", ["rows apart", "off alignment", "every other row", "columns"])
def test_strides_do_not_matter(how: str, dtype: torch.dtype) -> None:
    of = view(5, 333, 19, dtype)
    other = replace(of, keys=strided(of.keys)[how], query=strided(of.query)[how])
    assert torch.equal(native.scores(of), native.scores(other))
    assert torch.equal(native.select(of, ranks(5, 333)).chosen, native.select(other, ranks(5, 333)).chosen)
    check_all(other)


def test_one_key_for_all_and_factors_that_are_parts_of_others() -> None:
    of = view(4, 130, 20)
    equal = replace(of, keys=of.keys[:1].expand(130, -1), key_factor=torch.ones(1).expand(130))
    assert equal.keys.stride() == (0, 1)
    check_all(equal)
    stacked = torch.stack([of.query_factor, of.query_factor], 1)
    assert torch.equal(native.scores(replace(of, query_factor=stacked[:, 0])), native.scores(of))


def test_queries_in_half_precision_are_widened() -> None:
    of = view(4, 200, 20)
    for dtype in DTYPES[1:]:
        narrow = of.query.to(dtype)
        assert torch.equal(native.scores(replace(of, query=narrow)), native.scores(replace(of, query=narrow.float())))


def test_what_lies_ready_is_not_copied() -> None:
    from onca.engine.native import _ready

    rows = normal(4, 5)
    assert _ready(rows.requires_grad_(), torch.float32, 4, 5).data_ptr() == rows.data_ptr()


COLLAPSED = {
    "coarse": lambda n, d: whole(n, d, seed=8),
    "all equal": lambda n, d: whole(1, d, seed=8).expand(n, d).clone(),
    "most equal": lambda n, d: torch.where(mask(0.7, n, 1), whole(1, d, seed=8), whole(n, d, seed=9)),
    "zeros": lambda n, d: torch.zeros(n, d),
    "nought of either sign": lambda n, d: torch.where(mask(0.5, n, 1), 0.0, -0.0).expand(n, d).clone(),
}


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("kind", COLLAPSED)
def test_ties_go_to_the_smaller_place(kind: str, dtype: torch.dtype) -> None:
    of = replace(view(6, 1500, 12), query=whole(6, 12, seed=1), key_factor=None, query_factor=None)
    of = replace(of, keys=COLLAPSED[kind](1500, 12).to(dtype))
    check_all(of)
    check_all(replace(of, present=None))
    check_all(replace(of, present=None, place=None))


@pytest.mark.parametrize("sample", [1, 7, 5000])
@pytest.mark.parametrize("spread", [0.01, 1.0])
def test_a_bracket_that_fails_changes_nothing(sample: int, spread: float) -> None:
    of = view(5, 3000, 16)
    check_select(of, ranks(5, 3000), sample, spread)
    check_select(replace(of, keys=whole(3000, 16)), ranks(5, 3000), sample, spread)


@pytest.mark.parametrize("power", [1e-30, 1e-18, 1e15])
def test_very_long_and_very_short_rows(power: float) -> None:
    of = view(4, 900, 24)
    long = replace(of, query=of.query * power)
    check_select(long, ranks(4, 900))
    check_above(long)
    check_nearest(long, 9)
    uneven = replace(of, keys=of.keys * torch.logspace(-12, 12, 900)[:, None])
    check_select(uneven, ranks(4, 900))
    check_nearest(uneven, 9)


def test_factors_may_be_negative_or_nought() -> None:
    of = view(5, 800, 24)
    signs = torch.tensor([-1.0, 0.0, 1.0])[torch.randint(3, (800,), generator=torch.Generator().manual_seed(1))]
    check_all(replace(of, key_factor=of.key_factor * signs))
    check_all(replace(of, query_factor=of.query_factor * torch.tensor([1.0, -1, 0, -2, 3])))


def test_temperatures_at_which_exp_overflows() -> None:
    of = view(4, 500, 24)
    check_sums(of, 0.0)
    for scale in (200.0, -20.0):
        value = native.sums(of, [scale], 0).lse[0]
        score = (wide(of) * scale).masked_fill(~present(of), -torch.inf)
        torch.testing.assert_close(value.double(), score.logsumexp(1), rtol=1e-5, atol=1e-4)


def test_bits_are_equal_counted_and_listed() -> None:
    b, n = 6, 200
    mine = torch.randint(-1, 4, (b,), generator=torch.Generator().manual_seed(0))
    theirs = torch.randint(-1, 4, (n,), generator=torch.Generator().manual_seed(1))
    mine[0] = -1
    found = native.equal(mine, theirs)
    want = (mine[:, None] == theirs) & (mine[:, None] >= 0)
    assert torch.equal(found, pack(want))
    assert not native.equal(mine, theirs)[0].any()
    assert torch.equal(native.count(found, n), want.sum(1))
    assert torch.equal(native.hits(found, n), want.sum(0))
    for most in (0, 1, 50, n + 5):
        listed = native.listed(found, n, most)
        for row, there in zip(listed, want, strict=True):
            columns = there.nonzero()[:most, 0]
            assert torch.equal(row[: len(columns)], columns) and (row[len(columns) :] == -1).all()


def test_bits_of_every_other_row() -> None:
    bits = pack(mask(0.5, 8, 130))
    assert torch.equal(native.count(bits[::2], 130), native.count(bits[::2].clone(), 130))
    assert torch.equal(native.hits(bits[::2], 130), native.hits(bits[::2].clone(), 130))


# Queries and keys that hold what is no number.


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_no_number_cannot_be_ranked(bad: float, dtype: torch.dtype) -> None:
    of = replace(view(3, 300, 20, dtype), present=None)
    for vectors in ("query", "keys"):
        poisoned = getattr(of, vectors).clone()
        poisoned[1, 7] = bad
        with pytest.raises(NotFinite, match="nan or inf"):
            native.select(replace(of, **{vectors: poisoned}), ranks(3, 300))


def test_a_sum_over_nan_is_not_finite() -> None:
    of = replace(view(3, 300, 20), present=None)
    of.keys[5, 3] = torch.nan
    try:
        value = native.sums(of, [2.0], 0).lse[0]
    except NotFinite:
        return
    assert not value.isfinite().any()


# Levels, threads, processes.


@pytest.mark.parametrize("level", HERE)
def test_levels_choose_and_add_up_alike(level: str) -> None:
    of = view(5, 2100, 50, torch.bfloat16)
    high = native.scores(of), native.select(of, ranks(5, 2100)), native.nearest(of, 40)
    native.use(level)
    assert native.level == level and str(native) == f"native ({level})"
    check_all(of)
    if level != "portable":  # which may round a product before it adds it
        assert torch.equal(native.scores(of), high[0])
        assert torch.equal(native.select(of, ranks(5, 2100)).chosen, high[1].chosen)
        assert torch.equal(native.nearest(of, 40)[1], high[2][1])
    exact = View(whole(5, 50), whole(2100, 50, seed=1))
    here = native.scores(exact), native.select(exact, ranks(5, 2100)).chosen
    native.use(HIGHEST)
    assert torch.equal(here[0], native.scores(exact))
    assert torch.equal(here[1], native.select(exact, ranks(5, 2100)).chosen)


def test_a_level_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="'sse9' is not on this machine"):
        native.use("sse9")
    assert native.level == HIGHEST


def everything(of: View) -> list[Tensor]:
    b, n = of.shape
    selected = native.select(of, ranks(b, n))
    (value,), (toward,), (mean,) = native.sums(of, [3.0], 1)  # type: ignore[misc]
    spread = native.spread(of, 3.0, value, torch.ones(b), True, True)
    parts = [*native.nearest(of, 5), selected.score, selected.place, selected.chosen, value, toward, mean]
    return [x for x in (*parts, spread.toward, spread.back, spread.back_factor) if x is not None]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(one, other, strict=True))


def test_two_calls_give_the_same_bits() -> None:
    of = view(9, 3000, 40, torch.bfloat16)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        assert same(everything(of), everything(of))


def test_sets_do_not_depend_on_threads() -> None:
    of = view(13, 3000, 40)
    torch.set_num_threads(1)
    alone = native.select(of, ranks(13, 3000)), native.nearest(of, 5)
    for threads in (2, 3, 16):
        torch.set_num_threads(threads)
        assert torch.equal(native.select(of, ranks(13, 3000)).chosen, alone[0].chosen)
        assert torch.equal(native.nearest(of, 5)[1], alone[1][1])
        check_sums(of)


def test_two_threads_of_python_at_once() -> None:
    views = [view(8, 2500, 32, seed=seed) for seed in range(8)]
    alone = [everything(of) for of in views]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            assert all(same(one, other) for one, other in zip(pool.map(everything, views), alone, strict=True))


def _child(of: View, pipe: multiprocessing.connection.Connection) -> None:
    pipe.send([x.numpy().tobytes() for x in everything(of)])


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="this system cannot fork")
def test_a_child_that_was_forked_after_the_first_use() -> None:
    of = view(8, 2500, 32)
    torch.set_num_threads(2)
    want = [x.numpy().tobytes() for x in everything(of)]
    fork = multiprocessing.get_context("fork")
    mine, its = fork.Pipe()
    child = fork.Process(target=_child, args=(of, its))
    child.start()
    assert mine.poll(30), "the child does not answer"
    assert mine.recv() == want
    child.join(10)
    assert child.exitcode == 0


# What is refused.


def test_what_is_not_served_is_said_in_words() -> None:
    rows = normal(3, 4)
    assert native.serves(rows, rows.bfloat16()) == ""
    assert "float64" in native.serves(rows.double(), rows)
    assert "keys are float64" in native.serves(rows, rows.double())
    assert "queries are on meta" in native.serves(rows.to("meta"), rows)
    with pytest.raises(ValueError, match=r"queries \[3, 1, 4\] and keys"):
        native.scores(View(rows, rows.double()))


def test_shapes_that_do_not_meet_are_refused_before_c_reads_past_them() -> None:
    of = view(3, 70, 4)
    for wrong in (
        replace(of, keys=normal(70, 5)),
        replace(of, present=pack(mask(0.5, 3, 64))),
        replace(of, present=pack(mask(0.5, 2, 70))),
        replace(of, key_factor=torch.ones(69)),
        replace(of, query_factor=torch.ones(3, 1)),
        replace(of, place=torch.arange(71)),
    ):
        with pytest.raises(ValueError, match="the native engine was given"):
            native.select(wrong, ranks(3, 70))
    for call in (
        lambda: native.select(of, ranks(2, 70)),
        lambda: native.above(of, torch.zeros(4)),
        lambda: native.spread(of, 1.0, torch.zeros(3), torch.zeros(2), True, False),
        lambda: native.count(pack(mask(0.5, 3, 64)), 65),
    ):
        with pytest.raises(ValueError, match="the native engine was given"):
            call()


# Drawn cases.


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_sets_of_drawn_cases(data: st.DataObject) -> None:
    b, n, d = (data.draw(st.integers(1, most), label) for most, label in ((6, "B"), (260, "N"), (40, "D")))
    seed, most = data.draw(st.integers(0, 1000), "seed"), data.draw(st.integers(0, 3), "coarseness")
    of = view(b, n, d, data.draw(st.sampled_from(DTYPES), "dtype"), data.draw(st.integers(1, 3), "views"), seed)
    if most:
        of = replace(of, keys=whole(n, d, seed=seed, most=most).to(of.keys.dtype), key_factor=None, query_factor=None)
    if data.draw(st.booleans(), "all present"):
        of = replace(of, present=None)
    native.use(data.draw(st.sampled_from(HERE), "level"))
    rank = data.draw(st.lists(st.integers(0, n + 2), min_size=b, max_size=b), "rank")
    check_select(of, torch.tensor(rank)[:, None], data.draw(st.integers(0, 50), "sample"))
    check_nearest(of, data.draw(st.integers(0, n + 2), "k"))
    check_above(of)
