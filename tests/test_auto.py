"""likely and auto: against plain densities in float64, where the truth is known, and where they must fail."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

import onca
from onca.methods.auto import auto, boundary, likely


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chosen(pool: onca.Pool, part: likely) -> Tensor:
    """[B,N] bool, by place."""
    rows = pool.negatives.only(part(pool, pool.negatives)).rows(lambda piece: piece.present(), len(pool.negatives))
    result = torch.zeros(len(pool), len(pool.negatives), dtype=torch.bool)
    for query, row in enumerate(rows.tolist()):
        result[query, [place for place in row if place >= 0]] = True
    return result


def density(z: float, mean: float, deviation: float) -> float:
    return math.exp(-(((z - mean) / deviation) ** 2) / 2) / deviation / math.sqrt(2 * math.pi)


def expected(scores: list[list[float]], positives: list[float], prior: float, certainty: float) -> list[list[bool]]:
    """The definition, entry by entry: at or beyond a place where prior f+ >= certainty f; scores in order of place."""
    moments = []
    for row in scores:
        mean = sum(row) / len(row)
        moments.append((mean, math.sqrt(sum((s - mean) ** 2 for s in row) / len(row))))
    z = [(s - m) / d for s, (m, d) in zip(positives, moments, strict=True)]
    a = sum(z) / len(z)
    b = math.sqrt(sum((value - a) ** 2 for value in z) / len(z))
    if a <= 0:
        return [[False] * len(row) for row in scores]
    beyond = [(s - m) / d >= a + b for row, (m, d) in zip(scores, moments, strict=True) for s in row]
    prior = min(prior, sum(beyond) / len(beyond) / 0.15865525393145707)

    def reaches(value: float) -> bool:
        return prior * density(value, a, b) >= certainty * density(value, 0, 1)

    turn = a / (1 - b * b)  # where the ratio is highest (b < 1) or lowest (b > 1)

    def meant(value: float) -> bool:
        if b < 1:
            return reaches(min(value, turn))
        return reaches(max(value, turn)) if value >= turn else reaches(turn)

    result = []
    for row, (m, d) in zip(scores, moments, strict=True):
        order = sorted(range(len(row)), key=lambda place: -row[place])
        most = set(order[: int(len(row) * min(prior / certainty, 0.5))])
        result.append([place in most and meant((s - m) / d) for place, s in enumerate(row)])
    return result


@pytest.mark.parametrize("closeness", [0.05, 0.5, 0.8, 1.5, 4.0])
@pytest.mark.parametrize("prior, certainty", [(0.02, 0.5), (0.1, 0.5), (0.1, 0.1), (0.4, 0.5), (1, 0.05)])
def test_likely_is_its_definition(closeness: float, prior: float, certainty: float) -> None:
    query, noise, keys = draw(12, 6, seed=1), draw(12, 6, seed=2), draw(70, 6, seed=3)
    positive = closeness * query + noise
    pool = onca.pool(query, positive, keys)
    scores = normalize(query) @ normalize(keys).T
    own = (normalize(query) * normalize(positive)).sum(1)
    want = torch.tensor(expected(scores.tolist(), own.tolist(), prior, certainty))
    assert chosen(pool, likely(prior, certainty)).equal(want)
    assert pool.notes["likely"] == pytest.approx(want.double().mean().item())


def test_the_cases_of_the_definition_differ() -> None:
    """The test above sees chosen sets that are empty and that are cut by the threshold; the bound comes below."""
    query, noise, keys = draw(12, 6, seed=1), draw(12, 6, seed=2), draw(70, 6, seed=3)
    cases = ((0.05, 0.1), (0.8, 0.1), (1.5, 0.4))  # positives too far, in between, and so close that they refute 0.4
    found = [chosen(onca.pool(query, c * query + noise, keys), likely(prior)) for c, prior in cases]
    far, between, close = (float(each.double().mean()) for each in found)
    assert far == close == 0 and 0.05 < between < 0.2


def test_absent_entries_count_in_nothing() -> None:
    query, keys = draw(5, 6), draw(40, 6, seed=3)
    positive = query + 0.5 * draw(5, 6, seed=2)
    index = torch.arange(5)
    negative_index = torch.cat([index, torch.full((35,), -1)])
    with_own = onca.pool(query, positive, keys, index=index, negative_index=negative_index)
    found = chosen(with_own, likely(0.2))
    for b in range(5):
        others = [place for place in range(40) if place != b]
        scores = [
            (normalize(query)[c] @ normalize(keys[[p for p in range(40) if p != c]]).T).tolist() for c in range(5)
        ]
        own = (normalize(query) * normalize(positive)).sum(1).tolist()
        assert found[b, others].tolist() == expected(scores, own, 0.2, 0.5)[b] and not found[b, b]


@given(
    odds=st.floats(1e-4, 3), mean=st.floats(0.05, 6), deviation=st.floats(0.05, 3) | st.just(1.0) | st.just(1 + 1e-9)
)
def test_the_boundary_is_where_the_two_densities_meet(odds: float, mean: float, deviation: float) -> None:
    def gap(z: float) -> float:
        return math.log(odds / deviation) - ((z - mean) / deviation) ** 2 / 2 + z * z / 2

    z = boundary(odds, mean, deviation)
    turn = mean / (1 - deviation**2) if deviation != 1 else math.inf
    if z == math.inf:
        assert deviation < 1 and gap(turn) < 1e-9
    elif z == -math.inf:
        assert deviation > 1 and gap(turn) > -1e-9
    else:
        assert gap(z) == pytest.approx(0, abs=1e-6 * (1 + z * z))
        step = 1e-4 * (1 + abs(z))
        beyond = z + step if deviation >= 1 else min(z + step, turn)
        assert gap(beyond) > -1e-6 * (1 + z * z) and gap(z - step) < 1e-6 * (1 + z * z)


# --- where the truth is known ----------------------------------------------------------------------------------------


def classes(count: int, spread: float, queries: int = 64, size: int = 2000, dim: int = 32) -> tuple[Tensor, ...]:
    """Queries, classmates of theirs to serve as positives, keys, and which key is of the query's class [B,N]."""
    centre = normalize(draw(count, dim, seed=4))
    label, other = torch.arange(queries) % count, torch.arange(size) % count
    near = spread / math.sqrt(dim)
    query, mate = (centre[label] + near * draw(queries, dim, seed=seed) for seed in (5, 6))
    return query, mate, centre[other] + near * draw(size, dim, seed=7), label[:, None] == other


