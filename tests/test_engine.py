"""Engines behind the walks: the same losses, derivatives and sets whichever serves, and torch where none does."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import torch
from dense_kernels import Dense
from pools import SETTINGS, derive
from test_algebra import METHODS, expected, fits, found

import onca
from onca import Bag, Link, Queue
from onca.engine import build, in_use, traced
from onca.engine.kernels import pack, unpack
from onca.explain import explain, table
from onca.ranking import SupportScore
from onca.shared import whole

Tensor = torch.Tensor
SHARED = [name for name in SETTINGS if name != "per query"]


@pytest.fixture(params=["native", "dense"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """native; or one that holds everything, so that a fault is the walks' own when it fails too."""
    if request.param == "dense":
        monkeypatch.setattr(import_module("onca.engine"), "_loaded", lambda name: Dense())
    with onca.engine("native"):
        yield request.param


@pytest.mark.parametrize(
    ("method", "setting"),
    [pytest.param(m, s, id=f"{m}-{s}") for m in METHODS for s in SHARED if fits(m, s)],
)
def test_equals_the_oracle(method: str, setting: str, engine: str) -> None:
    """float32: twenty units in its last place for a loss, which sums some thirty terms of mixed sign."""
    losses, gradients = expected(method, setting, torch.float32)
    got, got_gradients = found(method, setting, torch.float32)
    torch.testing.assert_close(got.double(), losses, rtol=2e-5, atol=2e-6)
    for mine, theirs in zip(got_gradients, gradients, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=0, atol=1e-4 * float(theirs.abs().max()) + 1e-7)


# Who serves what.


def served(method: str, **more: Any) -> set[tuple[str, str]]:
    draw = torch.Generator().manual_seed(0)
    query, positive, keys = (torch.randn(n, 16, generator=draw) for n in (8, 8, 500))
    with traced() as seen:
        onca.contrast(query.requires_grad_(), positive, keys, method, **more).backward()
    return set(seen)


def test_a_window_is_served_whole(engine: str) -> None:
    assert {walk: by for walk, by in served("chain(keep(hardest(5)), infonce)") if walk != "mean"} == {
        "kth": engine,
        "lse": engine,
    }


@pytest.mark.parametrize(
    "method",
    [
        "infonce", "chain(keep(window(40, 60)), infonce)", "chain(drop(hardest(1)), infonce)",
        "chain(drop(same_class), infonce)", "hcl()", "debiased(0.1)", "chain(ring(), infonce)",
        "chain(cancel(k=5, by=support_max), infonce)", "chain(cancel(k=5, by=support_mean), infonce)",
        "chain(keep(semihard(0.2)), infonce)", "chain(keep(semihard(0.2)), triplet(0.2))",
        "chain(keep(nearest(100)), infonce)",
    ],
)  # fmt: skip
def test_the_covered_methods_go_over_keys_in_an_engine(method: str, engine: str) -> None:
    draw = torch.Generator().manual_seed(1)
    more = {
        "label": torch.arange(8) % 3, "negative_label": torch.arange(500) % 3, "index": torch.arange(8),
        "negative_index": torch.arange(500), "support": torch.randn(8, 3, 16, generator=draw),
    }  # fmt: skip
    own = "torch: entries of each query's own"  # positives
    assert {by for walk, by in served(method, **more) if walk != "mean"} <= {engine, own}


@pytest.mark.parametrize(
    ("method", "walks"), [("hcl()", 1), ("hcl(attached=False)", 1), ("chain(harden(1), drop(hardest(5)), infonce)", 2)]
)
def test_weights_of_the_entries_that_are_summed_are_made_in_passing(method: str, walks: int, engine: str) -> None:
    query, positive, keys = (torch.randn(n, 16) for n in (8, 8, 500))
    with traced() as seen:
        onca.contrast(query, positive, keys, method, 0.2)
    assert seen.count(("lse", engine)) == walks


def test_torch_serves_what_no_engine_knows() -> None:
    reasons = {
        "chain(keep(sample(5)), infonce)": "a test that only torch can put",
        "chain(mirror(easiest(5)), infonce)": "scores with the opposite sign",
    }
    with onca.engine("native"):
        for method, reason in reasons.items():
            assert ("lse", f"torch: {reason}") in served(method)
    with onca.engine("torch"):
        assert ("lse", "torch: as asked") in served("infonce")


def test_the_native_engine_is_there_wherever_a_compiler_is() -> None:
    """Other tests pass it over where it is not: none may do so here for a stale or a broken object."""
    try:
        build.compiler()
    except build.NotBuilt as reason:
        pytest.skip(str(reason))
    assert in_use().startswith("native ("), in_use()


