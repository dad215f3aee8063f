"""NPID, CMC and LooC, step by step: against plain tensors, against MoCo, and across a resume."""

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.functional import normalize

import onca
from onca.bank import Bank, draw_rows
from onca.encoders import Spaces, split_batch_norm
from onca.hosts import CMC, NPID, Batch, Host, LooC, MoCo
from onca.hosts.host import drawn_from
from onca.methods.npid import nce

Tensor = torch.Tensor
F, D, IMAGES, B = 7, 4, 20, 6  # numbers of an image, of an embedding; images of the set, of a batch
DOUBLE = torch.float64


def encoder(dim: int = D) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(F, 8), nn.Tanh(), nn.Linear(8, dim)).to(DOUBLE)


def bank(neighbours: int = 0, seed: int = 1) -> Bank:
    torch.manual_seed(seed)
    return Bank(IMAGES, D, neighbours=neighbours, dtype=DOUBLE)


def queue(size: int = 10, reserve: int = 0) -> onca.Queue:
    return onca.Queue(size, D, reserve, dtype=DOUBLE)


def batch(step: int, views: int) -> Batch:
    draw = torch.Generator().manual_seed(100 + step)
    seen = tuple(torch.randn(B, F, generator=draw, dtype=DOUBLE) for _ in range(views))
    index = torch.randperm(IMAGES, generator=draw)[:B]
    return Batch(seen, index=index, label=index % 3, epoch=step / 3, step=step)


def npid(**more) -> NPID:
    return NPID(encoder(), bank(more.pop("neighbours", 0)), 0.2, **more)


def cmc(**more) -> CMC:
    return CMC(encoder(2 * D), bank(), bank(seed=2), 0.2, **more)


def looc(n: int = 2, reserve: int = 0, **more) -> LooC:
    return LooC(encoder((n + 1) * D), [queue(reserve=reserve) for _ in range(n + 1)], 0.9, 0.2, **more)


HOSTS: dict[str, Callable[[], Host]] = {
    "npid": npid,
    "npid, drawn": lambda: npid(draws=9, neighbours=3, support=2),
    "npid, official": lambda: npid(draws=9, official=True),
    "cmc": lambda: cmc(support=1),
    "cmc, drawn": lambda: cmc(draws=9),
    "looc": lambda: looc(support=1),
    "looc, one space": lambda: looc(0),
    "looc, reserve": lambda: looc(reserve=10),
}


def advance(host: Host, step: int, method: onca.Method = onca.infonce, rate: float = 0.3) -> float:
    """One step of plain gradient descent."""
    host.before_step()
    loss = host.loss(host.pools(batch(step, host.own_views + host.support)), method)
    parameters = list(host.encoder.parameters())
    with torch.no_grad():
        for parameter, slope in zip(parameters, torch.autograd.grad(loss, parameters), strict=True):
            parameter -= rate * slope
    host.after_step()
    return loss.item()


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


# What every host promises.


@pytest.mark.parametrize("name", HOSTS)
def test_pools_may_be_asked_for_again_and_change_nothing(name: str) -> None:
    host, once = HOSTS[name](), HOSTS[name]()
    for step in range(4):
        before, asked = state(host), batch(step, host.own_views + host.support)
        losses = [host.loss(host.pools(asked), onca.infonce).item() for _ in range(3)]
        assert losses[0] == losses[1] == losses[2]
        same(state(host), before)
        assert advance(host, step) == advance(once, step)
    same(state(host), state(once))


@pytest.mark.parametrize("name", HOSTS)
def test_a_resumed_run_goes_on_as_if_nothing_had_been(name: str) -> None:
    through, stopped = HOSTS[name](), HOSTS[name]()
    for step in range(3):
        advance(through, step)
        advance(stopped, step)
    torch.manual_seed(99)
    resumed = HOSTS[name]()
    resumed.load_state_dict(stopped.state_dict())
    for step in range(3, 7):
        assert advance(through, step) == advance(resumed, step)
    same(state(through), state(resumed))


@pytest.mark.parametrize("name", HOSTS)
def test_everything_is_float64_where_the_encoder_is(name: str) -> None:
    host = HOSTS[name]()
    for step in range(2):
        for pool in host.pools(batch(step, host.own_views + host.support)):
            assert onca.infonce(pool).dtype == DOUBLE
        advance(host, step)
    assert {value.dtype for value in host.state_dict().values() if value.is_floating_point()} == {DOUBLE}


