"""The Triton engine: under the interpreter on a CPU, as it is on a GPU. Sets against a stable descending sort in
float64 of the engine's own scores; sums and slopes against float64."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from collections.abc import Callable

import pytest
import torch
from dense_kernels import Dense
from torch import Tensor

from onca.engine.kernels import NotFinite, Selected, View, pack, unpack

if importlib.util.find_spec("triton") is None:
    pytest.skip("Triton is not installed (torch brings it on Linux with CUDA)", allow_module_level=True)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
INTERPRET = ("TRITON_INTERPRET", "0" if DEVICE == "cuda" else "1")
with pytest.MonkeyPatch.context() as patch:  # read when kernels are imported, and when they run
    patch.setenv(*INTERPRET)
    from onca.engine.gpu import plan, selection
    from onca.engine.gpu.engine import Triton

BATCH, KEYS, DIM = 5, 150, 20
ENGINE = Triton(sample=48)  # of 150 keys: sample and stream are two things


@pytest.fixture(autouse=True)
def interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*INTERPRET)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE)


def steps(*shape: int, seed: int = 0) -> Tensor:
    """Embeddings of -1, 0 and 1: their products are exact, and most of them tie."""
    return torch.randint(-1, 2, shape, generator=torch.Generator().manual_seed(seed)).float().to(DEVICE)


def some(share: float, batch: int = BATCH, keys: int = KEYS, seed: int = 7) -> Tensor:
    return torch.rand(batch, keys, generator=torch.Generator().manual_seed(seed)).to(DEVICE) < share


def ranks(*percent: float, number: Tensor) -> Tensor:
    return torch.stack([(number * p / 100 + 0.5).floor().long() for p in percent], 1)


def check(view: View, rank: Tensor, engine: Triton = ENGINE) -> Selected:
    """Sets, edges and the note of ties of `select`, entry by entry."""
    selected = engine.select(view, rank)
    batch, keys = view.shape
    score = engine.scores(view).double()
    there = torch.ones_like(score, dtype=torch.bool) if view.present is None else unpack(view.present, keys)
    place = torch.arange(keys, device=DEVICE) if view.place is None else view.place
    column = place.argsort()
    ordered = score.masked_fill(~there, -torch.inf)[:, column].sort(dim=1, descending=True, stable=True)
    tied = False
    for edge in range(rank.shape[1]):
        chosen = unpack(selected.chosen[edge], keys)
        for row in range(batch):
            count = min(int(rank[row, edge]), int(there[row].sum()))
            hardest = column[ordered.indices[row, :count]]
            assert chosen[row].nonzero()[:, 0].tolist() == sorted(hardest.tolist()), (edge, row)
            last = (ordered.values[row, count - 1].item(), place[hardest[-1]].item()) if count else (torch.inf, -1)
            assert (selected.score[row, edge].item(), selected.place[row, edge].item()) == last, (edge, row)
            tied |= count > 0 and int((score[row][there[row]] == last[0]).sum()) > 1
    assert selected.tied == tied
    padding = selected.chosen[..., -1] >> (keys % 64) if keys % 64 else torch.zeros(1)
    assert not padding.any()
    return selected


WINDOWS = {"[0,1]": (1.0,), "[40,60]": (40.0, 60.0), "[99.9,100]": (99.9, 100.0), "nothing": (0.0,)}


@pytest.mark.parametrize("percent", WINDOWS.values(), ids=WINDOWS)
def test_windows(percent: tuple[float, ...]) -> None:
    number = torch.full((BATCH,), KEYS, device=DEVICE)
    check(View(normal(BATCH, DIM), normal(KEYS, DIM, seed=1)), ranks(*percent, number=number))


@pytest.mark.parametrize("keys", [1, 64, 70])
def test_any_number_of_keys_with_the_engines_own_sample(keys: int) -> None:
    rank = torch.tensor([[0, 1], [1, keys], [keys // 2, keys // 3]], device=DEVICE)
    check(View(normal(3, DIM), normal(keys, DIM, seed=1)), rank, Triton())


def test_several_blocks_of_rows_and_three_edges_with_a_rank_for_each_row() -> None:
    rank = torch.randint(0, 75, (17, 3), generator=torch.Generator().manual_seed(3)).to(DEVICE)
    view = View(normal(17, DIM), normal(70, DIM, seed=1), present=pack(some(0.8, 17, 70)))
    check(view, rank, Triton(sample=48))  # some ranks are more than are present


def test_factors_and_absent_entries_and_rows_without_any() -> None:
    there = some(0.5)
    there[2] = False
    by_query, by_key = normal(BATCH, seed=3).abs(), normal(KEYS, seed=4).abs()
    view = View(normal(BATCH, DIM), normal(KEYS, DIM, seed=1), by_query, by_key, pack(there))
    check(view, ranks(5, 50, number=there.sum(1)))


def test_all_masked() -> None:
    view = View(normal(BATCH, DIM), normal(KEYS, DIM), present=pack(some(0.0)))
    check(view, torch.full((BATCH, 2), 3, device=DEVICE))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision(dtype: torch.dtype) -> None:
    view = View(normal(BATCH, DIM).to(dtype), normal(KEYS, DIM, seed=1).to(dtype))
    exact = view.query.double() @ view.keys.double().t()
    torch.testing.assert_close(ENGINE.scores(view).double(), exact, rtol=1e-5, atol=1e-5)
    check(view, torch.full((BATCH, 1), 17, device=DEVICE))


def test_queries_and_keys_of_different_types_and_odd_strides() -> None:
    query, keys = normal(BATCH, 2 * DIM)[:, ::2], normal(KEYS, 50, seed=1).bfloat16()[:, 3:43]
    query = torch.cat([query, query], 1)
    check(View(query, keys), torch.full((BATCH, 1), 17, device=DEVICE))


def test_the_largest_score_of_several_views_counts() -> None:
    query, by_query = normal(BATCH, 3, 40), normal(BATCH, 3, seed=3).abs()
    view = View(query, normal(KEYS, 40, seed=1), by_query)
    exact = (query.double() @ view.keys.double().t() * by_query[:, :, None]).amax(1)
    torch.testing.assert_close(ENGINE.scores(view).double(), exact, rtol=1e-5, atol=1e-5)
    check(view, torch.full((BATCH, 1), 17, device=DEVICE))


@pytest.mark.parametrize("placed", [False, True], ids=["columns", "places"])
def test_ties_go_to_the_smaller_place(placed: bool) -> None:
    place = torch.randperm(KEYS, generator=torch.Generator().manual_seed(5)).to(DEVICE) + 11 if placed else None
    view = View(steps(BATCH, DIM), steps(KEYS, DIM, seed=1), present=pack(some(0.7)), place=place)
    assert check(view, torch.full((BATCH, 2), 40, device=DEVICE) + torch.tensor([0, 33], device=DEVICE)).tied


@pytest.mark.parametrize("share", [1.0, 0.7], ids=["all", "70 %"])
def test_equal_keys_overflow_a_list(share: float) -> None:
    keys = torch.where(some(share, 1).t(), normal(1, DIM), normal(KEYS, DIM, seed=1))
    view = View(normal(BATCH, DIM, seed=2), keys)
    check(view, torch.full((BATCH, 1), 60, device=DEVICE), Triton(sample=48, room=8))


FAILING = {"bracket": Triton(sample=16, deviations=-0.5), "list": Triton(sample=48, room=1)}


@pytest.mark.parametrize("engine", FAILING.values(), ids=FAILING)
def test_a_failing_bracket_or_list_changes_no_result(engine: Triton) -> None:
    place = torch.arange(KEYS, device=DEVICE).flip(0)
    view = View(normal(BATCH, DIM), normal(KEYS, DIM, seed=1), present=pack(some(0.6)), place=place)
    rank = torch.tensor([10, 0, 40, 70, 150], device=DEVICE)[:, None]
    check(view, rank, engine)
    given = plan.operands(view)
    failed = engine._chosen(given, engine._present(given), rank)[1].failed[0]
    assert failed.any(), "no row failed: the case shows nothing"
    assert not failed[rank[:, 0] == 0].any(), "a row without a rank cannot fail"


def test_without_the_second_look_failing_rows_are_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nothing:
        def __getitem__(self, grid: object) -> Callable[..., None]:
            return lambda *_, **__: None

    monkeypatch.setattr(selection, "rescue_kernel", Nothing())
    view = View(normal(BATCH, DIM), normal(KEYS, DIM, seed=1))
    with pytest.raises(AssertionError):
        check(view, torch.full((BATCH, 1), 60, device=DEVICE), FAILING["list"])


def test_blocks_of_queries_that_share_scratch_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "SCRATCH", 1)
    view = View(normal(18, DIM), normal(KEYS, DIM, seed=1), normal(18, seed=3), present=pack(some(0.6, 18)))
    check(view, torch.full((18, 1), 20, device=DEVICE))


@pytest.mark.parametrize("value", [torch.nan, torch.inf], ids=str)
def test_what_is_not_finite_is_refused(value: float) -> None:
    keys = normal(KEYS, DIM)
    keys[70, 3] = value
    with pytest.raises(NotFinite, match="not a number"):
        ENGINE.select(View(normal(1, DIM), keys), torch.ones(1, 1, dtype=torch.long, device=DEVICE))


def test_two_runs_give_the_same_bits() -> None:
    view = View(normal(BATCH, DIM), normal(KEYS, DIM, seed=1), present=pack(some(0.6)))
    rank = torch.full((BATCH, 2), 30, device=DEVICE)
    one, two = ENGINE.select(view, rank), ENGINE.select(view, rank)
    assert torch.equal(one.chosen, two.chosen) and torch.equal(one.score, two.score)
    first, second = ENGINE.sums(view, [5.0, 2.0], 2), ENGINE.sums(view, [5.0, 2.0], 2)
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True) if a is not None and b is not None)


def test_above() -> None:
    there = some(0.6)
    view = View(normal(BATCH, DIM), normal(KEYS, DIM, seed=1), present=pack(there))
    bound = torch.tensor([-1.0, 0.0, 1.0, torch.inf, -torch.inf], device=DEVICE)
    assert torch.equal(unpack(ENGINE.above(view, bound), KEYS), there & (ENGINE.scores(view) > bound[:, None]))


@pytest.mark.parametrize("k", [1, 7, 100])
def test_nearest(k: int) -> None:
    there = some(0.3)
    place = torch.arange(KEYS, device=DEVICE).flip(0)
    view = View(steps(BATCH, DIM), steps(KEYS, DIM, seed=1), present=pack(there), place=place)
    score, column = ENGINE.nearest(view, k)
    backwards = ENGINE.scores(view).masked_fill(~there, -torch.inf).flip(1)
    best = backwards.sort(dim=1, descending=True, stable=True)
    assert torch.equal(score, best.values[:, :k])
    expected = (KEYS - 1 - best.indices[:, :k]).masked_fill(score == -torch.inf, -1)
    assert torch.equal(column, expected)


TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@pytest.mark.parametrize("name, dim", [("float32", 150), ("float32", 20), ("bfloat16", 20), ("float16", 20)])
def test_sums_and_slopes(name: str, dim: int) -> None:
    """150 dimensions make two parts of a slope."""
    dtype = TYPES[name]
    batch, keys, scale = 18, 100, 12.0
    there = some(0.5, batch, keys)
    there[3] = False
    query, key = (torch.nn.functional.normalize(x, dim=1).to(dtype) for x in (normal(batch, dim), normal(keys, dim)))
    by_query, by_key = normal(batch, seed=3).abs() + 0.5, normal(keys, seed=4).abs() + 0.5
    view = View(query, key, by_query, by_key, pack(there))
    weight = normal(batch, seed=5)
    wide = [x.double().requires_grad_() for x in (query, key, by_key)]
    score = wide[0] @ wide[1].t() * wide[2] * by_query.double()[:, None]
    exact = torch.where(there, scale * score, -torch.inf)[there.any(1)].logsumexp(1)
    slopes = torch.autograd.grad((exact * weight[there.any(1)]).sum(), wide, retain_graph=True)
    share = torch.where(there, scale * score, -torch.inf).softmax(1).nan_to_num(0)

    (lse,), (slope,), (mean,) = ENGINE.sums(view, [scale], 1)  # type: ignore[misc]
    plain, *nothing = ENGINE.sums(view, [scale], 0)
    both = ENGINE.sums(view, [scale, 3.0], 1)
    spread = ENGINE.spread(view, scale, lse, weight, True, True)
    assert nothing == [None, None] and torch.equal(plain[0], lse)
    assert torch.equal(both.lse, torch.cat([plain, ENGINE.sums(view, [3.0], 0).lse]))
    assert both.toward is not None and torch.equal(both.toward, slope[None])
    assert spread.toward is not None and spread.mean is not None
    assert lse[3] == -torch.inf and mean[3] == 0 and not slope[3].any()
    rough = 1 if dtype == torch.float32 or DEVICE == "cpu" else 1000  # weights are rounded to the keys' type
    close(lse[there.any(1)], exact.detach(), 1e-6)
    close(mean, (share * score).sum(1).detach(), 1e-6)
    close(slope, torch.autograd.grad(exact.sum(), wide[0])[0], 2e-6 * rough)
    close(spread.mean, (share * score).sum(1).detach() * weight, 1e-6)
    for own, right in zip((spread.toward, spread.back, spread.back_factor), slopes, strict=True):
        assert own is not None
        close(own, right, 1e-5 * rough)  # lse is 68, rounded to float32


def close(own: Tensor, right: Tensor, tolerance: float) -> None:
    """Within a share of the largest entry."""
    torch.testing.assert_close(own.double(), right, rtol=0, atol=tolerance * float(right.abs().max()))


def test_sums_without_factors_and_with_all_present() -> None:
    view = View(normal(BATCH, DIM), normal(KEYS, DIM, seed=1))
    lse, slope, mean = ENGINE.sums(view, [2.0], 0)
    close(lse[0], (2 * view.query.double() @ view.keys.double().t()).logsumexp(1), 1e-6)
    assert slope is mean is None


def test_sums_at_a_temperature_that_overflows_without_a_reference() -> None:
    view = View(normal(BATCH, DIM), normal(KEYS, DIM, seed=1))
    close(ENGINE.sums(view, [1e4], 0).lse[0], (1e4 * view.query.double() @ view.keys.double().t()).logsumexp(1), 1e-6)


def test_hinges() -> None:
    """Against what holds everything in float64; the scores differ by their rounding, so does the sum of 150 of them."""
    query, keys = normal(BATCH, DIM), normal(KEYS, DIM, seed=1)
    view = View(query, keys, normal(BATCH, seed=2).abs(), normal(KEYS, seed=3).abs(), pack(some(0.6)))
    own, right = (engine.hinge(view, normal(BATCH, seed=4), True) for engine in (ENGINE, Dense()))
    assert torch.equal(own.active, right.active)
    for name in ("total", "toward", "mass"):
        torch.testing.assert_close(getattr(own, name), getattr(right, name), rtol=1e-5, atol=1e-4)


def test_bits() -> None:
    there = some(0.3)
    there[1] = False
    bits = pack(there)
    assert torch.equal(ENGINE.count(bits, KEYS), there.sum(1))
    assert torch.equal(ENGINE.hits(bits, KEYS), there.sum(0))
    listed = [[*row.nonzero()[:, 0].tolist(), *[-1] * 50][:50] for row in there]
    assert ENGINE.listed(bits, KEYS, 50).tolist() == listed
    mine = torch.tensor([3, -1, 0, 9, 1], device=DEVICE)
    theirs = torch.arange(KEYS, device=DEVICE) % 6 - 1
    assert torch.equal(unpack(ENGINE.equal(mine, theirs), KEYS), (mine[:, None] == theirs) & (mine >= 0)[:, None])


def test_what_is_not_served_is_said() -> None:
    query, keys = normal(BATCH, DIM), normal(KEYS, DIM)
    assert ENGINE.serves(query, keys) == ""
    assert "float64" in ENGINE.serves(query.double(), keys)
    assert "1025 dimensions" in ENGINE.serves(normal(1, 1025), normal(2, 1025))
    assert "no keys" in ENGINE.serves(query, keys[:0])
    assert ENGINE.serves(query.to("meta"), keys.to("meta")) == "tensors are on meta"


def test_where_triton_is_missing_the_package_says_so() -> None:
    program = (
        "import sys; sys.modules['triton'] = None\n"
        "import importlib.util as u; found = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'triton' else found(name, *a)\n"
        "import onca\n"
        "try: onca.engine('triton')\n"
        "except ValueError as problem: print(problem)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "the Triton engine cannot run: Triton is not installed"


COMPILE = """
import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

