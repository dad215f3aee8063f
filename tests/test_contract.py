"""What the contract says of single cases: unknown and absent entries, empty queries, reductions, percentages."""

from typing import Any

import oracle
import pytest
import torch
from oracle import Case
from pools import B, D, N, derive, knowledge, rows

import onca

Tensor = torch.Tensor


def test_both_views_as_queries_and_keys_are_nt_xent() -> None:
    z = rows(12, D, seed=5)
    image, pair = torch.arange(6).repeat(2), torch.arange(12).roll(6)
    logits = torch.nn.functional.normalize(z) @ torch.nn.functional.normalize(z).T / 0.3
    wanted = torch.nn.functional.cross_entropy(logits.fill_diagonal_(-torch.inf), pair)
    got = onca.contrast(z, z[pair], z, temperature=0.3, index=image, negative_index=image)
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)


def test_unknown_equals_nothing() -> None:
    unknown, keys = torch.full((B,), -1), torch.full((N,), -1)
    inputs = rows(B, D, seed=5), rows(B, D, seed=6), rows(N, D, seed=7)
    plain_losses = onca.contrast(*inputs, reduction="none")
    masked = onca.contrast(*inputs, index=unknown, negative_index=keys, reduction="none")
    dropped = onca.contrast(
        *inputs, "chain(drop(same_class), infonce)", label=unknown, negative_label=keys, reduction="none"
    )
    assert torch.equal(masked, plain_losses)
    assert torch.equal(dropped, plain_losses)


def test_absent_entries_are_in_no_count() -> None:
    """Of 24 entries 14 are the query's own image: the hardest 30 % of the other 10 are 3."""
    query, positive, keys = rows(1, D, seed=5), rows(1, D, seed=6), rows(N, D, seed=7)
    own = torch.tensor([7] * 14 + [8] * 10)
    pool = onca.pool(query, positive, keys, index=torch.tensor([7]), negative_index=own)
    assert pool.negatives.count().tolist() == [10]
    assert onca.keep(onca.hardest(30))(pool).negatives.count().tolist() == [3]


def test_a_query_without_negatives_counts_in_the_mean_and_is_reported() -> None:
    index, negative_index = torch.tensor([0, 1]), torch.zeros(N, dtype=torch.int64)
    query = rows(2, D, seed=5).requires_grad_()
    for method in ("infonce", "mass", "debiased(0.1)"):
        notes: dict[str, Any] = {}
        arguments = (query, rows(2, D, seed=6), rows(N, D, seed=7), method)
        losses = onca.contrast(*arguments, index=index, negative_index=negative_index, reduction="none", notes=notes)
        assert losses[0] == 0 < losses[1]
        assert float(notes["empty"]) == 1
        mean = onca.contrast(*arguments, index=index, negative_index=negative_index)
        torch.testing.assert_close(mean, losses.mean())
        (gradient,) = torch.autograd.grad(mean, query)
        assert not gradient[0].any() and gradient[1].any()


@pytest.mark.parametrize("negatives", [torch.zeros(0, D), torch.zeros(B, 0, D)])
@pytest.mark.parametrize("method", ["infonce", "mass", "debiased(0.1)", "chain(keep(hardest(5)), infonce)"])
def test_an_empty_memory_is_no_error(method: str, negatives: Tensor) -> None:
    query = rows(B, D, seed=5).float().requires_grad_()
    loss = onca.contrast(query, rows(B, D, seed=6).float(), negatives, method)
    (gradient,) = torch.autograd.grad(loss, query)
    assert loss.item() == 0 and not gradient.any()


@pytest.mark.parametrize("positive", [None, torch.zeros(B, 0, D, dtype=torch.float64)])
def test_supcon_without_positives_is_zero(positive: Tensor | None) -> None:
    given = torch.zeros(B, N, dtype=torch.bool)
    given[1, :3] = True
    query, keys = rows(B, D, seed=5), rows(N, D, seed=7)
    got = onca.contrast(query, positive, keys, "chain(attract(given), supcon)", given=given, reduction="none")
    wanted = oracle.losses("chain(attract(given), supcon)", Case(query, positive, [keys], given=given))
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    assert got[1] > 0 and got.count_nonzero() == 1


def test_reductions() -> None:
    inputs = rows(B, D, seed=5), rows(B, D, seed=6), rows(N, D, seed=7)
    each = onca.contrast(*inputs, reduction="none")
    assert each.shape == (B,)
    torch.testing.assert_close(onca.contrast(*inputs), each.mean())
    torch.testing.assert_close(onca.contrast(*inputs, reduction="sum"), each.sum())