@pytest.mark.parametrize("name", HOSTS)
def test_a_host_gives_what_it_says(name: str) -> None:
    host = HOSTS[name]()
    assert {"label", "index", "history"} <= host.gives
    for pool in host.pools(batch(0, host.own_views + host.support)):
        for field in ("label", "index", "support", "neighbours", "normaliser"):
            assert (getattr(pool, field) is not None) == (field in host.gives), field
        if host.support:
            assert pool.support.shape == (B, host.support, D)
            torch.testing.assert_close(pool.support.norm(dim=2), torch.ones(B, host.support, dtype=DOUBLE))
            assert not pool.support.requires_grad
    if "normaliser" not in host.gives:
        with pytest.raises(ValueError, match="nce needs a bank"):
            host.check(nce)


@pytest.mark.parametrize("name", HOSTS)
@pytest.mark.parametrize(
    "expression",
    ["infonce", "chain(drop(hardest(10)), infonce)", "chain(drop(same_class), infonce)", "chain(harden(0.5), debiased)",
     "chain(attract(nearest(2)), supcon)", "chain(drop(nearest(2), refill=True), infonce)"],
)  # fmt: skip
def test_methods_run_in_it(name: str, expression: str) -> None:
    host, method = HOSTS[name](), onca.method.as_method(expression.replace("debiased)", "debiased(0.01))"))
    host.check(method)
    for step in range(4):
        assert torch.isfinite(torch.tensor(advance(host, step, method)))


def test_too_few_views_are_refused() -> None:
    for name, host in (("NPID", npid(support=2)), ("LooC", looc())):
        with pytest.raises(ValueError, match=rf"{name} needs \d views of each image.*the batch holds 1"):
            host.pools(batch(0, 1))


# NPID.


def plain_npid(steps: int, draws: int, method: str, official: bool) -> tuple[list[float], Tensor, Tensor]:
    """Losses, bank and neighbours after some steps, with matrices and autograd; t 0.2, momentum 0.5, k 3."""
    net, made = encoder(), bank()
    keys, near, z = made.keys.clone(), torch.full((IMAGES, 3), -1), None
    losses = []
    for step in range(steps):
        data = batch(step, 1)
        query = normalize(net(data.views[0]), dim=1)
        scores = query @ keys.T / 0.2
        rows = torch.arange(IMAGES).expand(B, IMAGES)
        if draws:
            rows = draw_rows(B, draws, IMAGES, drawn_from(0, step))
        own = data.index[:, None]
        there = torch.ones_like(rows, dtype=torch.bool) if official else rows != own
        positive, negative = scores.gather(1, own), scores.gather(1, rows).masked_fill(~there, -torch.inf)
        every = torch.cat([positive, negative], 1)
        if z is None:
            z = (every.exp().sum() / every.isfinite().sum() * IMAGES).item()
        if method == "nce":
            noise = there.sum(1, keepdim=True) / IMAGES
            p, data_p = negative.exp() / z, positive.exp() / z
            terms = torch.where(there, (noise / (p + noise + 1e-7)).log(), 0).sum(1, keepdim=True)
            loss = -((data_p / (data_p + noise + 1e-7)).log() + terms).mean()
        else:
            loss = (every.logsumexp(1) - positive[:, 0]).mean()
        slopes = torch.autograd.grad(loss, list(net.parameters()))
        losses.append(loss.item())
        with torch.no_grad():
            for parameter, slope in zip(net.parameters(), slopes, strict=True):
                parameter -= 0.3 * slope
            near[data.index] = scores.scatter(1, own, -torch.inf).topk(3).indices
            keys[data.index] = normalize(0.5 * keys[data.index] + 0.5 * query, dim=1)
    return losses, keys, near


@pytest.mark.parametrize("official", [False, True])
@pytest.mark.parametrize("draws", [0, 9])
@pytest.mark.parametrize("method", ["infonce", "nce"])
def test_steps_of_npid_equal_plain_tensors(method: str, draws: int, official: bool) -> None:
    host = npid(draws=draws, official=official, neighbours=3)
    losses = [advance(host, step, onca.method.as_method(method)) for step in range(5)]
    expected, keys, near = plain_npid(5, draws, method, official)
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(host.memory.keys, keys)
    assert torch.equal(host.memory.neighbours, near)


def test_z_is_fixed_by_the_first_batch_alone() -> None:
    host, seen = npid(draws=9), []
    assert float(host.memory.normaliser) == -1
    for step in range(3):
        first = host.pools(batch(step, 1))[0]
        assert first.population == IMAGES and not first.normaliser.requires_grad
        advance(host, step)
        seen.append((float(first.normaliser), float(host.memory.normaliser)))
    assert len({value for pair in seen for value in pair}) == 1


