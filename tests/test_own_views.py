"""own_views against loops in float64 that import nothing of ours; ties, masks, order of rules, hosts."""

import math

import pytest
import torch

import onca
from onca import hosts
from onca.methods.own_views import own_views

Tensor = torch.Tensor
B, S, N, D = 4, 5, 12, 6


def rows(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(dtype=torch.float64):
    """query, positive, negatives, support, each with gradient."""
    shapes = ((B, D), (B, D), (N, D), (B, S, D))
    return [rows(*shape, seed=seed).to(dtype).requires_grad_() for seed, shape in enumerate(shapes)]


def sort_views(query: Tensor, views: Tensor) -> list[int]:
    """Places of one query's views from close to far; the first of those that score the same is the closer one."""
    scores = [float((view @ query).detach()) for view in views]
    return sorted(range(len(scores)), key=lambda place: (-scores[place], place))


def oracle(objective, query, positive, negatives, support, *, close, far, temperature, keep=None):
    """Loss of each query [B]. keep(scores) -> which of the negatives stay, before the views are sorted in."""
    losses = []
    for q, own, others in zip(query, positive, support, strict=True):
        q, own = q / q.norm(), own / own.norm()
        views = others / others.norm(dim=1, keepdim=True)
        keys = negatives / negatives.norm(dim=1, keepdim=True)
        order = sort_views(q, views)
        chosen = range(len(keys)) if keep is None else keep((keys @ q).tolist())
        plus = [own @ q / temperature] + [views[place] @ q / temperature for place in order[:close]]
        minus = [keys[place] @ q / temperature for place in chosen]
        minus += [views[place] @ q / temperature for place in order[len(order) - far :]]
        below, all_plus = sum(map(torch.exp, minus)), sum(map(torch.exp, plus))
        if objective == "infonce":
            parts = [-torch.log(s.exp() / (s.exp() + below)) for s in plus]
        elif objective == "supcon":
            parts = [-torch.log(s.exp() / (all_plus + below)) for s in plus]
        elif objective == "mass":
            parts = [-torch.log(all_plus / (all_plus + below))]
        elif objective == "debiased(0.1)":
            mean, same = below / len(minus), all_plus / len(plus)
            g = torch.clamp((mean - 0.1 * same) / 0.9, min=math.exp(-1 / temperature))
            parts = [-torch.log(plus[0].exp() / (plus[0].exp() + len(minus) * g))]
        losses.append(sum(parts) / len(parts))
    return torch.stack(losses)


def share(losses):
    """A sum in which every query counts differently, so that mixed-up queries show."""
    return (torch.linspace(0.5, 1.5, len(losses), dtype=losses.dtype) * losses).sum()


OBJECTIVES = ("infonce", "supcon", "mass", "debiased(0.1)")


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize(("close", "far"), [(1, 1), (2, 3), (0, 2), (3, 0), (5, 0), (0, 5)])
def test_values_and_gradients_are_those_of_loops(objective, close, far):
    ours, theirs = inputs(), inputs()
    query, positive, negatives, support = ours
    method = f"chain(own_views({close}, {far}), {objective})"
    found = onca.contrast(query, positive, negatives, method, 0.5, support=support, reduction="none")
    expected = oracle(objective, *theirs, close=close, far=far, temperature=0.5)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    for one, other in zip(
        torch.autograd.grad(share(found), ours), torch.autograd.grad(share(expected), theirs), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-11)


def test_only_the_views_that_were_chosen_have_a_gradient():
    query, positive, negatives, support = inputs()
    loss = onca.contrast(query, positive, negatives, "chain(own_views(1, 2), infonce)", 0.5, support=support)
    (slope,) = torch.autograd.grad(loss, support)
    for b in range(B):
        order = sort_views(query[b], support[b] / support[b].norm(dim=1, keepdim=True))
        assert sorted(slope[b].abs().sum(1).nonzero().flatten().tolist()) == sorted([order[0], *order[-2:]])


def test_float32_and_blocks_of_any_height():
    query, positive, negatives, support = inputs(torch.float32)
    method = "chain(own_views(2, 2), infonce)"
    expected = oracle("infonce", *inputs(), close=2, far=2, temperature=0.2)
    for height in (1, 3, None):
        with onca.sliced.rows(height):
            found = onca.contrast(query, positive, negatives, method, 0.2, support=support, reduction="none")
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, expected.float(), rtol=2e-5, atol=1e-6)


