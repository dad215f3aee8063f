"""ring, ball and aggregation: ranks of each query's own, both readings of inner, neighbours, refusals."""

from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from pools import rows

import onca
from onca.methods.ring import aggregation, ball, ring

Tensor = torch.Tensor


def inputs(n: int = 40) -> list[Tensor]:
    return [rows(5, 6, seed=1), rows(5, 6, seed=2), rows(n, 6, seed=3)]


def value_and_gradients(method: Any, leaves: list[Tensor] | None = None, **more: Any) -> list[Tensor]:
    leaves = [x.requires_grad_() for x in leaves or inputs()]
    losses = onca.contrast(*leaves, method, 0.2, reduction="none", **more)
    return [losses.detach(), *torch.autograd.grad(losses.sum(), leaves)]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-12, atol=1e-14) for a, b in zip(one, other, strict=True))


def chosen(bag: onca.Bag) -> list[set[int]]:
    """Places that are present, for each query."""
    return [set(row[row >= 0].tolist()) for row in bag.rows(lambda piece: piece.present(), len(bag))]


def ordered(query: Tensor, keys: Tensor) -> list[list[int]]:
    """Places of the keys from the hardest on, for each query."""
    cosines = torch.nn.functional.normalize(query, dim=1) @ torch.nn.functional.normalize(keys, dim=1).T
    return [sorted(range(len(keys)), key=lambda place: (-row[place].item(), place)) for row in cosines]


# --- which entries ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "first", "last"),
    [
        (ring(), 0, 4),  # of 40: 10 % are 4, 1 % is none
        (ring(50, 10), 4, 20),
        (ring(50, 10, of="outer"), 2, 20),
        (ring(30, 25, of="outer"), 3, 12),
        (ring(7.5, 2.5), 1, 3),
        (ring(100, 0), 0, 40),
        (ring(29, 10), 4, 12),  # 11.6 is 12, where int() has 11
        (ball(), 0, 4),
        (ball(25), 0, 10),
    ],
    ids=str,
)
def test_ranks_of_each_query_s_own(rule, first, last):
    query, positive, keys = inputs()
    left = rule(onca.pool(query, positive, keys)).negatives
    orders = ordered(query, keys)
    assert chosen(left) == [set(order[first:last]) for order in orders]
    assert len({frozenset(s) for s in chosen(left)}) > 1 or last - first == 40  # no query's set serves for all


@given(edges=st.tuples(st.integers(0, 1000), st.integers(0, 1000)).filter(lambda x: x[0] != x[1]), n=st.integers(1, 60))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_a_ring_of_all_is_a_window(edges, n):
    """One meaning of percent for both: tenths, in exact decimals."""
    inner, outer = sorted(edges)
    query, positive, keys = inputs(n)
    pool = onca.pool(query, positive, keys)
    window = onca.keep(onca.window((1000 - outer) / 10, (1000 - inner) / 10))
    assert chosen(ring(outer / 10, inner / 10)(pool).negatives) == chosen(window(pool).negatives)


def test_own_image_takes_no_rank():
    """A queue longer than the set holds the query's own image, at the very top: masked, it has no rank."""
    query, positive, keys = inputs()
    keys[7] = query[0]
    index, negative_index = torch.arange(5), torch.full((40,), -1)
    negative_index[7] = 0
    left = ring(10, 2.5)(onca.pool(query, positive, keys, index=index, negative_index=negative_index)).negatives
    order = [place for place in ordered(query, keys)[0] if place != 7]
    assert chosen(left)[0] == set(order[1:4])


def test_edges_may_move():
    method = onca.chain(ring(onca.ramp(100, 10, 10), 5), onca.infonce)
    for epoch, outer in ((0.0, 100), (5.0, 55), (10.0, 10), (99.0, 10)):
        assert same(value_and_gradients(method, epoch=epoch), value_and_gradients(f"chain(ring({outer}, 5), infonce)"))


