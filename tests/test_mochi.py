"""MoCHi (2010.01028) against per-query loops in float64, its pitfalls, and what it may hold in memory."""

import sys
from dataclasses import replace
from typing import Any

import oracle
import pytest
import torch
from oracle import Case
from pools import SETTINGS, B, arguments, derive
from torch.utils._python_dispatch import TorchDispatchMode

import onca
from onca.methods.mochi import Draws, draw, hard_set, mochi, points

Tensor = torch.Tensor
SEED = 7
RULES = ["", "keep(hardest(60)), ", "drop(hardest(20), refill=True), ", "drop(same_class), "]


# --- the oracle ------------------------------------------------------------------------------------------------------


def keys_of(case: Case, b: int) -> Tensor:
    """All entries of one query as they are mixed: [N,D], constants."""
    each = (bag if bag.dim() == 2 else bag[b] for bag in case.negatives)
    return torch.cat([oracle.unit(rows, case.normalize) for rows in each]).detach()


def hard_places(now: oracle.State, n: int) -> list[int]:
    return sorted(sorted(now.shown, key=lambda place: (-now.cosine[place].item(), place))[:n])


def expected(case: Case, rules: str, n: int, s: int, s2: int, beta: float, attached: bool) -> Tensor:
    """InfoNCE of every query with its points, made one after the other: [B] with graph."""
    states = (
        oracle.left(f"chain({rules}infonce)", case)
        if rules
        else [oracle.state(case, b) for b in range(len(case.query))]
    )
    hard = torch.full((len(states), n), -1)
    for b, now in enumerate(states):
        places = hard_places(now, n)
        hard[b, : len(places)] = torch.tensor(places, dtype=torch.int64)
    drawn = draw(SEED, hard, s, s2, beta)
    losses = []
    for b, now in enumerate(states):
        query, rows = oracle.unit(case.query[b], case.normalize), keys_of(case, b)
        end = query if attached else query.detach()
        made = [
            a * rows[i] + (1 - a) * rows[j]
            for i, j, a in zip(drawn.first[b], drawn.second[b], drawn.alpha[b], strict=True)
        ]
        made += [x * end + (1 - x) * rows[j] for j, x in zip(drawn.hard[b], drawn.beta[b], strict=True)]
        synthetic = [(h / h.norm()) @ query for h in made if now.shown]
        negative = [*(now.cosine[place] for place in now.shown), *synthetic]
        nothing = now.cosine.new_tensor(-torch.inf)
        total = torch.stack(negative or [nothing]) / now.temperature
        losses.append(
            torch.stack(
                [
                    torch.cat([p[None] / now.temperature, total]).logsumexp(0) - p / now.temperature
                    for p in now.positives
                ]
            ).mean()
        )
    return torch.stack(losses)


def found(case: Case, rules: str, text: str, **more: Any) -> Tensor:
    values = arguments(case) | {"seed": SEED} | more
    return onca.contrast(method=f"chain({rules}{text}, infonce)", reduction="none", **values)