def test_contrast_is_the_method_of_the_pool() -> None:
    inputs, more = (rows(B, D, seed=5), rows(B, D, seed=6), rows(N, D, seed=7), 0.3), knowledge(N)
    more |= {name: more[name][0] for name in ("negative_label", "negative_index")}
    for text in ("infonce", "chain(drop(same_class), infonce)"):
        losses = onca.read(text)(onca.pool(*inputs, **more))
        for method in (text, onca.read(text)):
            each = onca.contrast(*inputs[:3], method, inputs[3], reduction="none", **more)
            assert torch.equal(each, losses)


@pytest.mark.parametrize("method", ["infonce", "chain(keep(hardest(50)), infonce)", "chain(harden(1), debiased(0.1))"])
def test_a_zero_row_stays_zero(method: str) -> None:
    leaves = [rows(B, D, seed=5), rows(B, D, seed=6), rows(N, D, seed=7)]
    for x in leaves:
        x[0] = 0
        x.requires_grad_()
    losses = onca.contrast(*leaves, method, reduction="none")
    wanted = oracle.losses(method, Case(leaves[0], leaves[1], leaves[2:]))
    torch.testing.assert_close(losses, wanted, rtol=1e-9, atol=1e-11)
    got, oracles = derive(losses, leaves), derive(wanted, leaves)
    for mine, theirs in zip(got, oracles, strict=True):
        assert bool(mine.isfinite().all())
        torch.testing.assert_close(mine[1:], theirs[1:], rtol=1e-9, atol=1e-11)


def test_percentages_are_counted_in_decimals() -> None:
    """0.1 % of 500 is half an entry, which rounds up to one; binary floats find a little less than half."""
    pool = onca.pool(rows(2, D, seed=5), rows(2, D, seed=6), rows(500, D, seed=7))
    counts = {
        "hardest(0.1)": 1,
        "window(99.9, 100)": 1,
        "window(99.7, 99.9)": 1,
        "easiest(99.9)": 499,
        "hardest(0.09)": 0,
    }
    counts |= {"hardest(0.3)": 2, "window(0, 0.1)": 0, "hardest(0.7)": 4, "hardest(2.9)": 15, "window(95.9, 100)": 21}
    for text, n in counts.items():
        now = onca.read(f"drop({text})")(pool)
        assert now.negatives.count().tolist() == [500 - n] * 2, text


# --- a module with a memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [[3] * 9, [4, 1, 7, 2, 8, 8, 3], [9, 20, 5, 33, 1, 1]])
@pytest.mark.parametrize(("size", "reserve"), [(8, 0), (8, 5), (5, 12), (1, 3)])
def test_a_memory_is_a_list_of_the_last_keys(size: int, reserve: int, sizes: list[int]) -> None:
    """Batches of any size, step by step: scored against what stood there, and only then put in front of it."""
    text = "chain(drop(same_class | above(0.8), refill=True), infonce)" if reserve else "chain(drop(same_class), mass)"
    module = onca.Contrast(text, 0.3, memory=onca.Queue(size, D, reserve=reserve)).double()
    newest: list[tuple[Tensor, int, int]] = []  # (key, image, class) of all so far
    for step, b in enumerate(sizes):
        query, key = rows(b, D, seed=step), rows(b, D, seed=100 + step)
        index, label = torch.arange(b) % 4 + step % 3, torch.arange(b) % 3 - 1
        known = newest[: size + reserve]
        case = Case(
            query,
            key,
            [torch.stack([k for k, _, _ in known]) if known else torch.zeros(0, D)],
            0.3,
            index=index,
            negative_index=[torch.tensor([i for _, i, _ in known], dtype=torch.int64)],
            label=label,
            negative_label=[torch.tensor([c for _, _, c in known], dtype=torch.int64)],
            reserve=max(0, len(known) - size),
        )
        try:
            wanted = oracle.losses(text, case).mean()
        except oracle.EveryQueryEmpty:
            with pytest.raises(ValueError, match="negatives"):
                module(query, key, index, label)
            continue  # and nothing of a refused batch goes in
        for training in (False, True):
            module.train(training)
            torch.testing.assert_close(module(query, key, index, label), wanted, rtol=1e-9, atol=1e-11)
        newest = [*reversed(list(zip(key, index.tolist(), label.tolist(), strict=True))), *newest]


def test_a_memory_survives_its_checkpoint() -> None:
    module = onca.Contrast("infonce", memory=onca.Queue(8, D, reserve=4)).double()
    for step in range(5):
        module(rows(3, D, seed=step), rows(3, D, seed=9 + step), torch.arange(3) + step)
    other = onca.Contrast("infonce", memory=onca.Queue(8, D, reserve=4)).double()
    other.load_state_dict(module.state_dict())
    for step in range(5, 9):
        inputs = rows(3, D, seed=step), rows(3, D, seed=9 + step), torch.arange(3) + step
        assert torch.equal(module(*inputs), other(*inputs))
    assert all(torch.equal(value, other.state_dict()[name]) for name, value in module.state_dict().items())