def quality(found: Tensor, truth: Tensor) -> tuple[float, float]:
    right = (found & truth).sum().item()
    return right / max(1, found.sum().item()), right / truth.sum().item()


@pytest.mark.parametrize("spread", [0.5, 0.8, 1.0])
def test_where_views_are_like_classmates_it_finds_them(spread: float) -> None:
    query, mate, keys, truth = classes(20, spread)
    precision, recall = quality(chosen(onca.pool(query, mate, keys), likely(0.05)), truth)
    assert precision > 0.6 and recall > 0.6
    for percent in (0.1, 1):
        pool = onca.pool(query, mate, keys)
        rows = pool.negatives.only(onca.hardest(percent)(pool, pool.negatives))
        assert int(rows.count().max()) / 100 < recall, "the hardest 0.1 or 1 % hold at most so many of a class of 100"


def test_what_is_chosen_holds_to_its_certainty() -> None:
    """Overlapping classes: the more certain, the more precise, and never far below what was asked."""
    query, mate, keys, truth = classes(20, 1.3)
    found = [quality(chosen(onca.pool(query, mate, keys), likely(0.05, c)), truth) for c in (0.8, 0.5, 0.2, 0.1)]
    precisions, recalls = zip(*found, strict=True)
    assert list(precisions) == sorted(precisions, reverse=True) and list(recalls) == sorted(recalls)
    assert all(p > c - 0.05 for p, c in zip(precisions, (0.8, 0.5, 0.2, 0.1), strict=True)) and recalls[1] > 0.2