def test_engines_are_named_and_restored() -> None:
    with pytest.raises(ValueError, match="engine 'natve' is not known; take one of auto, torch, native, triton"):
        onca.engine("natve")
    before = in_use()
    with onca.engine("torch"):
        assert in_use() == "torch"
    assert in_use() == before


# Memories: rings of two spans, reserves, and what comes of a refill.


@pytest.mark.parametrize("enqueued", [40, 100, 130, 190, 333])
@pytest.mark.parametrize("rule", ["keep(window(20, 70))", "drop(hardest(5), refill=True)", "drop(same_class)"])
def test_a_ring_with_a_reserve(enqueued: int, rule: str, engine: str) -> None:
    """Wherever the ring stands, its links are one tensor to an engine, and ties go by place, not by slot."""
    draw = torch.Generator().manual_seed(enqueued)
    queue = Queue(96, 6, reserve=96)
    eighths = (8 * torch.randn(enqueued, 6, generator=draw)).round() / 8  # products are exact, ranks tie
    queue.enqueue(eighths, torch.arange(enqueued), torch.arange(enqueued) % 5)
    query = (8 * torch.randn(7, 6, generator=draw)).round() / 8
    own = torch.arange(enqueued - 3, enqueued + 4)
    results = []
    for name in ("native", "torch"):
        with onca.engine(name):
            pool = onca.Pool(
                positives=Bag(query, (Link(query[:, None], role="same image"),), query_index=own),
                negatives=queue.negatives(query, own),
                reserve=queue.older(query, own),
                temperature=0.5,
                label=torch.arange(7) % 5,
                index=own,
            )
            left = onca.read(rule)(pool)
            bag = left.negatives
            everything = onca.above(-99.0)(left, bag)
            results.append((bag.count(), bag.rows(everything, 96), bag.hits(everything), bag.lse(2.0)))
    for mine, theirs in zip(*results, strict=True):
        if mine.dtype == torch.int64:
            assert torch.equal(mine, theirs)
        else:
            torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("parts", ["twice", "columns", "overlap", "rows"])
