"""False negative cancellation: against per-query loops in float64 that import nothing of onca, and its pitfalls."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import onca
from onca.bank import Bank
from onca.difficulty import support_max, support_mean
from onca.hosts.npid import NPID
from onca.methods.fnc import cancel, fnc

Tensor = torch.Tensor
ALL = -2.0  # a threshold that every cosine is above


def rows(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# --- the oracle ------------------------------------------------------------------------------------------------------


def unit(x: Tensor) -> Tensor:
    return x / x.norm(dim=-1, keepdim=True)


def false_negatives(keys: Tensor, own: list[bool], support: Tensor, k: int, threshold: float, mean: bool) -> list[int]:
    """keys [N,D], support [S,D] of one query; own: which keys are views of its image."""
    score = {}
    for j in range(len(keys)):
        cosines = [float(unit(view) @ unit(keys[j])) for view in support]
        score[j] = sum(cosines) / len(cosines) if mean else max(cosines)
    able = sorted((j for j in score if not own[j]), key=lambda j: (-score[j], j))
    return [j for j in able[:k] if score[j] > threshold]


def loss(
    query: Tensor, positives: Tensor, keys: Tensor, own: list[bool], found: list[int], attraction: bool, t: float
) -> Tensor:
    """Of one query [D]: positives [P,D], keys [N,D]."""
    s_pos, s = unit(positives) @ unit(query) / t, unit(keys) @ unit(query) / t
    if attraction:
        total = s_pos.exp().sum() + sum(s[j].exp() for j in range(len(keys)) if not own[j])
        terms = [*s_pos, *(s[j] for j in found)]
        return sum(-(term.exp() / total).log() for term in terms) / len(terms)
    rest = sum((s[j].exp() for j in range(len(keys)) if not own[j] and j not in found), s.new_zeros(()))
    return sum(-(p.exp() / (p.exp() + rest)).log() for p in s_pos) / len(s_pos)


def losses(
    query: Tensor,
    positive: Tensor,
    keys: Tensor,
    support: Tensor,
    k: int,
    threshold: float,
    attraction: bool,
    mean: bool,
    t: float,
    index: list[int] | None = None,
    key_index: list[int] | None = None,
) -> Tensor:
    """[B]: keys [N,D] or [B,N,D]; the shapes of the rest are those of onca.pool."""
    result = []
    for b in range(len(query)):
        mine = keys[b] if keys.dim() == 3 else keys
        own = [
            index is not None and key_index is not None and index[b] == i >= 0 for i in key_index or [-1] * len(mine)
        ]
        found = false_negatives(mine.detach(), own, support[b], k, threshold, mean)
        positives = positive[b] if positive.dim() == 3 else positive[b : b + 1]
        result.append(loss(query[b], positives, mine, own, found, attraction, t))
    return torch.stack(result)


def agree(ours: Tensor, theirs: Tensor, *leaves: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    share = torch.linspace(0.5, 1.5, len(ours), dtype=torch.float64)
    mine, other = (torch.autograd.grad((share * value).sum(), leaves, retain_graph=True) for value in (ours, theirs))
    for one, two in zip(mine, other, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-11)


SETTINGS = [(3, 0.1), (3, ALL), (100, 0.2), (2, 0.9), (0, ALL), (1, 0.0)]


@pytest.mark.parametrize("height", [1, 4, None])
@pytest.mark.parametrize("mean", [False, True], ids=["max", "mean"])
@pytest.mark.parametrize("attraction", [False, True], ids=["elimination", "attraction"])
@pytest.mark.parametrize(("k", "threshold"), SETTINGS)
def test_queue(k: int, threshold: float, attraction: bool, mean: bool, height: int | None) -> None:
    query, positive, queue = (rows(n, 6, seed=n).requires_grad_() for n in (5, 5, 24))
    support = rows(5, 3, 6, seed=9)
    index, key_index = [0, 1, 2, 3, -1], [i % 9 - 1 for i in range(24)]
    method = fnc(k, threshold, attraction, support_mean if mean else support_max)
    with onca.sliced.rows(height):
        ours = onca.contrast(
            query, positive, queue, method, 0.3, support=support, reduction="none",
            index=torch.tensor(index), negative_index=torch.tensor(key_index),
        )  # fmt: skip
    theirs = losses(query, positive, queue, support, k, threshold, attraction, mean, 0.3, index, key_index)
    agree(ours, theirs, query, positive, queue)


@pytest.mark.parametrize("attraction", [False, True], ids=["elimination", "attraction"])
@pytest.mark.parametrize(("k", "threshold"), SETTINGS)
def test_in_batch_with_all_views_as_anchors(k: int, threshold: float, attraction: bool) -> None:
    views = rows(3, 5, 6, seed=1).requires_grad_()  # [V,B,D]
    flat = views.flatten(0, 1)
    positive = torch.cat([views[[w for w in range(3) if w != v]].transpose(0, 1) for v in range(3)])
    support, image = views.detach().transpose(0, 1).repeat(3, 1, 1), [*range(5)] * 3
    known = torch.tensor(image)
    method = fnc(k, threshold, attraction)
    ours = onca.contrast(
        flat, positive, flat, method, 0.3, index=known, negative_index=known, support=support, reduction="none"
    )
    theirs = losses(flat, positive, flat, support, k, threshold, attraction, False, 0.3, image, image)
    agree(ours, theirs, views)


@pytest.mark.parametrize("attraction", [False, True])
def test_keys_of_each_query(attraction: bool) -> None:
    query, positive, keys = rows(4, 6, seed=1), rows(4, 6, seed=2), rows(4, 9, 6, seed=3)
    query.requires_grad_()
    support = rows(4, 2, 6, seed=4)
    ours = onca.contrast(query, positive, keys, fnc(3, 0.1, attraction), 0.3, support=support, reduction="none")
    agree(ours, losses(query, positive, keys, support, 3, 0.1, attraction, False, 0.3), query)


# --- hosts -----------------------------------------------------------------------------------------------------------


def batch(views: int, images: int = 5) -> onca.hosts.Batch:
    return onca.hosts.Batch(tuple(rows(images, 6, seed=10 + v) for v in range(views)), torch.arange(images))


@pytest.mark.parametrize("attraction", [False, True], ids=["elimination", "attraction"])
def test_hosts(attraction: bool) -> None:
    """In a batch, against a queue, against a bank: the host's own pools, whose support are the extra views alone."""
    method, identity = fnc(3, 0.1, attraction), torch.nn.Identity()
    image = [*range(5)]

    given = batch(2 + 3)
    views, support = torch.stack(given.views[:2]), torch.stack(given.views[2:], 1)
    flat, other = views.flatten(0, 1), views.flip(0).flatten(0, 1)
    simclr = onca.hosts.SimCLR(identity, 0.3, support=3)
    twice = support.repeat(2, 1, 1)
    expected = losses(flat, other, flat, twice, 3, 0.1, attraction, False, 0.3, image * 2, image * 2)
    torch.testing.assert_close(simclr.loss(simclr.pools(given), method), expected.mean())

    queue = onca.Queue(20, 6, dtype=torch.float64)
    old, old_index = rows(20, 6, seed=3), torch.arange(20) % 12
    queue.enqueue(unit(old), old_index)
    moco = onca.hosts.MoCo(identity, queue, temperature=0.3, support=3)
    expected = losses(
        given.views[0], given.views[1], old, support, 3, 0.1, attraction, False, 0.3, image, old_index.tolist()
    )
    torch.testing.assert_close(moco.loss(moco.pools(given), method), expected.mean())

    given = batch(1 + 3)
    support, bank = torch.stack(given.views[1:], 1), Bank(30, 6, dtype=torch.float64)
    npid = NPID(identity, bank, 0.3, support=3)
    keys = bank.keys.clone()
    expected = losses(given.views[0], keys[:5], keys, support, 3, 0.1, attraction, False, 0.3, image, [*range(30)])
    torch.testing.assert_close(npid.loss(npid.pools(given), method), expected.mean())