def test_draws_belong_to_a_step_and_a_seed() -> None:
    def rows(seed: int, step: int) -> Tensor:
        return npid(draws=9, seed=seed).pools(batch(step, 1))[0].negatives.links[0].rows

    assert torch.equal(rows(0, 1), rows(0, 1))
    assert not torch.equal(rows(0, 1), rows(0, 2)) and not torch.equal(rows(0, 1), rows(1, 1))


def test_drawn_softmax_is_contrast_on_the_listed_rows() -> None:
    data, listed = batch(0, 1), torch.randint(IMAGES, (B, 30), generator=torch.Generator().manual_seed(0))
    for official in (False, True):
        host = npid(official=official)
        pool = host.pools(data, rows=listed)[0]
        keys, index = host.memory.keys, {"index": data.index, "negative_index": listed}
        expected = onca.contrast(
            host.encoder(data.views[0]), keys[data.index], keys[listed], temperature=0.2, reduction="none",
            **({} if official else index),
        )  # fmt: skip
        torch.testing.assert_close(onca.infonce(pool), expected)
    assert int((listed == data.index[:, None]).sum()) > 0, "no own row was drawn: nothing was masked"


def test_neighbours_are_those_of_the_visit_before_and_unknown_until_then() -> None:
    host = npid(neighbours=3)
    data = batch(0, 1)
    assert bool((host.pools(data)[0].neighbours == -1).all())
    advance(host, 0)
    known = (host.memory.neighbours >= 0).all(1)
    assert torch.equal(known.nonzero()[:, 0], data.index.sort().values)
    assert not bool((host.memory.neighbours[data.index] == data.index[:, None]).any())
    assert "neighbours" in host.gives and "neighbours" not in npid().gives