def test_in_a_batch_whose_keys_have_a_gradient():
    z, support = rows(8, D, seed=1).requires_grad_(), rows(8, S, D, seed=2).requires_grad_()
    image, other = torch.arange(4).repeat(2), torch.arange(8).roll(4)
    method = "chain(own_views(1, 1), infonce)"
    found = onca.contrast(
        z, z[other], z, method, 0.5, index=image, negative_index=image, support=support, reduction="none"
    )
    expected = torch.cat(
        [
            oracle("infonce", z[b : b + 1], z[other[b]][None], z[image != image[b]], support[b : b + 1], **one_each)
            for b, one_each in enumerate([{"close": 1, "far": 1, "temperature": 0.5}] * 8)
        ]
    )
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)
    ours, theirs = (torch.autograd.grad(share(loss), (z, support)) for loss in (found, expected))
    for one, wanted in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, wanted, rtol=1e-9, atol=1e-11)


def chosen(pool: onca.Pool) -> tuple[Tensor, Tensor]:
    """The views that became positives and those that became negatives, as vectors."""
    return pool.positives.links[-1].vectors, pool.negatives.links[-1].vectors


def test_of_views_that_score_the_same_the_first_is_the_closer_one():
    query = torch.tensor([[1.0, 0.0, 0.0]])
    support = torch.tensor([[[0.5, 0.1, 0], [0.5, 0.2, 0], [0.9, 0, 0], [0.5, 0.3, 0], [0.5, 0.4, 0]]])
    made = onca.pool(query, query, torch.eye(3), support=support, normalize=False)
    close, far = chosen(own_views(2, 2)(made))
    assert torch.equal(close[0], support[0, [2, 0]]) and torch.equal(far[0], support[0, [3, 4]])
    all_close, _ = chosen(own_views(5, 0)(made))
    assert torch.equal(all_close[0], support[0, [2, 0, 1, 3, 4]])


def test_no_entry_at_all_changes_nothing_and_needs_no_views():
    query, positive, negatives, support = inputs()
    made = onca.pool(query, positive, negatives)
    assert own_views(0, 0)(made) is made
    plain = onca.contrast(query, positive, negatives, "infonce", reduction="none")
    neutral = onca.contrast(
        query, positive, negatives, "chain(own_views(0, 0), infonce)", support=support, reduction="none"
    )
    assert torch.equal(plain, neutral)


def test_numbers_may_be_schedules():
    query, positive, negatives, support = inputs()
    text = "chain(own_views(1, after(5, 2)), infonce)"
    assert str(onca.read(text)) == text
    for epoch, far in ((5.0, 0), (5.1, 2)):
        found = onca.contrast(query, positive, negatives, text, 0.5, support=support, epoch=epoch, reduction="none")
        expected = oracle("infonce", *inputs(), close=1, far=far, temperature=0.5)
        torch.testing.assert_close(found, expected)


# What other rules and masks see


def known():
    """Labels and indices; entries 0 and 1 are the first query's own image, 2 and 3 of its class."""
    label, index = torch.tensor([0, 1, 2, 3]), torch.arange(B)
    return {
        "label": label,
        "index": index,
        "negative_label": torch.tensor([0, 0, 0, 0] + [9] * (N - 4)),
        "negative_index": torch.tensor([0, 0, *range(20, 20 + N - 2)]),
    }


def numbers(method, **more):
    query, positive, negatives, support = inputs()
    rules = onca.read(f"chain({method}, infonce)").steps[:-1]
    left = onca.pool(query, positive, negatives, support=support, **known(), **more)
    for rule in rules:
        left = rule(left)
    return left


def test_far_views_are_not_masked_as_the_querys_own_image():
    assert numbers("own_views(1, 2)").negatives.count().tolist() == [N - 2 + 2, N + 2, N + 2, N + 2]
    assert numbers("own_views(1, 2)").positives.count().tolist() == [2] * B