def test_what_is_missing_is_said_at_construction_where_the_host_knows_it() -> None:
    for text in (
        "fnc()",
        "fnc(k=3, attraction=False)",
        "chain(cancel(), infonce)",
        "total((1, infonce), (0.5, fnc()))",
    ):
        method = onca.read(text)
        assert "support" in method.needs
        host = onca.hosts.SimCLR(torch.nn.Identity(), 0.3)
        with pytest.raises(ValueError, match="needs support views of each image: give the host support=8"):
            host.check(method)
        onca.hosts.SimCLR(torch.nn.Identity(), 0.3, support=8).check(method)
        with pytest.raises(ValueError, match=r"needs pool.support: give support= \(a host: support=8\)"):
            onca.contrast(rows(3, 4, seed=1), rows(3, 4, seed=2), rows(9, 4, seed=3), method)
    plain = fnc(by=onca.cosine)  # judged by the query alone
    assert "support" not in plain.needs
    onca.contrast(rows(3, 4, seed=1), rows(3, 4, seed=2), rows(9, 4, seed=3), plain)


@pytest.mark.parametrize("text", ["fnc(k=-1)", "fnc(k=2.5)", "fnc(threshold=True)", "fnc(attraction=1)",
                                  "fnc(by=infonce)", "cancel(-1)", "cancel(by=hardest(5))"])  # fmt: skip