@pytest.mark.parametrize(
    "method",
    ["infonce", "chain(drop(same_class), infonce)", "chain(keep(~given), infonce)", "chain(keep(hardest(5)), infonce)"],
)
def test_negatives_of_one_tensor(parts: str, method: str, normalize: bool, engine: str) -> None:
    """The same rows twice, columns of one matrix, rows that meet, rows that do not: each entry counts for itself."""
    draw = torch.Generator().manual_seed(4)
    whole = (8 * torch.randn(400, 32, generator=draw)).round() / 8
    cut = {
        "twice": [whole[:200, :16]] * 2, "columns": [whole[:, :16], whole[:, 16:]],
        "overlap": [whole[:300, :16], whole[100:, :16]], "rows": [whole[200:, :16], whole[:200, :16]],
    }[parts]  # fmt: skip
    query, numbers = (8 * torch.randn(6, 16, generator=draw)).round() / 8, [len(keys) for keys in cut]
    more = {
        "label": torch.arange(6) % 3, "index": torch.arange(6),
        "given": torch.rand(6, sum(numbers), generator=draw) < 0.3,
        "negative_label": [(torch.arange(n) + i) % (3 + i) for i, n in enumerate(numbers)],
        "negative_index": [torch.arange(n) // (1 + i) for i, n in enumerate(numbers)],
    }  # fmt: skip
    losses = []
    for name in ("native", "torch"):
        with onca.engine(name):
            found = onca.contrast(query, query, cut, method, 0.5, reduction="none", normalize=normalize, **more)
            losses.append(found)
    torch.testing.assert_close(*losses, rtol=2e-5, atol=2e-6)


def test_a_set_is_never_judged_again_by_scores() -> None:
    """Two routines round products apart: a set that was chosen is the same to every walk, also those of torch."""
    draw = torch.Generator().manual_seed(3)
    query, keys = torch.randn(64, 128, generator=draw), torch.randn(4000, 128, generator=draw)
    pool = onca.pool(query, query, keys)
    with onca.engine("native"):
        test = onca.hardest(5)(pool, pool.negatives)
        chosen = pool.negatives.only(test)
        assert chosen.count().tolist() == [200] * 64
        by_torch = torch.cat([piece.present() for _, (piece,) in chosen.blocks()])
        assert torch.equal(by_torch.sum(1), chosen.count())


@pytest.mark.skipif(in_use().startswith("torch"), reason="no native engine here")
def test_kept_scores_go_where_they_are_the_scores_and_nowhere_else() -> None:
    query, keys, support = (torch.randn(*shape) for shape in ((4, 8), (600, 8), (4, 3, 8)))
    bag = Bag(query, (Link(keys),))
    hardest = bag.threshold(30).test()
    shared = whole(bag.only(hardest), "lse")
    assert shared is not None and shared.known is not None
    assert shared.view(shared.present).known is shared.known
    other = SupportScore(support, largest=True).view(shared, None)
    assert other is not None and other.known is None  # scores of other rows
    for changed in (Bag(query.clone(), bag.links), Bag(query, bag.links, factor=torch.ones(4))):
        elsewhere = whole(changed.only(hardest), "lse")
        assert elsewhere is not None and elsewhere.known is None


@pytest.mark.parametrize("keys", [1, 63, 64, 65, 1000])
def test_bits(keys: int) -> None:
    there = torch.rand(5, keys, generator=torch.Generator().manual_seed(keys)) < 0.5
    assert torch.equal(unpack(pack(there), keys), there)
    assert pack(there).shape == (5, (keys + 63) // 64)


# Gradients.


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(
    "method",
    [
        "infonce", "chain(keep(hardest(10)), infonce)", "hcl()", "hcl(attached=False)",
        "chain(harden(1), drop(hardest(10)), infonce)", "chain(harden(1), harden(0.5, False), infonce)",
    ],
)  # fmt: skip
def test_gradients_of_queries_and_keys(method: str, normalize: bool, dtype: torch.dtype, engine: str) -> None:
    draw = torch.Generator().manual_seed(5)
    leaves = [torch.nn.functional.normalize(torch.randn(n, 24, generator=draw)).to(dtype) for n in (12, 12, 700)]
    slopes = []
    for name, wide in (("native", dtype), ("torch", torch.float64)):
        with onca.engine(name):
            own = [x.to(wide).requires_grad_() for x in leaves]
            losses = onca.contrast(*own, method=method, temperature=0.3, reduction="none", normalize=normalize)
            slopes.append([*derive(losses, own), losses.detach()])
    share = 1e-4 if dtype == torch.float32 else 4 * torch.finfo(dtype).eps
    for mine, theirs in zip(*slopes, strict=True):
        torch.testing.assert_close(mine.double(), theirs, rtol=0, atol=share * float(theirs.abs().max()))


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize(("count", "method"), [(12, "infonce"), (300, "infonce"), (300, "hcl()")])
def test_queries_that_are_the_keys(normalize: bool, count: int, method: str, engine: str) -> None:
    """A row's slopes as a query and as a key come together, one product less, where who sees whom is mutual."""
    z = torch.randn(count, 24, generator=torch.Generator().manual_seed(9)) / 3
    image = torch.arange(count // 2).repeat(2)
    image[:5] = -1  # unknown: these see all, themselves too
    pair = torch.arange(count).roll(count // 2)
    other = image.flip(0)
    for index, negative in ((image, image), (image, image.clone()), (image, other), (None, None)):
        slopes = []
        for name, wide in (("native", torch.float32), ("torch", torch.float64)):
            with onca.engine(name):
                rows = z.to(wide).requires_grad_()
                more = {"index": index, "negative_index": negative, "normalize": normalize, "reduction": "none"}
                losses = onca.contrast(rows, rows[pair], rows, method, 0.3, **more)
                slopes.append(derive(losses, [rows])[0].double())
        torch.testing.assert_close(*slopes, rtol=0, atol=2e-5 * float(slopes[1].abs().max()))


def test_a_memory_may_change_between_forward_and_backward_of_a_query(engine: str) -> None:
    query, keys = torch.randn(4, 8).requires_grad_(), torch.randn(200, 8)
    loss = onca.contrast(query, query.detach(), keys, "infonce")
    wanted = torch.autograd.grad(loss, query, retain_graph=True)[0]
    keys.zero_()
    assert torch.equal(torch.autograd.grad(loss, query)[0], wanted)


def test_keys_that_want_a_gradient_may_not_change(engine: str) -> None:
    query, keys = torch.randn(4, 8), torch.randn(200, 8).requires_grad_()
    rows = keys * 1
    loss = onca.contrast(query, query, rows, "infonce")
    with torch.no_grad():
        rows.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("where", ["query", "negatives"])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_a_loss_that_is_not_finite_is_traced_back(where: str, bad: float, engine: str) -> None:
    values = {"query": torch.randn(6, 8), "positive": torch.randn(6, 8), "negatives": torch.randn(300, 8)}
    values[where][4, 3] = bad
    with pytest.raises(ValueError, match=f"{where}, row 4 holds nan or inf"):
        onca.contrast(**values, method="chain(keep(hardest(5)), infonce)")


def test_explain_names_each_part_and_what_serves_it(engine: str) -> None:
    rows = explain("chain(keep(hardest(5)), harden(0.5), infonce)")
    assert ("keep(hardest(5))", "kth", engine) in rows and ("infonce", "lse", engine) in rows
    assert rows[0][0] == "keep(hardest(5))"
    assert all(len(line) <= 80 for line in table("total((1, infonce), (0.5, hcl()))").splitlines())