class Hopper:
    get_current_target = staticmethod(lambda: GPUTarget("cuda", 90, 32))
    get_current_device = staticmethod(lambda: 0)
    get_current_stream = staticmethod(lambda device: 0)

def compiled(self, *args, grid, warmup, **options):
    made = run(self, *args, grid=grid, warmup=True, **options)
    print(self.__name__, made.metadata.shared, "wgmma" in made.asm["ptx"])

run, JITFunction.run = JITFunction.run, compiled
driver.set_active(Hopper())
from onca.engine.gpu import plan
from onca.engine.gpu.engine import Triton
from onca.engine.kernels import View
plan.splits = lambda view: 8
view = View(torch.ones(1024, 128).bfloat16(), torch.ones(640, 128).bfloat16())
Triton().select(view, torch.ones(1024, 1, dtype=torch.long))
Triton().spread(view, 5.0, torch.zeros(1024), torch.ones(1024), True, True)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="Triton's wheels bring the assembler for Linux alone")
def test_kernels_compile_for_hopper_and_fit_its_shared_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the interpreter does not see: types, layouts, sizes. Needs no GPU: nothing is run."""
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    done = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kernels = {name: (int(shared), tensor) for name, shared, tensor in map(str.split, done.stdout.splitlines())}
    scoring = {f"{name}_kernel" for name in ("sample", "stream", "rescue", "sums", "back")}
    assert {name for name, (_, tensor) in kernels.items() if tensor == "True"} == scoring
    assert kernels.keys() == scoring | {"bracket_kernel", "finish_kernel", "merge_kernel"}
    assert all(shared <= 227 << 10 for shared, _ in kernels.values())