@pytest.mark.parametrize("spread", [0.5, 0.8])
def test_a_prior_that_the_batch_refutes_is_lowered(spread: float) -> None:
    query, mate, keys, truth = classes(20, spread)
    precision, recall = quality(chosen(onca.pool(query, mate, keys), likely(0.5)), truth)
    assert precision > 0.5 and recall > 0.6, "half of all negatives were promised, and a twentieth is there"


def test_views_far_closer_than_classmates_leave_the_baseline() -> None:
    query, _, keys, _ = classes(20, 1.5)
    twin = query + 0.01 * draw(*query.shape, seed=8)
    notes: dict[str, float] = {}
    loss = onca.contrast(query, twin, keys, onca.chain(auto(0.05), onca.infonce), 0.1, notes=notes)
    assert notes["likely"] == 0 and loss.equal(onca.contrast(query, twin, keys, "infonce", 0.1))


@pytest.mark.parametrize("sign", [-1, 0])
def test_positives_no_closer_than_negatives_cancel_nothing(sign: int) -> None:
    query, mate, keys, _ = classes(20, 1.0)
    positive = -mate if sign else keys[:64].flip(0) - 0.3 * query
    assert not chosen(onca.pool(query, positive, keys), likely(0.05)).any()


def test_positives_just_above_the_mean_cannot_cancel_more_than_the_bound() -> None:
    """All positives at z = 0.1 with hardly a spread: everything above is "likely", and the bound is what holds."""
    query, keys = draw(16, 8), draw(1000, 8, seed=3)
    scores = normalize(query) @ normalize(keys).T
    target = scores.mean(1) + (0.1 + 1e-4 * torch.arange(16)) * scores.std(1, correction=0)
    across = draw(16, 8, seed=9)
    across = normalize(across - (across * normalize(query)).sum(1, keepdim=True) * normalize(query))
    positive = target[:, None] * normalize(query) + (1 - target**2).sqrt()[:, None] * across
    found = chosen(onca.pool(query, positive, keys), likely(0.01))
    assert found.sum(1).tolist() == [20] * 16
    assert found.equal(chosen(onca.pool(query, positive, keys), onca.nearest(20)))


@settings(max_examples=40, deadline=None)
@given(
    prior=st.floats(0, 1), certainty=st.floats(0.01, 1), closeness=st.floats(-2, 5), noise=st.floats(0, 3),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_never_more_than_the_prior_over_the_certainty_or_half(
    prior: float, certainty: float, closeness: float, noise: float, seed: int
) -> None:
    query, keys = draw(6, 4, seed=seed), draw(50, 4, seed=seed + 100)
    positive = closeness * query + noise * draw(6, 4, seed=seed + 200)
    found = chosen(onca.pool(query, positive, keys), likely(prior, certainty))
    assert int(found.sum(1).max()) <= 50 * min(prior / certainty, 0.5) + 1e-9


# --- invariances, edges ----------------------------------------------------------------------------------------------


def test_the_order_of_negatives_changes_nothing() -> None:
    query, mate, keys, _ = classes(20, 1.0, size=500)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(1))
    before = chosen(onca.pool(query, mate, keys), likely(0.05))
    assert before.any()
    assert chosen(onca.pool(query, mate, keys[order]), likely(0.05)).equal(before[:, order])
    two = onca.pool(query, mate, [keys[:123], keys[123:].expand(64, -1, -1)])
    assert chosen(two, likely(0.05)).equal(before)


def test_blocks_of_queries_change_nothing() -> None:
    query, mate, keys, _ = classes(20, 1.0, size=500)
    before = chosen(onca.pool(query, mate, keys), likely(0.05))
    with onca.sliced.rows(5):
        assert chosen(onca.pool(query, mate, keys), likely(0.05)).equal(before)