def test_rules_that_follow_see_the_far_views():
    assert numbers("own_views(1, 2), drop(same_image)").negatives.count().tolist() == [N - 2, N, N, N]
    assert numbers("own_views(1, 2), drop(same_class)").negatives.count().tolist() == [N - 4, N, N, N]
    assert numbers("own_views(0, 2), keep(same_image), attract(same_image)").positives.count().tolist() == [3] * B
    assert numbers("own_views(1, 2), keep(hardest(50))").negatives.count().tolist() == [6, 7, 7, 7]
    assert numbers("keep(hardest(50)), own_views(1, 2)").negatives.count().tolist() == [7, 8, 8, 8]


def test_after_a_window_far_views_stand_beside_what_it_left():
    query, positive, negatives, support = inputs()
    method = "chain(keep(nearest(3)), own_views(1, 1), infonce)"
    found = onca.contrast(query, positive, negatives, method, 0.5, support=support, reduction="none")
    expected = oracle(
        "infonce",
        *inputs(),
        close=1,
        far=1,
        temperature=0.5,
        keep=lambda scores: sorted(range(N), key=lambda place: -scores[place])[:3],
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "order", ["own_views(1, 2), drop(nearest(3), refill=True)", "drop(nearest(3), refill=True), own_views(1, 2)"]
)
def test_with_refill_numbers_stay_and_no_two_entries_share_a_place(order):
    left = numbers(order, reserve=5)
    assert left.negatives.count().tolist() == [N - 5 - 2 + 2, *[N - 5 + 2] * 3]
    places = left.negatives.rows(lambda piece: piece.present(), 20)
    for row in places.tolist():
        there = [place for place in row if place >= 0]
        assert len(there) == len(set(there))


def test_each_query_has_views_of_its_own():
    query, positive, negatives, support = inputs()
    method = "chain(own_views(1, 1), infonce)"
    mine = onca.contrast(query, positive, negatives, method, support=support, reduction="none")
    other = support.clone()
    other[2] = rows(S, D, seed=9)
    changed = onca.contrast(query, positive, negatives, method, support=other, reduction="none")
    assert (mine != changed).tolist() == [False, False, True, False]


# Refusals


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("own_views(-1, 1)", "close must be a whole number from 0; got -1"),
        ("own_views(1, 0.5)", "far must be a whole number from 0; got 0.5"),
        ("own_views('a')", "close must be a number or a schedule"),
    ],
)
def test_counts_that_mean_nothing_are_refused(text, words):
    with pytest.raises(ValueError) as caught:
        onca.read(text)
    assert words in str(caught.value)


def test_more_views_than_there_are_is_refused_and_so_are_none():
    query, positive, negatives, support = inputs()
    with pytest.raises(ValueError, match="3 close and 3 far views are 6, and there are 5 support views"):
        onca.contrast(query, positive, negatives, "chain(own_views(3, 3), infonce)", support=support)
    with pytest.raises(ValueError, match=r"own_views\(\) needs pool.support"):
        onca.contrast(query, positive, negatives, "chain(own_views(), infonce)")
    assert onca.read("chain(own_views(), infonce)").needs == {"support"}


# Hosts


def batch(count, views):
    made = [rows(count, D, seed=100 + view).float() for view in range(views)]
    return hosts.Batch(views=tuple(made), index=torch.arange(count), label=None, epoch=0.0, step=0)


@pytest.mark.parametrize("kind", ["moco", "simclr"])
def test_hosts_with_support_views_take_it_and_learn_from_it(kind):
    torch.manual_seed(0)
    encoder, method = torch.nn.Linear(D, 4), onca.read("chain(own_views(1, 1), infonce)")
    host = (
        hosts.MoCo(encoder, onca.Queue(16, 4), support=4) if kind == "moco" else hosts.SimCLR(encoder, 0.2, support=4)
    )
    host.check(method)
    for _ in range(2):
        host.before_step()
        loss = host.loss(host.pools(batch(6, 6)), method)
        host.after_step()
    plain = host.loss(host.pools(batch(6, 6)), onca.infonce)
    loss.backward()
    assert loss.isfinite() and encoder.weight.grad.abs().sum() > 0
    assert not torch.isclose(loss, plain)


def test_a_host_without_support_views_says_what_to_give_it():
    host = hosts.SimCLR(torch.nn.Linear(D, 4), 0.2)
    with pytest.raises(ValueError, match="support=8"):
        host.check(onca.read("chain(own_views(), infonce)"))