def test_adaptive_edge_looks_at_the_losses():
    method = "chain(ring(adaptive(50, 10, 5), 5), infonce)"
    assert onca.read(method).needs == {"history"}
    easier = value_and_gradients(method, epoch=3.0, history=(1.0, 0.9, 0.8))
    assert same(easier, value_and_gradients("chain(ring(40, 5), infonce)"))


# --- neutral parameters ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method",
    [
        "chain(ring(100, 0), infonce)",
        "chain(ring(100, 0, of='outer'), infonce)",
        "chain(ring(100, 0, neighbours=True), aggregation())",
        "chain(ball(100), infonce)",
        "aggregation()",
        "aggregation('mean')",
    ],
)
def test_neutral_parameters_give_infonce(method):
    assert same(value_and_gradients(method), value_and_gradients("infonce"))


# --- neighbours ------------------------------------------------------------------------------------------------------


def by_loops(leaves: list[Tensor], sizes: tuple[int, int], join: str, inside: bool) -> Tensor:
    """Numerator: the positive and the skipped rows; denominator: the ring, and the positive where it is inside."""
    query, positive, keys = (torch.nn.functional.normalize(x, dim=1) for x in leaves)
    losses = []
    for q, k, order in zip(query, positive, ordered(leaves[0], leaves[2]), strict=True):
        own, score = (q @ k / 0.2)[None], keys @ q / 0.2
        above = torch.cat([own, score[order[: sizes[0]]]])
        below = torch.cat([own, score[order[sizes[0] : sizes[1]]]]) if inside else score[order[sizes[0] : sizes[1]]]
        joined = torch.logsumexp(above, 0) if join == "logsumexp" else above.mean()
        losses.append(torch.logsumexp(below, 0) - joined)
    return torch.stack(losses)


@pytest.mark.parametrize("width", [1, 3, None])
@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("join", ["logsumexp", "mean"])
def test_neighbours_join_the_positive(join, inside, width):
    method = onca.chain(ring(50, 10, neighbours=True), aggregation(join, inside))
    with onca.sliced.rows(width):
        found = value_and_gradients(method)
    leaves = [x.requires_grad_() for x in inputs()]
    losses = by_loops(leaves, (4, 20), join, inside)
    assert same(found, [losses.detach(), *torch.autograd.grad(losses.sum(), leaves)])


def test_with_neighbours_the_loss_may_be_negative():
    losses, *_ = value_and_gradients("chain(ring(50, 25, neighbours=True), aggregation())")
    assert bool((losses < 0).any())


def test_of_a_bank_the_own_row_counts_twice():
    """The positive is the own row of the bank, which is among the hardest rows as well; nothing is masked."""
    bank = rows(40, 6, seed=3)
    index = torch.tensor([3, 8, 20, 21, 39])
    query = bank[index] + 0.3 * rows(5, 6, seed=4)
    leaves = [query, bank[index], bank]
    orders = ordered(query, bank)
    assert all(own in order[:4] for own, order in zip(index.tolist(), orders, strict=True))
    found = onca.contrast(*leaves, "chain(ring(50, 10, neighbours=True), aggregation())", 0.2, reduction="none")
    assert torch.allclose(found, by_loops(leaves, (4, 20), "logsumexp", True), rtol=1e-12)


def test_aggregation_after_attract_has_only_the_first_positive_below_the_line():
    query, positive, keys = inputs()
    given = torch.zeros(5, 40, dtype=torch.bool)
    given[:, [4, 9]] = True
    found = onca.contrast(query, positive, keys, "chain(attract(given), aggregation())", 0.2, given=given)
    q, k, n = (torch.nn.functional.normalize(x, dim=1) for x in (query, positive, keys))
    own, score = (q * k).sum(1, keepdim=True) / 0.2, q @ n.T / 0.2
    below = torch.cat([own, score[:, ~given[0]]], 1).logsumexp(1)
    above = torch.cat([own, score[:, given[0]]], 1).logsumexp(1)
    assert found.item() == pytest.approx((below - above).mean().item(), rel=1e-12)


