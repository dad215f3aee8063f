"""The walks of a bag over all kinds of keys, against the same bag written out densely in float64."""

from dataclasses import replace

import pytest
import torch

import onca
from onca import reduced
from onca.bag import Bag
from onca.link import Link, Slice
from onca.listed import COPIED
from onca.sums import Even

Tensor = torch.Tensor
B, N, L, S, D = 5, 24, 9, 6, 7
REVERSED = torch.arange(N + 3, 13, -1)  # places of a link whose last entry stands first
KINDS = ("shared", "per query", "rows", "own rows", "linked", "turned", "mixed")


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def unit(rows: Tensor) -> Tensor:
    return rows / rows.norm(dim=-1, keepdim=True)


def derive(value: Tensor, *leaves: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(value, leaves, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(leaves, found, strict=True)]


def make(kind: str, attached: bool = False) -> tuple[Bag, Tensor, Tensor, Tensor, Tensor]:
    """A bag; its query and vectors as leaves; its keys written out [B,n,D]; which of them are there [B,n]."""
    query = unit(draw(B, D, seed=1)).requires_grad_()
    shared = unit(draw(N, D, seed=2)).requires_grad_()
    number = torch.Generator().manual_seed(3)
    if kind in ("shared", "linked"):
        index = torch.arange(N) % 6
        links = (Link(shared, index=index),)
        keys, there = shared.expand(B, -1, -1), torch.arange(B)[:, None] != index
        if kind == "linked":
            links = (links[0].part(0, 10), links[0].part(10, N))
        return Bag(query, links, query_index=torch.arange(B)), query, shared, keys, there
    if kind == "per query":
        own = unit(draw(B, N, D, seed=2)).requires_grad_()
        return Bag(query, (Link(own),)), query, own, own, torch.ones(B, N, dtype=torch.bool)
    if kind in ("rows", "own rows"):
        rows = torch.randint(-1, N, (B, L), generator=number)
        vectors = shared if kind == "rows" else unit(draw(B, N, D, seed=2)).requires_grad_()
        keys = vectors[rows.clamp_min(0)] if kind == "rows" else vectors[torch.arange(B)[:, None], rows.clamp_min(0)]
        return Bag(query, (Link(vectors, rows=rows),)), query, vectors, keys, rows >= 0
    if kind == "turned":
        given = torch.rand(B, N, generator=number) < 0.3
        bag = Bag(query, (Link(shared).part(0, 10), Link(shared).part(10, N)))
        bag = bag.turned(lambda piece: given[piece.part][:, piece.place]).only(lambda piece: piece.place[None] != 4)
        return bag, query, shared, torch.where(given[..., None], -shared, shared), torch.arange(N).expand(B, -1) != 4
    own = unit(
        draw(B, 4, D, seed=5)
    )  # points between entries of three links: of each query, shared, shared and reversed
    behind = (replace(Link(shared).part(0, 10), place=4), replace(Link(shared).part(10, N), place=REVERSED))
    every = torch.cat([own, shared.detach()[:10].expand(B, -1, -1), shared.detach()[10:].flip(0).expand(B, -1, -1)], 1)
    first, second, hard = (torch.randint(low, N + 4, (B, S), generator=number) for low in (-1, 0, 0))
    alpha, beta = (torch.rand(B, S, generator=number, dtype=torch.float64) for _ in range(2))
    sources = Bag(query, (Link(own), *behind))
    bag = sources.mixed(first, second, alpha).plus(sources.mixed(hard, None, 1 - beta, attached))
    one, two, three = (
        every.gather(1, places.clamp_min(0)[..., None].expand(-1, -1, D)) for places in (first, second, hard)
    )
    end = (query if attached else query.detach())[:, None]
    between = unit(alpha[..., None] * one + (1 - alpha[..., None]) * two)
    towards = unit(beta[..., None] * end + (1 - beta[..., None]) * three)
    there = torch.cat([first >= 0, torch.ones(B, S, dtype=torch.bool)], 1)
    bag = replace(bag, links=(bag.links[0], replace(bag.links[1], place=S)))
    return bag, query, shared, torch.cat([between, towards], 1), there


@pytest.mark.parametrize("width", [1, 2, None])
@pytest.mark.parametrize("kind", KINDS)
def test_walks_equal_what_is_written_out(kind: str, width: int | None) -> None:
    bag, query, _, keys, there = make(kind)
    score = torch.where(there, (query[:, None] * keys).sum(-1), -torch.inf).detach()
    order = score.sort(dim=1, descending=True, stable=True).indices
    with onca.sliced.rows(width):
        assert torch.equal(bag.count(), there.sum(1))
        for k in (1, 3, int(there.sum(1).min())):
            threshold, place = bag.kth(k)
            assert torch.equal(place, order[:, k - 1])
            torch.testing.assert_close(threshold, score.gather(1, order[:, k - 1 : k])[:, 0], rtol=0, atol=1e-14)
        high = score > 0.1
        assert torch.equal(bag.hits(lambda piece: piece.score > 0.1), high.sum(0))
        rows = bag.rows(lambda piece: piece.score > 0.1, 4)
        for found, wanted in zip(rows, high, strict=True):
            assert found[found >= 0].tolist() == wanted.nonzero()[:4, 0].tolist()
        taken = bag.take(lambda piece: piece.score > 0.1) if kind not in ("mixed",) else None
        if taken is not None:
            assert torch.equal(taken.count(), high.sum(1))
            some = high.any(1)
            expected = torch.where(high, score * 3, -torch.inf).logsumexp(1)
            torch.testing.assert_close(taken.lse(3.0)[some], expected[some], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("width", [1, None])
@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_reductions_and_their_gradients_equal_what_is_written_out(kind: str, attached: bool, width: int | None) -> None:
    bag, query, vectors, keys, there = make(kind, attached)
    weight = draw(B, seed=9)
    shift = draw(B, seed=10)
    score = (query[:, None] * keys).sum(-1)
    dense = torch.where(there, 5 * score, -torch.inf).logsumexp(1) + shift
    mean = torch.where(there, score.sin(), 0).sum(1) / there.sum(1)
    expected = derive(((dense + mean) * weight).sum(), query, vectors)
    with onca.sliced.rows(width):
        lse = bag.tilted(2.0, shift).lse(3.0)
        other = bag.mean(lambda piece: piece.score.sin())
        torch.testing.assert_close(lse, dense, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(other, mean, rtol=1e-12, atol=1e-12)
        found = derive(((lse + other) * weight).sum(), query, vectors)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("copied", [1, 2 * L * D, 3 * L * D + 1])
def test_listed_rows_are_copied_some_at_a_time(copied: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(COPIED, "cpu", copied)
    bag, query, vectors, keys, there = make("rows")
    score = (query[:, None] * keys).sum(2).masked_fill(~there, -torch.inf)
    ours, theirs, share = bag.lse(3.0), (3 * score).logsumexp(1), draw(B, seed=9)
    torch.testing.assert_close(ours, theirs)
    mine, its = (derive((share * value).sum(), query, vectors) for value in (ours, theirs))
    torch.testing.assert_close(mine, its)


@pytest.mark.parametrize("attached", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_weights_of_mean_one(kind: str, attached: bool) -> None:
    """Over the bag that was weighed: entries that go out later take their weights with them."""
    for later in (False, True):
        bag, query, vectors, keys, there = make(kind)
        score = (query[:, None] * keys).sum(-1)
        kept = there & (score > 0) if later else there
        mean = torch.where(there, 2 * score, -torch.inf).logsumexp(1) - there.sum(1).double().log()
        own, fixed = (score, mean) if attached else (score.detach(), mean.detach())
        even, some = bag.tilted(2.0, Even(bag.plain, 2.0, attached), attached), kept.any(1)
        expected = (torch.where(kept, 3 * score + 2 * own, -torch.inf).logsumexp(1) - fixed)[some]
        found = (even.only(lambda piece: piece.score > 0) if later else even).lse(3.0)[some]
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
        slopes = [derive(value.sum(), query, vectors) for value in (found, expected)]
        torch.testing.assert_close(*slopes, rtol=1e-10, atol=1e-12)


def test_added_points_count_and_rules_do_not_see_them() -> None:
    """`add(make)`: MoCHi's form. A rule that follows sees the first bag only."""
    _, query, shared, _, _ = make("shared")
    mixed = make("mixed")[0]
    pool = onca.pool(query, None, shared, 0.5, normalize=False)

    def points(pool: onca.Pool) -> Bag:
        return replace(mixed, query=pool.negatives.query)

    left = onca.keep(onca.hardest(50))(onca.add(points)(pool))
    assert int(left.negatives.count().max()) == N // 2 and left.added[0].count().equal(mixed.count())
    both = torch.logaddexp(left.negatives.lse(2.0), mixed.lse(2.0))
    positive = unit(draw(B, D, seed=4))
    loss = onca.chain(onca.add(points), onca.keep(onca.hardest(50)), onca.infonce)(
        onca.pool(query, positive, shared, 0.5, normalize=False)
    )
    torch.testing.assert_close(loss, torch.logaddexp(both - 2 * (query * positive).sum(1), torch.zeros(B)).double())


@pytest.mark.parametrize("number", [1, 3])
@pytest.mark.parametrize("attached", [False, True])
def test_a_few_entries_of_each_query_s_own_need_no_walk(
    number: int, attached: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, own = unit(draw(B, D, seed=1)).requires_grad_(), draw(B, number, D, seed=2).requires_grad_()
    length, offset = draw(B, number, seed=3).requires_grad_(), draw(B, seed=4).requires_grad_()
    bag = Bag(query, (Link(own, factor=length),), tilt=0.7, attached=attached)

    def sums() -> list[Tensor]:
        values = bag.lse(4.0), bag.mean(), bag.mean(lambda piece, add: (piece.score + add).exp(), offset)
        weighed = sum((draw(B, seed=5 + place) * value).sum() for place, value in enumerate(values))
        return [*values, *derive(weighed, query, own, length, offset)]

    with onca.sliced.rows(2):
        walked = sums()
    monkeypatch.delattr(reduced, "reduce")
    torch.testing.assert_close(sums(), walked, rtol=1e-12, atol=1e-12)


def test_a_memory_that_changes_before_backward_does_no_harm_or_is_refused() -> None:
    """Keys without gradient may change (their part is finished); trainable ones may not, and autograd says so."""
    query, keys = unit(draw(B, D, seed=1)), unit(draw(N, D, seed=2))
    expected = torch.autograd.grad(Bag(leaf := query.clone().requires_grad_(), (Link(keys),)).lse(4.0).sum(), leaf)[0]
    memory, leaf = keys.clone(), query.clone().requires_grad_()
    loss = Bag(leaf, (Link(memory),)).lse(4.0).sum()
    memory.zero_()
    torch.testing.assert_close(torch.autograd.grad(loss, leaf)[0], expected, rtol=0, atol=0)
    trained, memory = keys.clone().requires_grad_(), keys.clone()
    loss = Bag(leaf, (Link(trained), Link(memory, place=N))).lse(4.0).sum()
    memory.zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        torch.autograd.grad(loss, leaf)


@pytest.mark.parametrize("own", [False, True])
def test_taken_entries_know_what_they_were(own: bool) -> None:
    """Labels and indices per query, rows that nothing was written to, and places that run backwards."""
    number = torch.Generator().manual_seed(3)
    query = unit(draw(B, D, seed=1))
    vectors = unit(draw(*((B, N, D) if own else (N, D)), seed=2))
    index, label = torch.randint(-1, 9, (2, B, N), generator=number)
    absent = torch.rand(N, generator=number) < 0.2
    backwards = torch.arange(3 + 2 * N - 1, 3 + N - 1, -1)
    links = [
        Link(vectors, index=index, label=label, absent=absent, place=place, factor=vectors.norm(dim=-1))
        for place in (3, backwards)
    ]
    bag = Bag(query, tuple(links), query_index=torch.arange(B))

    def test(piece: Slice) -> Tensor:
        return piece.score > 0.1

    taken = bag.take(test)
    assert torch.equal(taken.count(), bag.only(test).count())
    torch.testing.assert_close(taken.lse(4.0), bag.only(test).lse(4.0), rtol=1e-12, atol=0)
    for name in ("label", "index"):
        ((_, whole),), ((_, listed),) = bag.blocks(), taken.blocks()
        for piece, short in zip(whole, listed, strict=True):
            known = [
                [x for x, there in zip(*rows, strict=True) if there]
                for rows in zip(piece.entries(name).tolist(), (piece.present() & test(piece)).tolist(), strict=True)
            ]
            order = [row[::-1] if piece.link.place is backwards else row for row in known]
            found = zip(short.entries(name).tolist(), short.present().tolist(), strict=True)
            assert [[x for x, there in zip(*rows, strict=True) if there] for rows in found] == order
    assert [link.place for link in taken.links] == [0, taken.links[0].length]


@pytest.mark.parametrize(
    "method", ["infonce", "chain(attract(nearest(5)), supcon)", "chain(attract(nearest(5)), mass)"]
)
@pytest.mark.parametrize("learns", ["query", "positive", "negatives", "positive negatives"])
def test_a_gradient_is_asked_of_some_links_only(method, learns):
    """What is attracted stands in one bag with the positives; the gradient is that of the whole, where it is wanted."""
    draw = torch.Generator().manual_seed(0)
    shapes = {"query": (6, 8), "positive": (6, 8), "negatives": (30, 8)}
    made = {name: torch.randn(*shape, generator=draw).double() for name, shape in shapes.items()}
    found = []
    for wanted in (learns.split(), list(shapes)):
        tensors = {name: value.clone().requires_grad_(name in wanted) for name, value in made.items()}
        onca.contrast(*tensors.values(), method, 0.2).backward()
        found.append([tensors[name].grad for name in learns.split()])
    for some, whole in zip(*found, strict=True):
        assert torch.allclose(some, whole, rtol=1e-12, atol=1e-14)
