"""Invariance propagation: against per-query loops in float64 that import nothing of onca, and its pitfalls."""

import math
from collections import deque
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import onca
from onca.bank import Bank
from onca.engine import in_use
from onca.hosts.npid import NPID
from onca.identity import reached, walks
from onca.methods.invp import invp
from onca.methods.propagation import denominators, everyone, listed, propagated
from onca.neighbours import neighbours
from onca.schedule import gaussian_ramp

Tensor = torch.Tensor
B, N, D, K = 5, 24, 6, 3
EPS = 1e-7


def rows(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def graph_of(images: int = N, k: int = K, seed: int = 0, unknown: float = 0.0) -> Tensor:
    """k other images for each, some of them unknown."""
    draw = torch.Generator().manual_seed(seed)
    graph = (torch.arange(images)[:, None] + torch.randint(1, max(images, 2), (images, k), generator=draw)) % images
    return torch.where(torch.rand(images, k, generator=draw) < unknown, -1, graph)


# --- the oracle ------------------------------------------------------------------------------------------------------


def distances(graph: list[list[int]], start: int) -> dict[int, int]:
    """Breadth-first search: steps to every image that can be reached."""
    steps, queue = {start: 0}, deque([start])
    while queue:
        image = queue.popleft()
        for other in graph[image]:
            if other >= 0 and other not in steps:
                steps[other] = steps[image] + 1
                queue.append(other)
    return steps


def ball(graph: list[list[int]], start: int, steps: int) -> set[int]:
    return {image for image, far in distances(graph, start).items() if 1 <= far <= steps}


def ends(graph: list[list[int]], start: int, steps: int) -> list[int]:
    """Where walks end, level by level, as the official code lists it."""
    level, found = [start], []
    for _ in range(steps):
        level = [other for image in level for other in graph[image] if other >= 0]
        found += level
    return found


def log_sum(s: Tensor, images: list[int]) -> Tensor:
    return s[images].logsumexp(0) if images else s.new_full((), -math.inf)


def oracle(
    point: Tensor,
    own: int,
    bank: Tensor,
    graph: list[list[int]],
    t: float,
    mode: str,
    steps: int,
    hardest: int,
    background: int,
) -> tuple[Tensor, Tensor]:
    """(L_ins, L_inv) of one query [D] of the image `own`; bank [N,D] unit rows."""
    s = bank @ (point / point.norm()) / t
    order = sorted(range(len(bank)), key=lambda i: (-s[i].item(), i))
    if mode == "paper":
        near = [i for i in order if i != own][:background]
        inside = ball(graph, own, steps)
        hard = [i for i in reversed(order) if i in inside][:hardest]
        rest = [i for i in near if i not in inside]
        instance = log_sum(s, [*near, own]) - s[own]
        return instance, log_sum(s, hard + rest) - log_sum(s, hard) if hard else instance * 0
    listing = ends(graph, own, steps)
    hard = sorted(listing, key=lambda i: s[i].item())[:hardest]
    total = s[order[:background]].exp().sum()
    instance = -(s[own].exp() / total + EPS).log()
    if not hard:
        return instance, instance * 0
    return instance, -(s[hard].exp().sum() / (total - s[own].exp()) + EPS).log()


def case(seed: int = 0, images: int = N) -> tuple[Tensor, Tensor, Tensor]:
    """Points [B,D], indices [B], bank [N,D]."""
    bank = rows(images, D, seed=seed + 1)
    index = torch.randperm(images, generator=torch.Generator().manual_seed(seed))[:B]
    return rows(B, D, seed=seed).requires_grad_(), index, bank / bank.norm(dim=1, keepdim=True)


def losses(
    method: onca.Method | str, points: Tensor, index: Tensor, bank: Tensor, graph: Tensor, t: float = 0.2, **more: Any
) -> Tensor:
    image = torch.arange(len(bank))
    known = {"index": index, "negative_index": image, "neighbours": graph, "epoch": 31.0} | more
    return onca.contrast(points, bank[index], bank, method, t, reduction="none", **known)


SIZES = [(3, 4, 10), (1, 50, 4096), (2, 2, 5), (4, 1, 24), (2, 50, 8), (3, 3, 1)]


@pytest.mark.parametrize("height", [1, 2, None])
@pytest.mark.parametrize("unknown", [0.0, 0.6])
@pytest.mark.parametrize("mode", ["paper", "official"])
@pytest.mark.parametrize(("steps", "hardest", "background"), SIZES)
def test_values_and_gradients(
    steps: int, hardest: int, background: int, mode: str, unknown: float, height: int | None
) -> None:
    if mode == "official" and background == 1:
        background = 2  # of the own row alone, D - e_ii is nothing
    points, index, bank = case()
    graph = graph_of(unknown=unknown)
    method = invp(K, steps, hardest, background, weight=0.6, mode=mode)
    with onca.sliced.rows(height):
        ours = losses(method, points, index, bank, graph)
    pairs = [
        oracle(points[b], int(index[b]), bank, graph.tolist(), 0.2, mode, steps, hardest, background) for b in range(B)
    ]
    theirs = torch.stack([instance + 0.6 * invariance for instance, invariance in pairs])
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    share = torch.linspace(0.5, 1.5, B, dtype=torch.float64)
    one, two = (torch.autograd.grad((share * value).sum(), points)[0] for value in (ours, theirs))
    torch.testing.assert_close(one, two, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("mode", ["paper", "official"])
@pytest.mark.parametrize("temperature", [0.05, 0.2])
def test_float32_keeps_its_digits(mode: str, temperature: float) -> None:
    """The own row is nearly the query: it is almost all of the official denominator, from which it is then taken."""
    _, index, bank = case()
    points = bank[index] + 0.001 * rows(B, D, seed=9)
    method = invp(K, 2, 4, 10, mode=mode)
    exact, narrow = (
        losses(method, points.to(kind), index, bank.to(kind), graph_of(), temperature)
        for kind in (torch.float64, torch.float32)
    )
    torch.testing.assert_close(narrow.double(), exact, rtol=2e-5, atol=1e-5)


# --- what is reached -------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 3), st.integers(0, 4), st.integers(0, 10**6), st.sampled_from([0.0, 0.4, 1.0])
)
def test_reached_is_breadth_first_search(images: int, k: int, steps: int, seed: int, unknown: float) -> None:
    """Whatever the entries: several of an image, unknown ones, others for each query."""
    graph = graph_of(images, k, seed, unknown)
    draw = torch.Generator().manual_seed(seed)
    own = torch.randint(-1, images, (4,), generator=draw)
    queries = rows(4, D, seed=1)
    for shape in ((30,), (4, 30)):
        entry = torch.randint(-1, images + 2, shape, generator=draw)  # some beyond the graph
        keys = rows(*shape, D, seed=2)
        pool = onca.pool(queries, None, keys, index=own, negative_index=entry, neighbours=graph)
        test = reached(steps)(pool, pool.negatives)
        with onca.sliced.rows(3):
            found = torch.cat([test(pieces[0]) for _, pieces in pool.negatives.blocks()])
        for b in range(4):
            inside = ball(graph.tolist(), int(own[b]), steps) if own[b] >= 0 else set()
            assert found[b].tolist() == [int(i) in inside for i in (entry if entry.dim() == 1 else entry[b])]


def test_walks_hold_duplicates_and_the_start() -> None:
    graph = torch.tensor([[1, 2], [0, 2], [1, -1]])
    assert walks(graph, torch.tensor([0, 2]), 2).tolist() == [[1, 2, 0, 2, 1, -1], [1, -1, 0, 2, -1, -1]]
    assert walks(graph, torch.tensor([0]), 0).shape == (1, 0)


def test_steps_may_be_a_schedule() -> None:
    points, index, bank = case()
    graph = graph_of()
    slow = invp(K, onca.ramp(1, 3, 20), 50, 10, start=0)
    for epoch, steps in ((5.0, 2), (20.0, 3)):
        plain = losses(invp(K, steps, 50, 10, start=0), points, index, bank, graph, epoch=epoch)
        assert torch.equal(losses(slow, points, index, bank, graph, epoch=epoch), plain)


# --- identities ------------------------------------------------------------------------------------------------------


def test_without_its_second_term_and_with_everyone_as_background_it_is_infonce() -> None:
    points, index, bank = case()
    plain = losses("infonce", points, index, bank, graph_of())
    for neutral in (
        invp(K, background=N),
        invp(K, background=N, weight=0.0, start=0),
        invp(K, hardest=0, background=N),
    ):
        epoch = 40.0 if neutral != invp(K, background=N) else 30.0
        assert torch.equal(losses(neutral, points, index, bank, graph_of(), epoch=epoch), plain)


def test_the_share_of_the_neighbours() -> None:
    """One step, all that is reached and all rows: L_inv is minus the log of the neighbours' share of the others."""
    points, index, bank = case()
    graph = graph_of()
    both = losses(invp(K, 1, K, N, weight=1.0), points, index, bank, graph)
    instance = losses("infonce", points, index, bank, graph)
    for b in range(B):
        s = bank @ (points[b] / points[b].norm()) / 0.2
        others = s.masked_fill(torch.arange(N) == index[b], -math.inf)
        share = others.softmax(0)[graph[index[b]].unique()].sum()
        torch.testing.assert_close(both[b] - instance[b], -share.log())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 8), st.integers(1, 30))