@pytest.mark.parametrize("inside", [True, False])
def test_a_query_without_negatives_has_no_loss_and_no_gradient(inside):
    leaves = [x.requires_grad_() for x in inputs(3)]
    index, negative_index = torch.arange(5), torch.tensor([0, 0, 0])
    more = {"index": index, "negative_index": negative_index, "reduction": "none"}
    notes: dict[str, Any] = {}
    losses = onca.contrast(*leaves, aggregation("mean", inside), 0.2, notes=notes, **more)
    query, positive, _ = torch.autograd.grad(losses.sum(), leaves)
    assert losses[0] == 0 and not query[0].any() and not positive[0].any() and notes["empty"] == 1
    assert bool(query[1:].abs().sum(1).all())


# --- the step, and refusals ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "method", ["chain(ring(20, 2), infonce)", "chain(ring(20, 2, neighbours=True), aggregation())"]
)
def test_in_a_queue_host(method):
    """Three steps of MoCo: losses are finite and the encoder gets a gradient once the queue holds something."""
    torch.manual_seed(0)
    host = onca.hosts.MoCo(torch.nn.Linear(6, 4), onca.Queue(64, 4), 0.9, 0.2)
    chosen = onca.read(method)
    for step in range(3):
        views = (torch.randn(32, 6), torch.randn(32, 6))
        host.before_step()
        loss = host.loss(host.pools(onca.hosts.Batch(views=views, index=None, epoch=0.0, step=step)), chosen)
        loss.backward()
        host.after_step()
    assert bool(torch.isfinite(loss)) and host.encoder.weight.grad.any()


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ring(10, 10), r"ring\(10, 10\): nothing lies between"),
        (lambda: ring(5, 10), "make outer larger or inner smaller"),
        (lambda: ring(0), "nothing lies between"),
        (lambda: ring(10, 100, of="outer"), "nothing lies between"),
        (lambda: ring(0, 0, of="outer"), "nothing lies between"),
        (lambda: ring(101), "outer is in percent, 0 to 100; got 101"),
        (lambda: ring(10, -1), "inner is in percent"),
        (lambda: ring(of="both"), 'of must be "all" or "outer"'),
        (lambda: ring(neighbours=1), "neighbours must be True or False"),
        (lambda: ring("10"), "outer must be a number or a schedule"),
        (lambda: ball(0), r"ball\(0\): outer is in percent, more than 0"),
        (lambda: ball(101), "outer is in percent"),
        (lambda: aggregation("sum"), 'join must be "logsumexp" or "mean"'),
        (lambda: aggregation("mean", 1), "positive_in_denominator must be True or False"),
    ],
)
def test_refusals(make: Callable[[], onca.Part], words: str):
    with pytest.raises(ValueError, match=words):
        make()


def test_a_ring_that_a_schedule_closes_is_refused_when_it_is():
    method = onca.chain(ring(onca.ramp(100, 5, 10), 20), onca.infonce)
    value_and_gradients(method, epoch=0.0)
    with pytest.raises(ValueError, match="nothing lies between"):
        value_and_gradients(method, epoch=10.0)


def test_a_ring_too_thin_for_the_number_of_entries_is_the_chain_s_error():
    """10 and 9 percent of 4 entries are both none."""
    with pytest.raises(ValueError, match=r"leaves no query any negatives: of N = 4"):
        value_and_gradients("chain(ring(10, 9), infonce)", [*inputs(4)])


def test_the_official_truncation_is_not_ours():
    assert int(0.29 * 100) == 28
    query, positive, keys = inputs(100)
    left = ball(29)(onca.pool(query, positive, keys)).negatives
    assert np.unique(left.count().numpy()).tolist() == [29]