@pytest.mark.parametrize("width", [2, None])
@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("rules", RULES)
@pytest.mark.parametrize("name", SETTINGS)
def test_loss_and_gradients_equal_the_oracle(name: str, rules: str, attached: bool, width: int | None) -> None:
    setting = SETTINGS[name]()
    leaves = [leaf.clone().requires_grad_() for leaf in setting.leaves]
    wanted = expected(setting.make(leaves), rules, 6, 9, 4, 0.5, attached)
    with onca.sliced.rows(width):
        given = found(setting.make(leaves), rules, f"mochi(n=6, s=9, s2=4, attached={attached})")
        slopes = derive(given, leaves)
    torch.testing.assert_close(given, wanted, rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(slopes, derive(wanted, leaves), rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("fault", ["first", "mixed up"])
def test_the_oracle_notices_hard_sets_of_other_queries(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = plain()
    wanted = expected(case, "", 6, 9, 4, 0.5, False)
    other = {"first": [0] * B, "mixed up": [1, 2, 3, 4, 0]}[fault]
    monkeypatch.setattr(sys.modules["onca.methods.mochi"], "hard_set", lambda pool, n: hard_set(pool, n)[other])
    assert (found(case, "", "mochi(n=6, s=9, s2=4)") - wanted).abs().max() > 1e-3


# --- pitfalls --------------------------------------------------------------------------------------------------------


def plain() -> Case:
    setting = SETTINGS["shared"]()
    return setting.make(setting.leaves)


def unit(*shape: int, seed: int) -> Tensor:
    rows = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return rows / rows.norm(dim=-1, keepdim=True)


def little(queries: int = 8, entries: int = 40, dim: int = 6, **more: Any) -> onca.Pool:
    query, positive, negatives = unit(queries, dim, seed=1), unit(queries, dim, seed=2), unit(entries, dim, seed=3)
    return onca.pool(query, positive, negatives, 0.2, normalize=False, seed=SEED, **more)


def coordinates(bag: onca.Bag) -> Tensor:
    """The points themselves [B,S,D], out of their scores with the axes."""
    axes = torch.eye(bag.query.shape[1], dtype=bag.query.dtype)
    (_, pieces), *rest = bag.blocks()
    assert not rest
    along = [[piece.rescore(axis.expand(len(bag.query), -1), None) for axis in axes] for piece in pieces]
    return torch.cat([torch.stack(piece, 2) for piece in along], 1)


def scores(bag: onca.Bag) -> list[Tensor]:
    (_, pieces), *rest = bag.blocks()
    assert not rest
    return [torch.where(piece.present(), piece.score, torch.nan) for piece in pieces]


def test_points_have_length_one_and_the_queries_own_hard_negatives_as_ends() -> None:
    pool = little()
    hard = hard_set(pool, 5)
    order = (pool.negatives.query @ pool.negatives.links[0].vectors.T).argsort(1, descending=True)
    assert torch.equal(hard, order[:, :5].sort(1).values) and len({tuple(row.tolist()) for row in hard}) == len(hard)
    drawn = draw(SEED, hard, 30, 20, 0.5)
    for places in (drawn.first, drawn.second, drawn.hard):
        assert bool((places[:, :, None] == hard[:, None]).any(2).all())
    made = coordinates(points(pool.negatives, drawn))
    torch.testing.assert_close(made.norm(dim=2), torch.ones(8, 50, dtype=torch.float64), rtol=0, atol=1e-13)
    keys, query = pool.negatives.links[0].vectors, pool.negatives.query
    assert made.shape == (8, 50, 6) and not made.requires_grad
    gain = (made[:, 30:] * query[:, None]).sum(2) - (keys[drawn.hard] * query[:, None]).sum(2)
    assert float(gain.min()) >= -1e-15 and float(gain.max()) > 0.1  # the second kind is never easier than its entry


def test_a_share_of_one_or_none_and_a_pair_of_one_entry_give_a_row_of_the_queue() -> None:
    pool = little()
    keys = pool.negatives.links[0].vectors
    i, j, k = (torch.full((8, 1), place) for place in (3, 9, 17))
    first, second, same = torch.cat([i, i, k], 1), torch.cat([j, j, k], 1), torch.tensor([1.0, 0.0, 0.3]).double()
    drawn = Draws(first, second, same.expand(8, -1), k, torch.zeros(8, 1, dtype=torch.float64))
    torch.testing.assert_close(coordinates(points(pool.negatives, drawn)), keys[[3, 9, 17, 17]].expand(8, -1, -1))


def test_points_that_cancel_are_finite() -> None:
    """Opposite entries in equal shares, and a query with its own opposite: no direction, no score, no nan."""
    query = unit(3, 4, seed=1).requires_grad_()
    key = unit(1, 4, seed=2)
    pool = onca.pool(query, query, torch.cat([key, -key, -query[:1].detach()]), 0.2)
    zero, one, half = torch.zeros(3, 1, dtype=torch.int64), torch.ones(3, 1, dtype=torch.int64), torch.full((3, 1), 0.5)
    bag = points(pool.negatives, Draws(zero, one, half, zero + 2, half), attached=True)
    loss = onca.infonce(replace(pool, added=(bag,))).sum()
    assert torch.isfinite(loss) and bool(torch.isfinite(torch.autograd.grad(loss, query)[0]).all())


def test_nothing_is_mixed_from_what_is_absent_or_of_the_querys_own_image() -> None:
    """Own rows are copies of the query, the hardest there could be; a queue that is half empty lends no zero rows."""
    query = unit(4, 6, seed=1)
    keys = torch.cat([query, query, unit(6, 6, seed=3)])
    image = torch.arange(4)
    pool = onca.pool(query, query, keys, index=image, negative_index=torch.cat([image, image, torch.full((6,), -1)]))
    hard = hard_set(pool, 20)
    assert hard.shape == (4, 14) and (hard >= 0).sum(1).tolist() == [12] * 4
    for b in range(4):
        assert not {b, b + 4} & set(hard[b].tolist())
    memory = onca.Queue(16, 6)
    memory.enqueue(torch.randn(5, 6))
    bag = memory.negatives(query.float())
    pool = onca.Pool(positives=onca.Bag(bag.query, (onca.Link(bag.query[:, None]),)), negatives=bag, temperature=0.2)
    assert (hard_set(pool, 8) >= 0).sum(1).tolist() == [5] * 4
    added = mochi(8, 6, 2)(pool).added[0]
    assert torch.equal(added.count(), torch.full((4,), 8)) and float(min(s.min() for s in scores(added))) > -1


def test_a_query_without_negatives_gets_no_points_and_loss_zero() -> None:
    index = torch.arange(3)
    query = unit(3, 4, seed=1).requires_grad_()
    notes: dict[str, Any] = {}
    loss = onca.contrast(
        query,
        unit(3, 4, seed=2),
        unit(5, 4, seed=3),
        "chain(mochi(n=4, s=3, s2=2), infonce)",
        index=index,
        negative_index=torch.tensor([[0] * 5, [1, 1, 1, 1, 7], [-1] * 5]),
        reduction="none",
        notes=notes,
    )
    assert loss[0] == 0 and bool((loss[1:] > 0).all()) and notes["empty"] == 1
    slope = torch.autograd.grad(loss.sum(), query)[0]
    assert bool((slope[0] == 0).all()) and bool(torch.isfinite(slope).all())
    empty = onca.Queue(4, 4, dtype=torch.float64)
    assert onca.Contrast("chain(mochi(), infonce)", memory=empty)(query, query) == 0


def test_more_points_than_hard_negatives_and_more_asked_for_than_there_are() -> None:
    pool = little(entries=7)
    added = mochi(1024, 100, 30)(pool).added[0]
    assert added.count().tolist() == [130] * 8 and bool(torch.isfinite(torch.cat(scores(added), 1)).all())


@pytest.mark.parametrize("text", ["mochi(s=0, s2=0)", "mochi(n=0)", "mochi(s=after(10, 64), s2=after(10, 8))"])
def test_without_points_it_is_plain_infonce(text: str) -> None:
    case = plain()
    plainly = onca.contrast(method="infonce", reduction="none", **arguments(case))
    assert torch.equal(found(case, "", text, epoch=10.0), plainly)
    if "after" in text:
        assert bool((found(case, "", text, epoch=10.01) > plainly).all())


def test_points_are_never_stored_and_the_memory_may_change_before_backward() -> None:
    def step(change: bool) -> tuple[onca.Contrast, Tensor]:
        torch.manual_seed(0)
        contrast = onca.Contrast("chain(mochi(n=8, s=16, s2=8, attached=True), infonce)", memory=onca.Queue(12, 6))
        for _ in range(3):
            key = torch.randn(5, 6)
            query = torch.randn(5, 6, requires_grad=True)
            loss = contrast(query, key)
        newest = torch.nn.functional.normalize(key, dim=1)
        torch.testing.assert_close(contrast.memory.keys[torch.arange(10, 15) % 12], newest)
        assert contrast.memory.keys.shape == (12, 6) and int(contrast.memory.position) == 3
        if change:
            contrast.memory.keys.zero_()
        return contrast, torch.autograd.grad(loss, query)[0]

    torch.testing.assert_close(step(True)[1], step(False)[1], rtol=0, atol=0)


def test_later_rules_see_the_real_entries_only_and_objectives_count_the_points() -> None:
    pool = little()
    left = onca.keep(onca.hardest(50))(mochi(6, 10, 3)(pool))
    assert left.negatives.count().tolist() == [20] * 8 and left.added[0].count().tolist() == [13] * 8
    query, positive, keys = (bag.links[0].vectors for bag in (pool.positives, pool.positives, pool.negatives))
    del query
    dense = torch.cat([pool.negatives.query @ keys.T, *scores(mochi(6, 10, 3)(pool).added[0])], 1)
    sp = (pool.negatives.query * positive[:, 0]).sum(1, keepdim=True)
    raw = ((dense / 0.2).exp().mean(1) - 0.02 * (sp[:, 0] / 0.2).exp()) / 0.98
    estimate = 53 * raw.clamp_min(torch.tensor(-5.0).double().exp())
    wanted = torch.log1p(estimate / (sp[:, 0] / 0.2).exp())
    torch.testing.assert_close(onca.read("chain(mochi(n=6, s=10, s2=3), debiased(0.02))")(pool), wanted)


# --- draws -----------------------------------------------------------------------------------------------------------


def test_draws_follow_from_seed_and_query_and_are_even_and_independent() -> None:
    hard = torch.arange(64 * 10).reshape(64, 10)
    drawn = draw(3, hard, 500, 400, 0.5)
    again, other, fewer = draw(3, hard, 500, 400, 0.5), draw(4, hard, 500, 400, 0.5), draw(3, hard[:5], 20, 400, 0.5)
    for name in ("first", "second", "alpha", "hard", "beta"):
        value = getattr(drawn, name)
        assert torch.equal(value, getattr(again, name)) and not torch.equal(value, getattr(other, name))
        assert torch.equal(getattr(fewer, name), value[:5, : getattr(fewer, name).shape[1]])
    for places in (drawn.first, drawn.second, drawn.hard):
        share = torch.bincount(places.flatten() % 10, minlength=10) / places.numel()
        torch.testing.assert_close(share, torch.full((10,), 0.1), rtol=0, atol=0.008)
        assert torch.equal(places // 10, torch.arange(64)[:, None].expand_as(places))
    assert abs(float((drawn.first == drawn.second).double().mean()) - 0.1) < 0.008  # with replacement, i = j included
    for value, top in ((drawn.alpha, 1.0), (drawn.beta, 0.5)):
        assert float(value.min()) > 0 and float(value.max()) < top
        assert abs(float(value.mean()) - top / 2) < 0.01 * top and abs(float(value.var()) - top**2 / 12) < 0.003
        assert float(torch.corrcoef(value).fill_diagonal_(0).abs().max()) < 0.25  # queries
    together = torch.stack(
        [(drawn.first % 10).double().flatten(), (drawn.second % 10).double().flatten(), drawn.alpha.flatten()]
    )
    assert float(torch.corrcoef(together).fill_diagonal_(0).abs().max()) < 0.03


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mochi(n=2.5)", "n must be a whole number"),
        ("mochi(s=-1)", "s must be a whole number"),
        ("mochi(beta=1.5)", "beta is the query's largest share"),
        ("mochi(attached=1)", "attached must be True or False"),
        ("mochi(beta=infonce)", "beta must be a number or a schedule"),
    ],
)
def test_what_cannot_be_is_refused(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        onca.read(f"chain({text}, infonce)")


def test_a_schedule_needs_an_epoch_and_reads_back() -> None:
    text = "chain(mochi(n=8, s=after(10, 16), s2=4, beta=ramp(0, 0.5, 20)), infonce)"
    assert str(onca.read(text)) == text
    with pytest.raises(ValueError, match="give epoch="):
        onca.read(text)(little())


# --- other keys, other precisions ------------------------------------------------------------------------------------


def test_row_lists_with_repeats_are_mixed_place_by_place() -> None:
    """The form of a bank with drawn negatives: the same row may stand in a list, and so in a hard set, twice."""
    bank, query = unit(30, 6, seed=3), unit(4, 6, seed=1)
    rows = torch.randint(30, (4, 12), generator=torch.Generator().manual_seed(5))
    rows[:, 6:] = rows[:, :6]
    positives = onca.Bag(query, (onca.Link(unit(4, 1, 6, seed=2)),))
    listed = onca.Bag(query, (onca.Link(bank, rows=rows),))
    written = onca.Bag(query, (onca.Link(bank[rows]),))
    losses = [
        onca.chain(mochi(6, 8, 3), onca.infonce)(
            onca.Pool(positives=positives, negatives=bag, temperature=0.2, seed=SEED)
        )
        for bag in (listed, written)
    ]
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-12, atol=0)


def test_a_ring_buffer_in_two_spans_with_refill_is_mixed_as_if_written_out() -> None:
    """Shown rows from the oldest on, then the reserve, newest first: the same bag as tensors, the same draws."""
    memory = onca.Queue(12, 6, reserve=6, dtype=torch.float64)
    rows = unit(25, 6, seed=3)
    for chunk in rows.split(5):
        memory.enqueue(chunk)
    query, positive = unit(4, 6, seed=1), unit(4, 6, seed=2)
    bag = memory.negatives(query)
    assert len(bag.links) == 2
    pool = onca.Pool(
        positives=onca.Bag(query, (onca.Link(positive[:, None]),)),
        negatives=bag,
        reserve=memory.older(query),
        temperature=0.2,
        seed=SEED,
    )
    method = onca.read("chain(drop(hardest(20), refill=True), mochi(n=5, s=12, s2=6), infonce)")
    written = torch.cat([rows[13:], rows[7:13].flip(0)])
    wanted = onca.contrast(query, positive, written, method, reserve=6, normalize=False, seed=SEED, reduction="none")
    torch.testing.assert_close(method(pool), wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_keys_of_half_precision_are_mixed_in_float32(dtype: torch.dtype) -> None:
    query, positive, keys = unit(6, 8, seed=1).float(), unit(6, 8, seed=2).float(), unit(50, 8, seed=3).to(dtype)
    narrow, wide = (
        onca.contrast(query, positive, rows, "chain(mochi(n=8, s=16, s2=8), infonce)", reduction="none")
        for rows in (keys, keys.float())
    )
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow, wide, rtol=2e-5, atol=1e-6)


def test_mixes_of_mirrored_entries_are_between_the_mirror_images() -> None:
    query, positive, keys = unit(8, 6, seed=1), unit(8, 6, seed=2), unit(40, 6, seed=3)
    given = torch.rand(8, 40, generator=torch.Generator().manual_seed(6)) < 0.4
    more: dict[str, Any] = {"normalize": False, "seed": SEED, "reduction": "none"}
    turned = torch.where(given[..., None], -keys, keys)
    found = onca.contrast(
        query, positive, keys, "chain(mirror(given), mochi(n=9, s=20, s2=10), infonce)", given=given, **more
    )
    wanted = onca.contrast(query, positive, turned, "chain(mochi(n=9, s=20, s2=10), infonce)", **more)
    torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


# --- memory ----------------------------------------------------------------------------------------------------------


class Largest(TorchDispatchMode):
    """The number of elements of the largest tensor that any operation makes."""

    def __init__(self) -> None:
        super().__init__()
        self.elements = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for made in result if isinstance(result, tuple | list) else (result,):
            if isinstance(made, Tensor):
                self.elements = max(self.elements, made.untyped_storage().nbytes() // made.element_size())
        return result


@pytest.mark.parametrize(("s", "s2"), [(512, 128), (0, 640), (640, 0)])
@pytest.mark.parametrize("attached", [False, True])
def test_points_of_all_queries_are_never_held_at_once(attached: bool, s: int, s2: int) -> None:
    queries, entries, dim = 96, 1024, 64
    query, positive, keys = (torch.randn(n, dim, requires_grad=True) for n in (queries, queries, entries))
    method = onca.chain(mochi(256, s, s2, attached=attached), onca.infonce)
    with Largest() as largest:
        onca.contrast(query, positive, keys, method).backward()
    block = onca.sliced.BLOCK_ELEMENTS["cpu"]
    assert largest.elements <= block + 640 * dim < queries * (s + s2) * dim / 3


def test_the_measure_of_the_largest_tensor_sees_a_tensor_of_all_points() -> None:
    with Largest() as largest:
        (torch.randn(96, 640, 1) * torch.randn(96, 1, 64)).sum()
    assert largest.elements == 96 * 640 * 64