def test_identities_of_the_paper(seed: int, steps: int, hardest: int, background: int) -> None:
    """L_inv is not negative; it forgets the order of neighbours and how often one stands there."""
    points, index, bank = case(seed)
    graph = graph_of(seed=seed)
    method = invp(K, steps, hardest, background, weight=1.0, start=0)
    loss = losses(method, points, index, bank, graph)
    assert (loss >= losses(replace(method, weight=0.0), points, index, bank, graph) - 1e-12).all()
    torch.testing.assert_close(losses(method, points, index, bank, graph.flip(1)), loss)
    doubled = torch.cat([graph, graph], 1)
    torch.testing.assert_close(losses(replace(method, k=2 * K), points, index, bank, doubled), loss)


def test_duplicates_count_in_lists_and_not_in_sets() -> None:
    points, index, bank = case()
    once, twice = graph_of(k=1), graph_of(k=1).repeat(1, 2)
    for mode, same in (("paper", True), ("official", False)):
        one, two = (losses(invp(k, 2, 50, N, mode=mode), points, index, bank, g) for k, g in ((1, once), (2, twice)))
        assert torch.allclose(one, two, rtol=1e-12) == same


# --- warm-up and unknown neighbours ----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["paper", "official"])
def test_the_second_term_is_not_computed_up_to_and_including_the_start(mode: str) -> None:
    points, index, bank = case()
    method, graph = invp(K, 2, 5, 10, start=30, mode=mode), graph_of()
    first = losses(replace(method, weight=0.0), points, index, bank, graph)
    for epoch, there in ((0.0, False), (30.0, False), (30.01, True)):
        notes: dict[str, Any] = {}
        loss = losses(method, points, index, bank, graph, epoch=epoch, notes=notes)
        assert ("unreached" in notes) == there == (not torch.equal(loss, first))
    with pytest.raises(ValueError, match=r"invp\(.*give epoch="):
        losses(method, points, index, bank, graph, epoch=None)