@pytest.mark.parametrize("both", [False, True])
def test_the_choice_sends_no_gradient(both: bool) -> None:
    query, mate, keys, _ = classes(20, 1.0, size=300)
    found = chosen(onca.pool(query, mate, keys), likely(0.05))
    slopes = []
    for method, more in (("chain(auto(0.05), infonce)", {}), ("chain(drop(given), infonce)", {"given": found})):
        inputs = [t.clone().requires_grad_(both or t is query) for t in (query, mate, keys)]
        onca.contrast(*inputs, method, 0.1, **more).backward()
        slopes.append([t.grad for t in inputs if t.grad is not None])
    for one, other in zip(*slopes, strict=True):
        torch.testing.assert_close(one, other)


def test_refill_keeps_the_number_and_passes_over_the_likely() -> None:
    query, mate, keys, _ = classes(20, 0.8, size=800)
    pool = onca.pool(query, mate, keys, reserve=400)
    found = chosen(onca.pool(query, mate, keys[:400]), likely(0.05))
    left = auto(0.05, refill=True)(pool)
    assert found.sum() > 100 and left.negatives.count().tolist() == [400] * 64 and left.notes["short"] == 0
    closest = left.negatives.links[1:]  # those that came in
    assert closest and float(left.negatives.kth(1)[0].mean()) < float(pool.negatives.kth(1)[0].mean())
    assert onca.method.refills(auto(refill=True)) and not onca.method.refills(auto())


def test_nothing_to_tell_from_cancels_nothing() -> None:
    query, mate, keys, _ = classes(20, 0.5, size=300)
    assert not chosen(onca.pool(query[:1], mate[:1], keys), likely(0.05)).any(), "one query has no spread of positives"
    assert not chosen(onca.pool(query, mate, keys[:1].expand(300, -1)), likely(0.05)).any(), "all negatives are one"
    assert not chosen(onca.pool(query, mate, keys[:1]), likely(0.05, 0.01)).any(), "one negative"
    assert not chosen(onca.pool(query, mate.new_zeros(64, 0, 32), keys), likely(0.05)).any(), "no positives"
    empty = onca.Contrast("chain(auto(0.05), infonce)", 0.1, memory=onca.Queue(10, 32)).eval()
    assert float(empty(query, mate)) == 0


def test_no_prior_is_no_rule() -> None:
    query, mate, keys, _ = classes(20, 0.5, size=300)
    assert onca.contrast(query, mate, keys, onca.chain(auto(0), onca.infonce)).equal(onca.contrast(query, mate, keys))


def test_several_positives_count_each() -> None:
    query, mate, keys, _ = classes(20, 1.0, size=300)
    twice = mate[:, None].expand(-1, 2, -1)
    assert chosen(onca.pool(query, twice, keys), likely(0.05)).equal(chosen(onca.pool(query, mate, keys), likely(0.05)))


def test_text_schedules_and_refusals() -> None:
    assert str(onca.read("chain(auto(0.05, refill=True), infonce)")) == "chain(auto(0.05, refill=True), infonce)"
    assert str(onca.read("chain(attract(likely(0.05) & above(0.3)), mass)")).startswith("chain(attract(likely(0.05)")
    assert not auto().needs
    query, mate, keys, _ = classes(20, 0.5, size=300)
    late = onca.pool(query, mate, keys, epoch=0.5)
    assert not chosen(late, likely(onca.after(1, 0.05))).any()
    for wrong, words in (
        (lambda: likely(1.5), "tau_plus is a share"),
        (lambda: auto(-0.1), "tau_plus is a share"),
        (lambda: auto(0.1, 0), "certainty is a share, more than 0"),
        (lambda: auto(0.1, 0.5, "yes"), "refill must be True or False"),
        (lambda: likely("much"), "must be a number or a schedule"),
    ):
        with pytest.raises(ValueError, match=words):
            wrong()
