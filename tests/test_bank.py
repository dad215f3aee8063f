"""The bank: rows that move, what is drawn of them, whose neighbours they are; and NCE against plain loops."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

import onca
from onca.bank import Bank, draw_rows
from onca.methods.npid import nce

Tensor = torch.Tensor
IMAGES, D = 12, 5


def rows(*shape: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return normalize(torch.randn(*shape, D, generator=draw, dtype=torch.float64), dim=-1)


def bank(momentum: float = 0.5, neighbours: int = 0, images: int = IMAGES) -> Bank:
    torch.manual_seed(1)
    return Bank(images, D, momentum, neighbours, dtype=torch.float64)


def test_rows_start_at_length_one_from_the_global_generator() -> None:
    torch.testing.assert_close(bank().keys.norm(dim=1), torch.ones(IMAGES, dtype=torch.float64))
    assert torch.equal(bank().keys, bank().keys)
    torch.manual_seed(1)
    official = torch.empty(IMAGES, D, dtype=torch.float64).uniform_(-math.sqrt(3 / D), math.sqrt(3 / D))
    torch.testing.assert_close(bank().keys, normalize(official, dim=1))


@pytest.mark.parametrize("momentum", [0.0, 0.5, 0.9, 1.0])
def test_a_row_moves_towards_what_is_written(momentum: float) -> None:
    made, index, new = bank(momentum), torch.tensor([3, 0, 7]), rows(3)
    before = made.keys.clone()
    made.write(index, new, torch.tensor([5, -1, 6]))
    for place, image in enumerate(index.tolist()):
        mixed = momentum * before[image] + (1 - momentum) * new[place]
        torch.testing.assert_close(made.keys[image], mixed / mixed.norm())
    others = [image for image in range(IMAGES) if image not in (0, 3, 7)]
    assert torch.equal(made.keys[others], before[others])
    assert made.label[[3, 0, 7, 1]].tolist() == [5, -1, 6, -1]
    made.write(torch.tensor([1]), rows(1))
    assert made.age[[3, 0, 7, 1, 2]].tolist() == [1, 1, 1, 0, -1]
    assert made.label[3] == 5


def test_an_image_twice_in_a_batch_takes_its_last_row_against_the_row_before_the_batch() -> None:
    twice, once, new = bank(neighbours=2), bank(neighbours=2), rows(4)
    index, near = torch.tensor([2, 4, 2, 4]), torch.tensor([[0, 1], [5, 6], [7, 8], [9, 10]])
    twice.write(index, new, torch.tensor([0, 1, 2, 3]))
    twice.link(index, near)
    once.write(index[2:], new[2:], torch.tensor([2, 3]))
    once.link(index[2:], near[2:])
    for name, value in twice.state_dict().items():
        assert torch.equal(value, once.state_dict()[name]), name
    assert twice._last(index).tolist() == [2, 3, 2, 3]  # a GPU writes repeats in any order: they must be the same


@pytest.mark.parametrize("call", ["write", "link", "known"])
@pytest.mark.parametrize("image", [-1, IMAGES, 99])
def test_an_image_without_a_row_is_refused(call: str, image: int) -> None:
    made, index = bank(neighbours=2), torch.tensor([0, image])
    with pytest.raises(ValueError, match=rf"image {image} has no row in a bank of {IMAGES}"):
        if call == "write":
            made.write(index, rows(2))
        elif call == "link":
            made.link(index, torch.zeros(2, 2, dtype=torch.int64))
        else:
            made.known(index, "NPID")


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: Bank(0, 4), "images and dim from 1"),
        (lambda: Bank(4, 0), "images and dim from 1"),
        (lambda: Bank(4, 4, neighbours=-1), "neighbours from 0"),
        (lambda: Bank(4, 4, 1.5), "momentum of the bank's rows lies in 0 to 1; got 1.5"),
        (lambda: bank().write(torch.tensor([1]), torch.ones(1, D + 1)), r"takes rows \[1,5\]; got \[1, 6\]"),
        (lambda: bank().link(torch.tensor([1]), torch.ones(1, 3)), "a bank of 0 neighbours"),
        (lambda: bank(neighbours=2).link(torch.tensor([1]), torch.ones(1, 3)), r"takes neighbours \[1,2\]"),
        (lambda: bank().known(None, "NPID"), "NPID keeps a row for each image: give the batch its index"),
    ],
)
def test_what_does_not_fit_is_refused(act, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        act()


def test_bags_hold_the_rows_and_know_who_they_are() -> None:
    made, query, index = bank(), rows(3, seed=4), torch.tensor([2, 9, 2])
    made.write(index[:2], rows(2), torch.tensor([7, 8]))
    scores = query @ made.keys.T
    own = made.positives(query, index)
    torch.testing.assert_close(own.mean(), scores.gather(1, index[:, None])[:, 0])
    assert own.links[0].label.tolist() == [[7], [8], [7]]
    masked, open_ = made.negatives(query, index), made.negatives(query)
    assert masked.count().tolist() == [IMAGES - 1] * 3 and open_.count().tolist() == [IMAGES] * 3
    torch.testing.assert_close(open_.lse(2.0), (2 * scores).logsumexp(1))
    torch.testing.assert_close(masked.lse(2.0), (2 * scores).scatter(1, index[:, None], -torch.inf).logsumexp(1))
    listed = torch.tensor([[0, 0, 2, 5], [9, 9, 9, 1], [3, 2, 2, 11]])
    torch.testing.assert_close(made.drawn(query, listed).lse(2.0), (2 * scores.gather(1, listed)).logsumexp(1))
    assert made.drawn(query, listed).count().tolist() == [4, 4, 4]  # repeats count, and the own row where it stands
    assert made.drawn(query, listed, index).count().tolist() == [3, 1, 2]


@pytest.mark.parametrize("k", [1, 3, IMAGES - 1, IMAGES + 2])
def test_nearest_leaves_the_own_row_out(k: int) -> None:
    made, query, index = bank(neighbours=k), rows(4, seed=4), torch.tensor([2, 9, 0, 11])
    query[0] = made.keys[2]  # its own row would be the nearest
    scores = (query @ made.keys.T).scatter(1, index[:, None], -torch.inf)
    best = scores.sort(1, descending=True).indices[:, : min(k, IMAGES - 1)]
    expected = torch.cat([best, torch.full((4, k - best.shape[1]), -1)], 1)
    assert torch.equal(made.nearby(query, index).rows(), expected)


def test_nearest_of_equal_rows_are_those_of_the_images_that_come_first() -> None:
    made = bank(neighbours=3)
    made.keys.copy_(torch.eye(D, dtype=made.keys.dtype)[torch.arange(IMAGES) % 2])  # even images alike, and odd ones
    index = torch.tensor([0, 5])
    near = made.nearby(made.keys[index], index).rows()
    assert near.tolist() == [[2, 4, 6], [1, 3, 7]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**40), st.integers(1, 6), st.integers(1, 40), st.integers(1, 9))
def test_draws_follow_from_their_seed_and_stay_inside(seed: int, queries: int, count: int, images: int) -> None:
    drawn = draw_rows(queries, count, images, seed)
    assert drawn.shape == (queries, count) and int(drawn.min()) >= 0 and int(drawn.max()) < images
    assert torch.equal(drawn, draw_rows(queries, count, images, seed))


def test_draws_are_uniform_with_replacement_and_differ_from_query_to_query() -> None:
    drawn = draw_rows(200, 500, 10, seed=3)
    share = torch.bincount(drawn.flatten(), minlength=10) / drawn.numel()
    assert float((share - 0.1).abs().max()) < 5 * math.sqrt(0.1 * 0.9 / drawn.numel())
    assert len({tuple(row.tolist()) for row in drawn}) == 200
    assert not torch.equal(drawn, draw_rows(200, 500, 10, seed=4))


# NCE.


def nce_pool(temperature: float, dtype: torch.dtype = torch.float64, masked: bool = True, seed: int = 4) -> onca.Pool:
    made, query = bank().to(dtype), rows(3, seed=seed).to(dtype).requires_grad_()
    index = torch.tensor([2, 9, 2])
    listed = torch.tensor([[0, 0, 2, 5], [9, 9, 8, 1], [3, 2, 2, 11]])
    negatives = made.drawn(query, listed, index if masked else None)
    pool = onca.Pool(made.positives(query, index), negatives, temperature, index=index, population=IMAGES)
    return replace(pool, normaliser=made.constant(pool))


def loop(pool: onca.Pool) -> tuple[float, list[float]]:
    """Z and the losses, written out."""
    keys, query = bank().keys, pool.negatives.query.detach().double()
    own, listed = pool.index.tolist(), pool.negatives.links[0].rows.tolist()
    masked = pool.negatives.query_index is not None
    drawn = [[r for r in row if not (masked and r == i)] for i, row in zip(own, listed, strict=True)]
    mass = [[math.exp(float(query[b] @ keys[r]) / pool.temperature) for r in [own[b], *drawn[b]]] for b in range(3)]
    every = [value for row in mass for value in row]
    z = sum(every) / len(every) * IMAGES
    losses = []
    for row in mass:
        noise = (len(row) - 1) / IMAGES
        first = math.log((row[0] / z) / (row[0] / z + noise + 1e-7))
        losses.append(-first - sum(math.log(noise / (value / z + noise + 1e-7)) for value in row[1:]))
    return z, losses


@pytest.mark.parametrize("width", [1, 2, None])
@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_nce_equals_its_formula(temperature: float, masked: bool, width: int | None) -> None:
    with onca.sliced.rows(width):
        pool = nce_pool(temperature, masked=masked)
        z, losses = loop(pool)
        torch.testing.assert_close(float(pool.normaliser), z)
        torch.testing.assert_close(nce(pool), torch.tensor(losses, dtype=torch.float64))


def test_the_number_of_images_and_the_number_of_draws_both_count() -> None:
    """N forgotten, or K that ignores the masked rows, would go unnoticed where every query has the same K."""
    pool = nce_pool(0.2)
    assert len(set(pool.negatives.count().tolist())) > 1
    other = nce(replace(pool, population=2 * IMAGES))
    assert bool((other - nce(pool)).abs().min() > 1e-3)
    open_ = nce(replace(nce_pool(0.2, masked=False), normaliser=pool.normaliser))
    assert bool((open_ - nce(pool))[[0, 1, 2]].abs().min() > 1e-3)


def test_the_gradient_of_nce_is_that_of_differences_with_z_held_fixed() -> None:
    pool = nce_pool(0.3)
    (found,) = torch.autograd.grad(nce(pool).sum(), pool.negatives.query)
    query, step = pool.negatives.query.detach(), 1e-6
    for place in [(0, 1), (1, 4), (2, 0)]:
        values = []
        for sign in (1, -1):
            moved = query.clone()
            moved[place] += sign * step
            bags = {name: replace(getattr(pool, name), query=moved) for name in ("positives", "negatives")}
            values.append(float(nce(replace(pool, **bags)).sum()))
        assert found[place] == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6)


@pytest.mark.parametrize("opposite", [1.0, -1.0])
def test_nce_is_finite_in_float32_at_a_low_temperature(opposite: float) -> None:
    """Scores of +-1 at temperature 0.05 span e^40; against float64, value and gradient."""
    found = {}
    for dtype in (torch.float32, torch.float64):
        query = torch.eye(2, 4, dtype=dtype).requires_grad_()
        made = Bank(6, 4, dtype=dtype)
        made.keys.copy_(torch.eye(4, dtype=dtype)[[0, 1, 0, 1, 2, 3]])
        made.keys[2:4] *= opposite
        index = torch.tensor([0, 1])
        negatives = made.drawn(query, torch.tensor([[2, 3, 4], [3, 2, 5]]), index)
        pool = onca.Pool(made.positives(query, index), negatives, 0.05, population=6)
        for z in (made.constant(pool), torch.tensor(1.0), torch.tensor(1e12)):
            loss = nce(replace(pool, normaliser=z))
            (slope,) = torch.autograd.grad(loss.sum(), query)
            found.setdefault(dtype, []).append(torch.cat([loss.detach(), slope.flatten()]).double())
    for narrow, wide in zip(found[torch.float32], found[torch.float64], strict=True):
        assert bool(narrow.isfinite().all())
        torch.testing.assert_close(narrow, wide, rtol=2e-5, atol=1e-5)


def test_a_query_whose_draws_are_all_its_own_row_has_loss_nothing() -> None:
    made, query, index = bank(), rows(2, seed=4), torch.tensor([2, 9])
    negatives = made.drawn(query, torch.tensor([[2, 2], [9, 1]]), index)
    pool = onca.Pool(made.positives(query, index), negatives, 0.2, population=IMAGES, normaliser=torch.tensor(20.0))
    loss = nce(pool)
    assert loss[0] == 0 and loss[1] > 0 and pool.notes["empty"] == 1


def test_nce_counts_what_a_rule_left_and_added() -> None:
    pool = nce_pool(0.3, masked=False)
    with torch.no_grad():
        left = onca.read("chain(drop(nearest(1)), nce)")(pool)
        by_hand = nce(replace(pool, negatives=pool.negatives.only(lambda p: p.score < p.score.amax(1, keepdim=True))))
        link = pool.negatives.links[0]
        one, rest = (
            replace(pool.negatives, links=(replace(link, rows=part),)) for part in (link.rows[:, :1], link.rows[:, 1:])
        )
        torch.testing.assert_close(nce(replace(pool, negatives=one, added=(rest,))), nce(pool))
    assert pool.negatives.count().tolist() == [4, 4, 4]
    torch.testing.assert_close(left[[0, 2]], by_hand[[0, 2]])  # the second query's hardest row stands there twice


def test_nce_says_what_it_lacks() -> None:
    pool = nce_pool(0.3)
    with pytest.raises(ValueError, match=r"nce needs pool.normaliser .* take a host with a bank \(npid, cmc\)"):
        nce(replace(pool, normaliser=None))
    with pytest.raises(ValueError, match="nce counts each negative once"):
        onca.read("chain(harden(1), nce)")(pool)
    assert "normaliser" in onca.read("chain(drop(hardest(5)), nce)").needs