@pytest.mark.parametrize("mode", ["paper", "official"])
def test_a_query_that_reaches_nothing_has_no_second_term(mode: str) -> None:
    points, index, bank = case()
    graph = graph_of()
    graph[index[:2]] = -1
    method, notes = invp(K, 2, 5, 10, mode=mode), {}
    loss = losses(method, points, index, bank, graph, notes=notes)
    first = losses(replace(method, weight=0.0), points, index, bank, graph)
    assert notes["unreached"] == 2 / B
    assert torch.equal(loss[:2], first[:2]) and not (loss[2:] == first[2:]).any()
    one, two = (torch.autograd.grad(value.sum(), points)[0] for value in (loss, first))
    assert torch.isfinite(one).all()
    torch.testing.assert_close(one[:2], two[:2])


def test_a_graph_that_is_not_there_yet() -> None:
    """Nobody is known (ours), or everyone's neighbours are image 0 (the official start)."""
    points, index, bank = case()
    nothing = torch.full((N, K), -1)
    for mode in ("paper", "official"):
        before = losses(invp(K, background=10, weight=0.0, mode=mode), points, index, bank, nothing)
        assert torch.equal(losses(invp(K, background=10, mode=mode), points, index, bank, nothing), before)
    index = torch.cat([torch.zeros(1, dtype=torch.int64), index[index != 0][: B - 1]])
    zeros = torch.zeros(N, K, dtype=torch.int64)
    first = losses(invp(K, background=10, weight=0.0), points, index, bank, zeros)
    loss = losses(invp(K, background=10), points, index, bank, zeros)
    assert loss[0] == first[0] and (loss[1:] > first[1:]).all()  # image 0 is no neighbour of its own
    assert torch.isfinite(losses(invp(K, background=10, mode="official"), points, index, bank, zeros)).all()