def test_new_neighbours_are_found_before_any_bank_moves() -> None:
    first, second = bank(neighbours=3), bank(neighbours=3, seed=2)
    data, before = batch(0, 1), (second.keys.clone(), first.keys.clone())
    advance(CMC(encoder(2 * D), first, second, 0.2), 0)
    halves = torch.split(normalize(encoder(2 * D)(data.views[0]), dim=1), D, 1)
    for query, keys, made in zip(halves, before, (second, first), strict=True):
        near = (query @ keys.T).scatter(1, data.index[:, None], -torch.inf).topk(3).indices
        assert torch.equal(made.neighbours[data.index], near)


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: NPID(encoder(), queue()), r"NPID needs a memory with a row for each image: give onca.Bank"),
        (lambda: npid(draws=-1), "draws is the number of rows drawn for a query, or 0 for the whole bank; got -1"),
        (lambda: npid(draws=2.5), "draws is the number of rows"),
        (lambda: npid(support=-1), "support is a number of extra views"),
        (lambda: npid().pools(replace(batch(0, 1), index=None)), "NPID keeps a row for each image"),
        (lambda: npid().pools(replace(batch(0, 1), index=torch.arange(B) + IMAGES)), f"image {IMAGES} has no row"),
        (lambda: cmc().pools(replace(batch(0, 1), index=None)), "CMC keeps a row for each image"),
        (lambda: NPID(encoder(D + 1), bank()).pools(batch(0, 1)), r"need an encoder of 4 numbers; it gives 5"),
        (lambda: CMC(encoder(D), bank(), bank()).pools(batch(0, 1)), r"2 bank\(s\) of dim 4 need an encoder of 8"),
        (lambda: CMC(encoder(), bank(), queue()), "CMC needs a memory with a row"),
        (lambda: CMC(encoder(), bank(), Bank(IMAGES + 1, D)), "CMC needs two banks of one shape"),
        (lambda: CMC(encoder(), *[bank()] * 2), "one and the same"),
        (lambda: LooC(encoder(), []), "LooC needs a memory for each space"),
        (lambda: LooC(encoder(), [bank()]), "LooC needs a memory for each space"),
        (lambda: LooC(encoder(), [queue()] * 2), "a queue of its own for each space"),
        (lambda: LooC(encoder(), [queue(), onca.Queue(3, D + 1)]), "all of one dim"),
        (lambda: looc(2, names=["rotation"]), "LooC of 3 queues keeps 2 augmentations"),
        (lambda: LooC(encoder(), [queue()], 1.5), "momentum of the key encoder lies in 0 to 1; got 1.5"),
        (lambda: LooC(encoder(), [queue(), queue()]).pools(batch(0, 3)), "LooC of 2 queues of dim 4 needs .* of 8"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(act, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        act()


# CMC.


@pytest.mark.parametrize("draws", [0, 9])
@pytest.mark.parametrize("method", [onca.infonce, nce])
def test_each_half_of_cmc_is_npid_against_the_other_bank(method: onca.Method, draws: int) -> None:
    host, data = cmc(draws=draws), batch(2, 1)
    embedded = host.encoder(data.views[0]).detach()
    total = 0.0
    for half, other in ((embedded[:, :D], host.second), (embedded[:, D:], host.first)):
        alone = NPID(nn.Identity(), copy.deepcopy(other), 0.2, draws)
        total += alone.loss(alone.pools(replace(data, views=(half,))), method).item()
    pools = host.pools(data)
    assert [pool.name for pool in pools] == ["L -> ab", "ab -> L"]
    assert host.loss(pools, method).item() == pytest.approx(total, rel=1e-12)
    first, second = host.first.keys.clone(), host.second.keys.clone()
    host.after_step()
    for moved, before, half in ((host.first, first, embedded[:, :D]), (host.second, second, embedded[:, D:])):
        expected = normalize(0.5 * before[data.index] + 0.5 * normalize(half, dim=1), dim=1)
        torch.testing.assert_close(moved.keys[data.index], expected)


def test_support_views_of_cmc_are_the_half_that_the_query_is() -> None:
    host, data = cmc(support=2), batch(0, 3)
    for pool, half in zip(host.pools(data), (slice(0, D), slice(D, 2 * D)), strict=True):
        for place in range(2):
            expected = normalize(host.encoder(data.views[1 + place])[:, half], dim=1)
            torch.testing.assert_close(pool.support[:, place], expected)


# LooC.


def normed(dim: int) -> nn.Module:
    """With batch norm in parts, so that the order in which keys are encoded shows."""
    torch.manual_seed(3)
    layers = nn.Sequential(nn.Unflatten(1, (F, 1, 1)), nn.Conv2d(F, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten())
    return split_batch_norm(nn.Sequential(*layers, nn.Linear(8, dim)), 2).to(DOUBLE)


@pytest.mark.parametrize("make", [encoder, normed])
def test_looc_of_one_space_is_moco(make: Callable[[int], nn.Module]) -> None:
    one, other = (
        LooC(make(D), [queue()], 0.9, 0.2, seed=5, support=1),
        MoCo(make(D), queue(), 0.9, 0.2, seed=5, support=1),
    )
    for step in range(4):
        data = batch(step, 3)
        pools = one.pools(data), other.pools(data)
        assert pools[0][0].seed == pools[1][0].seed
        torch.testing.assert_close(pools[0][0].support, pools[1][0].support)
        slopes = [torch.autograd.grad(host.loss(made, onca.infonce), list(host.encoder.parameters()))
                  for host, made in zip((one, other), pools, strict=True)]  # fmt: skip
        torch.testing.assert_close(slopes[0], slopes[1])
        assert advance(one, step) == pytest.approx(advance(other, step), rel=1e-12)
    torch.testing.assert_close(one.queues[0].keys, other.memory.keys)
    torch.testing.assert_close(one.key_encoder.state_dict(), other.key_encoder.state_dict())
    assert torch.equal(one.queues[0].index, other.memory.index)


def test_keys_are_encoded_in_another_order_in_every_step_and_come_back_in_theirs() -> None:
    host, images = MoCo(normed(D), queue(), 0.9), batch(0, 2).views[1]
    asked = [Batch((images, images), step=step) for step in range(6)]
    found = [host.encode_keys(each, 1) for each in asked]
    unshuffled = normalize(host.key_encoder(images), dim=1)
    shared = [torch.allclose(keys, unshuffled) for keys in found]
    assert not all(shared), "keys see the statistics of the parts that their queries see"
    assert torch.equal(found[1], host.encode_keys(asked[1], 1))
    assert len({tuple(keys[0].tolist()) for keys in found}) > 1
    host.eval()
    plain = normalize(host.key_encoder(images), dim=1)
    torch.testing.assert_close(host.encode_keys(Batch((images, images)), 1), plain)


def test_each_space_has_its_positive_its_other_views_and_its_queue() -> None:
    host = looc(names=("rotation", "colour"))
    for step in range(3):
        advance(host, step)
    data = batch(3, 4)
    query = normalize(host.encoder(data.views[0]).view(B, 3, D), dim=2)
    keys = [normalize(host.key_encoder(view).view(B, 3, D), dim=2) for view in data.views[1:]]
    pools, losses = host.pools(data), []
    assert [pool.name for pool in pools] == ["space 0: all", "space 1: rotation", "space 2: colour"]
    for space, pool in enumerate(pools):
        others = [keys[view][:, space] for view in range(3) if view != space] if space else []
        queued = host.queues[space]
        every = [query[:, space] @ queued.keys.T]
        assert bool((queued.age >= 0).all())
        every[0] = every[0].masked_fill(queued.index == data.index[:, None], -torch.inf)
        every += [(query[:, space] * key).sum(1, keepdim=True) for key in others]
        positive = (query[:, space] * keys[space][:, space]).sum(1, keepdim=True)
        logits = torch.cat([positive, *every], 1) / 0.2
        losses.append((logits.logsumexp(1) - logits[:, 0]).mean())
        torch.testing.assert_close(onca.infonce(pool).mean(), losses[-1])
    torch.testing.assert_close(host.loss(pools, onca.infonce), torch.stack(losses).mean())
    host.after_step()
    for space, queued in enumerate(host.queues):
        newest = queued.keys[(int(queued.position) - B + torch.arange(B)) % queued.size]
        torch.testing.assert_close(newest, keys[space][:, space])  # k_i as it lies in space i, in every queue
        assert set(queued.view.tolist()) == {space + 1}


def test_views_of_the_same_image_are_never_masked_but_may_be_chosen() -> None:
    host, data = looc(), batch(0, 4)
    pool = host.pools(data)[1]
    assert pool.negatives.count().tolist() == [2] * B  # the queue is empty
    assert onca.drop(onca.same_image)(pool).negatives.count().tolist() == [0] * B
    assert onca.drop(onca.same_class & ~onca.same_image)(pool).negatives.count().tolist() == [2] * B


def test_entries_of_looc_have_places_of_their_own() -> None:
    host = looc(reserve=10)
    for step in range(4):
        advance(host, step)
    for pool in host.pools(batch(4, 4)):
        places = [
            torch.cat([piece.place for piece in pieces]).tolist()
            for bag in (pool.negatives, pool.reserve)
            for pieces in [next(iter(bag.blocks()))[1]]
        ]
        assert sorted(places[0] + places[1]) == list(range(len(pool.negatives) + len(pool.reserve)))


def test_the_encoder_of_several_spaces_fits_the_host() -> None:
    torch.manual_seed(0)
    host = LooC(Spaces("small(2)", "mlp", D, 2), [onca.Queue(8, D), onca.Queue(8, D)])
    views = tuple(torch.rand(4, 3, 8, 8) for _ in range(3))
    host.loss(host.pools(Batch(views)), onca.infonce).backward()
    host.after_step()
    assert all(parameter.grad is not None for parameter in host.encoder.parameters())
    assert all(parameter.grad is None for parameter in host.key_encoder.parameters())


# That they learn: views of one image end closer to its rows than to those of others.


@pytest.mark.parametrize(
    ("make", "method"),
    [
        (lambda: npid(), onca.infonce),
        (lambda: npid(draws=9), nce),
        (lambda: cmc(), onca.infonce),
        (lambda: cmc(draws=9), nce),
        (lambda: looc(1), onca.infonce),
    ],
    ids=["npid", "npid nce", "cmc", "cmc nce", "looc"],
)
def test_images_are_told_apart_after_some_epochs(make: Callable[[], Host], method: onca.Method) -> None:
    draw = torch.Generator().manual_seed(7)
    base = torch.randn(IMAGES, F, generator=draw, dtype=DOUBLE)
    host = make()
    optimiser = torch.optim.SGD(host.encoder.parameters(), 0.1, momentum=0.9)

    def step(number: int, rows: Tensor) -> list[onca.Pool]:
        seen = tuple(base[rows] + 0.1 * torch.randn(B, F, generator=draw, dtype=DOUBLE) for _ in range(host.own_views))
        host.before_step()
        pools = host.pools(Batch(seen, index=rows, epoch=number / 3, step=number))
        optimiser.zero_grad()
        host.loss(pools, method).backward()
        optimiser.step()
        host.after_step()
        return pools

    def beaten(pools: list[onca.Pool]) -> float:
        """Share of the negatives that score below the positive."""
        above = [pool.negatives.mean(lambda p, s: (p.score < s).to(s.dtype), pool.positives.mean()) for pool in pools]
        return torch.stack(above).mean().item()

    for number in range(100):
        pools = step(number, torch.randperm(IMAGES, generator=draw)[:B])
    assert beaten(pools) > 0.9