def test_bad_arguments_are_refused_in_the_words_that_were_written(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        onca.read(text)
    assert str(caught.value).startswith(text + ":")


# --- pitfalls --------------------------------------------------------------------------------------------------------


def keys_at(*angles: float) -> Tensor:
    """Unit rows in the plane, at so many degrees from the first axis."""
    radians = torch.tensor(angles, dtype=torch.float64).deg2rad()
    return torch.stack([radians.cos(), radians.sin()], 1)


def plane(
    method: onca.Method, queue: Tensor, more: dict[str, Any] | None = None, support: tuple[float, ...] = (0.0,)
) -> float:
    """The loss at temperature 1 of one query at 0 degrees whose positive lies there too."""
    query = keys_at(0)
    known = {"support": keys_at(*support)[None]} | (more or {})
    return onca.contrast(query, query, queue, method, 1.0, **known).item()


def expected(positives: list[float], negatives: list[float], denominator: list[float]) -> float:
    """Mean over positives of -log(e^c / denominator); everything is given in degrees."""
    cosines = [torch.tensor(angle, dtype=torch.float64).deg2rad().cos() for angle in positives]
    total = sum(torch.tensor(a, dtype=torch.float64).deg2rad().cos().exp() for a in denominator + negatives)
    return sum(float(total.log() - c) for c in cosines) / len(cosines)


def test_own_views_take_no_place_among_the_k() -> None:
    """They score highest of all; picked before they are masked, they would be the k and nothing would be cancelled."""
    queue = keys_at(1, 2, 20, 90)
    known = {"index": torch.tensor([7]), "negative_index": torch.tensor([7, 7, 3, 4])}
    masked = plane(fnc(1, ALL, attraction=False), queue, known)
    assert masked == pytest.approx(expected([0], [90], [0]))  # the one at 20 degrees went
    assert plane(onca.infonce, queue, known) == pytest.approx(expected([0], [20, 90], [0]))
    unmasked = plane(fnc(1, ALL, attraction=False), queue)  # the planted fault: own views not known to be own
    assert unmasked == pytest.approx(expected([0], [2, 20, 90], [0]))


def test_what_is_attracted_stays_in_the_denominator() -> None:
    queue = keys_at(20, 90)
    right = expected([0, 20], [90], [0, 20])
    assert plane(fnc(1, 0.7), queue) == pytest.approx(right)
    wrong = (expected([0], [90], [0]) + expected([20], [90], [20])) / 2  # each positive against the negatives alone
    assert plane(onca.chain(onca.attract(onca.nearest(1)), onca.infonce), queue) == pytest.approx(wrong)
    assert right > wrong + 0.1


def test_a_candidate_near_one_support_view_is_found_by_the_largest_score_and_not_by_the_mean() -> None:
    queue, support = keys_at(100, 170), (0.0, 60.0, 95.0)
    assert plane(fnc(2, 0.9, False), queue, support=support) == pytest.approx(expected([0], [170], [0]))
    mean = plane(fnc(2, 0.9, False, support_mean), queue, support=support)
    assert mean == pytest.approx(expected([0], [100, 170], [0]))


def test_each_image_has_its_own_false_negatives() -> None:
    query, queue = keys_at(0, 90), keys_at(10, 80)
    loss = onca.contrast(query, query, queue, fnc(1, 0.7, False), 1.0, support=query[:, None], reduction="none")
    torch.testing.assert_close(loss, torch.full((2,), expected([0], [80], [0]), dtype=torch.float64))


def test_a_query_whose_negatives_are_all_cancelled_has_loss_zero_and_no_gradient() -> None:
    query = keys_at(0, 180).requires_grad_()
    queue = keys_at(5, 10)
    loss = onca.contrast(
        query, query.detach(), queue, fnc(9, 0.7, False), 1.0, support=query.detach()[:, None], reduction="none"
    )
    (gradient,) = torch.autograd.grad(loss.sum(), query)
    assert loss[0] == 0 and not gradient[0].any()
    assert loss[1] > 0 and gradient[1].any()
    with pytest.raises(ValueError, match="leaves no query any negatives"):
        plane(fnc(9, 0.7, False), queue)


DATA = st.tuples(st.integers(1, 5), st.integers(1, 20), st.integers(1, 4), st.integers(0, 2**20))


def problem(shape: tuple[int, int, int, int]) -> tuple[tuple[Tensor, Tensor, Tensor], Tensor]:
    queries, keys, views, seed = shape
    return (rows(queries, 4, seed=seed), rows(queries, 4, seed=seed + 1), rows(keys, 4, seed=seed + 2)), rows(
        queries, views, 4, seed=seed + 3
    )


def each(tensors: tuple[Tensor, Tensor, Tensor], method: onca.Method | str, **more: Any) -> Tensor:
    return onca.contrast(*tensors, method, reduction="none", **more)


@settings(max_examples=40, deadline=None)
@given(DATA)
def test_nothing_found_is_infonce(shape: tuple[int, int, int, int]) -> None:
    tensors, support = problem(shape)
    plain = each(tensors, "infonce")
    for neutral in (fnc(0, ALL), fnc(0, ALL, False), fnc(10**6, 1.5), fnc(10**6, 1.5, False)):
        torch.testing.assert_close(each(tensors, neutral, support=support), plain, rtol=1e-12, atol=1e-14)


@settings(max_examples=40, deadline=None)
@given(DATA, st.integers(0, 6), st.floats(-1, 0.9))
def test_identities(shape: tuple[int, int, int, int], k: int, threshold: float) -> None:
    """Support views twice or in another order, keys in another order, spelt out: the same; cancelling only lowers."""
    queries, more, views, seed = shape
    tensors, support = problem((queries, 6 + more, views, seed))  # at least one key stays
    query, positive, keys = tensors
    method = onca.chain(cancel(k, threshold), onca.supcon)
    found = each(tensors, method, support=support)
    again = torch.cat([support.flip(1), support], 1)
    torch.testing.assert_close(each(tensors, method, support=again), found)
    order = torch.randperm(len(keys), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(each((query, positive, keys[order]), method, support=support), found)
    spelt = f"chain(drop(nearest({k}, by=support_max) & above({threshold!r}, by=support_max)), supcon)"
    assert torch.equal(each(tensors, spelt, support=support), found)
    assert (found <= each(tensors, "infonce") + 1e-12).all()


def test_support_and_the_choice_send_no_gradient() -> None:
    support = rows(5, 3, 6, seed=9).requires_grad_()
    loss = onca.contrast(
        rows(5, 6, seed=1).requires_grad_(), rows(5, 6, seed=2), rows(20, 6, seed=3), fnc(3, 0.1), support=support
    )
    loss.backward()
    assert support.grad is None


# --- over training ---------------------------------------------------------------------------------------------------


def test_schedules() -> None:
    """Early cosines are high whatever the image: both numbers can wait or come in slowly."""
    tensors, support = problem((4, 30, 2, 5))
    plain = each(tensors, "infonce")
    late = fnc(onca.after(10, 5), onca.ramp(1.0, 0.2, 40))
    torch.testing.assert_close(each(tensors, late, support=support, epoch=10.0), plain, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(
        each(tensors, late, support=support, epoch=20.0), each(tensors, fnc(5, 0.6), support=support)
    )
    with pytest.raises(ValueError, match="give epoch="):
        each(tensors, late, support=support)


def test_the_share_of_candidates_that_k_means_shrinks_as_they_grow_and_a_percentage_does_not() -> None:
    """10 of 65,536 keys is one in 6,554: the form in percent keeps that whatever the memory's size."""
    for keys, cut in ((100, 2), (1000, 20)):
        tensors, support = problem((3, keys, 2, 5))
        share = "chain(drop(hardest(2, by=support_max) & above(0.1, by=support_max)), infonce)"
        assert torch.equal(each(tensors, share, support=support), each(tensors, fnc(cut, 0.1, False), support=support))
    pool = onca.pool(*tensors, support=support)
    left = cancel(10, ALL)(pool).negatives
    assert (left.count() == 1000 - 10).all()


def test_text() -> None:
    for text in ("fnc()", "fnc(k=10, threshold=0.7, attraction=False, by=support_mean)", "chain(cancel(3), supcon)"):
        assert str(onca.read(text)) == text
    assert fnc() == onca.read("fnc()")