def test_the_official_second_term_may_be_negative() -> None:
    """Its positives need not be in its denominator: half of the bank against the two nearest rows."""
    points, index, bank = case()
    graph = graph_of(k=N - 1)
    for b in range(N):
        graph[b] = torch.tensor([i for i in range(N) if i != b])
    image = torch.arange(N)
    pool = onca.pool(points, bank[index], bank, 1.0, index=index, negative_index=image, neighbours=graph)
    near = onca.nearest(2)(pool, pool.negatives)
    assert (listed(pool, 1, N, denominators(pool, near)[1]) < 0).all()
    assert (propagated(pool, 1, N, near) >= 0).all()


@pytest.mark.parametrize("exclusive", [False, True])
@pytest.mark.parametrize("hard_pos", [False, True])
def test_variants_of_the_official_code(exclusive: bool, hard_pos: bool) -> None:
    """The own row is taken off whether it is in the denominator (query 0: nearest) or not (query 1: farthest)."""
    points, index, bank = case()
    points = torch.cat([bank[index[:1]], -bank[index[1:2]], points[2:].detach()])
    graph, image = graph_of(), torch.arange(N)
    pool = onca.pool(points, bank[index], bank, 0.2, index=index, negative_index=image, neighbours=graph)
    total, others = denominators(pool, onca.nearest(6)(pool, everyone(pool)))
    ours = listed(pool, 2, 4, others if exclusive else total, hard_pos)
    for b in range(B):
        e = (bank @ (points[b] / points[b].norm()) / 0.2).exp()
        hard = e[ends(graph.tolist(), int(index[b]), 2)].sort(descending=not hard_pos).values[:4].sum()
        total = e.sort(descending=True).values[:6].sum() - (e[index[b]] if exclusive else 0)
        torch.testing.assert_close(ours[b], -(hard / total + EPS).log())


def test_schedules_of_the_weight() -> None:
    points, index, bank = case()
    graph = graph_of()
    smooth = invp(K, 2, 5, 10, gaussian_ramp(0.6, 20), start=0)
    for epoch in (5.0, 20.0, 33.0):
        weight = 0.6 * math.exp(-5 * max(1 - epoch / 20, 0) ** 2)
        plain = losses(invp(K, 2, 5, 10, weight, start=0), points, index, bank, graph)
        assert torch.equal(losses(smooth, points, index, bank, graph, epoch=epoch), plain)


# --- in a host -------------------------------------------------------------------------------------------------------


def host(neighbours: int = K) -> NPID:
    torch.manual_seed(0)
    bank = Bank(N, D, neighbours=neighbours, dtype=torch.float64)
    return NPID(torch.nn.Linear(D, D, bias=False, dtype=torch.float64), bank, temperature=0.2)


def test_training_against_a_bank() -> None:
    """Three epochs: the first term alone until the graph is known, then both, each as the loops have it."""
    trained, method = host(), invp(K, 2, 4, 10, start=0.9)
    views, bank = rows(N, D, seed=3), trained.memory
    optimiser = torch.optim.SGD(trained.encoder.parameters(), 0.1)
    for step in range(9):
        index = torch.arange(8) + 8 * (step % 3)
        batch = onca.hosts.Batch((views[index],), index, epoch=step / 3, step=step)
        trained.before_step()
        loss = trained.loss(trained.pools(batch), method)
        with torch.no_grad():
            points, keys = trained.encoder(views[index]), bank.keys.clone()
            graph = bank.neighbours.tolist()
            weight = 0.6 if step / 3 > 0.9 else 0
            pairs = [oracle(points[b], int(index[b]), keys, graph, 0.2, "paper", 2, 4, 10) for b in range(8)]
        expected = sum(instance + weight * invariance for instance, invariance in pairs) / 8
        torch.testing.assert_close(loss.detach(), expected)
        assert trained.notes.get("unreached", 0) == 0
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        trained.after_step()
    assert (bank.neighbours >= 0).all()


MANY, WIDE = 700, 16  # images and dimensions of a bank that an engine serves


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize(
    ("text", "in_passing"),
    [
        ('invp({k}, background=90, mode="paper")', True),
        ('invp({k}, background=90, mode="official")', True),
        ("invp({k}, background=2)", False),  # fewer than there are new neighbours
        ("invp({k}, background=400)", True),  # so many that their scores are not kept
        ("total((1, invp({k}, 2)), (0.5, infonce))", True),
        ("chain(drop(hardest(10)), invp({k}))", False),  # the nearest rows of what is left are others
        ("infonce", False),
    ],
)
def test_the_selection_of_the_loss_finds_the_new_neighbours(text: str, in_passing: bool, whole: bool) -> None:
    """Those of a search of its own: rows, order and ties, with the own row among them or not."""
    torch.manual_seed(0)
    bank = Bank(MANY, WIDE, neighbours=K)
    bank.keys[:] = bank.keys[torch.randint(MANY // 2, (MANY,))]  # every row stands there about twice
    made = NPID(torch.nn.Identity(), bank, temperature=0.2, official=whole)
    index = torch.randperm(MANY)[:20]
    points = torch.cat([bank.keys[index[:10]], torch.randn(10, WIDE)]).requires_grad_()
    batch = onca.hosts.Batch((points,), index, epoch=40.0)
    scores = torch.nn.functional.normalize(points.detach(), dim=1).double() @ bank.keys.T.double()
    pools = made.pools(batch)
    made.loss(pools, onca.method.as_method(text.format(k=K))).backward()
    near = pools[0].nearby
    assert (near.among is not None) == (in_passing and not in_use().startswith("torch"))
    alone = neighbours(near.query, bank.keys, K, exclude=index).row
    made.after_step()
    assert torch.equal(bank.neighbours[index], alone)
    best = scores.scatter(1, index[:, None], -math.inf).sort(1, descending=True).values[:, :K]
    torch.testing.assert_close(scores.gather(1, alone), best, rtol=0, atol=1e-6)


def test_a_host_learns_k_from_the_method() -> None:
    method = onca.read("total((1, infonce), (0.5, invp(k=7)))")
    assert [part.k for part in method.parts() if isinstance(part, invp)] == [7]


def test_of_a_wider_graph_the_nearest_neighbours_count() -> None:
    points, index, bank = case()
    wide = graph_of(k=5)
    assert torch.equal(
        losses(invp(3), points, index, bank, wide), losses(invp(3), points, index, bank, wide[:, :3].clone())
    )


def test_what_is_missing_is_said() -> None:
    points, index, bank = case()
    assert invp().needs == {"index", "neighbours"}
    host().check(invp(K))
    with pytest.raises(ValueError, match="needs a neighbour graph"):
        host(neighbours=0).check(invp())
    with pytest.raises(ValueError, match="needs a neighbour graph"):
        onca.hosts.SimCLR(torch.nn.Identity(), 0.2).check(invp())
    with pytest.raises(ValueError, match=r"invp\(\) needs pool.neighbours \[I,k\]: give a bank with neighbours=4"):
        onca.contrast(points, bank[index], bank, invp(), index=index, epoch=0.0)
    with pytest.raises(ValueError, match=r"invp\(\) takes k=4 neighbours of each image; the bank keeps 3"):
        losses(invp(), points, index, bank, graph_of())
    with pytest.raises(ValueError, match=r"image 23 has no row in pool.neighbours \[20, 3\]"):
        losses("chain(drop(reached(2)), infonce)", points, torch.full((B,), 23), bank, graph_of()[:20])
    known: dict[str, Any] = {"index": index, "neighbours": graph_of(), "epoch": 0.0}
    for other in (bank.expand(B, N, D), bank[:-1], [bank, bank]):
        with pytest.raises(ValueError, match=r"invp\(3\) needs all rows of a bank, .* draws=0"):
            onca.contrast(points, bank[index], other, invp(K), **known)
    with pytest.raises(ValueError, match=r"invp\(3\) needs indices: give index= and negative_index="):
        onca.contrast(points, bank[index], bank, invp(K), **(known | {"index": None}))


@pytest.mark.parametrize("text", ["invp(k=-1)", "invp(0)", "invp(steps=1.5)", "invp(background=0)", "invp(hardest=-1)",
                                  "invp(mode='set')", "invp(k=ramp(1, 4, 5))", "invp(start=after(3, 1))"])  # fmt: skip
def test_bad_arguments_are_refused_in_the_words_that_were_written(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        onca.read(text)
    assert str(caught.value).startswith(text + ":")


def test_text() -> None:
    for text in (
        "invp()",
        'invp(k=4, steps=3, weight=0.6, start=30, mode="official")',
        "invp(weight=gaussian_ramp(0.6, 30))",
    ):
        assert str(onca.read(text)).replace("'", '"') == text
