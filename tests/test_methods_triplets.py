"""Triplets: triplet, semihard, margin and distance-weighted sampling, against loops."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from pools import rows

import onca
from onca.methods.triplets import margin
from onca.select import distance_weight

Tensor = torch.Tensor


def inputs(p: int = 1, n: int = 12) -> list[Tensor]:
    """Rows of length one: positives near the query, some negatives too."""
    query = rows(6, 4, seed=1)
    positive = query[:, None] + 0.7 * rows(6, p, 4, seed=2)
    leaves = [query, positive, torch.cat([rows(n - 4, 4, seed=3), query[:4] + 0.6 * rows(4, 4, seed=4)])]
    return [torch.nn.functional.normalize(x, dim=-1).requires_grad_() for x in leaves]


def value_and_gradients(method: Any, leaves: list[Tensor], **more: Any) -> list[Tensor]:
    losses = onca.contrast(*leaves, method, reduction="none", normalize=False, **more)
    return [losses.detach(), *torch.autograd.grad(losses.sum(), leaves)]


Loss = Callable[[Tensor, Tensor], Tensor]  # distances of the positive and of a negative


def by_loops(loss: Loss, leaves: list[Tensor], allowed: Callable[[Tensor, Tensor], bool] = lambda p, n: True) -> Tensor:
    """Mean over positives of the mean over the allowed negatives; distances as lengths of differences."""
    query, positive, negatives = leaves
    result = []
    for q, own in zip(query, positive, strict=True):
        means = []
        for p in own:
            first = (q - own[0]).norm()
            terms = [loss((q - p).norm(), (q - n).norm()) for n in negatives if allowed(first, (q - n).norm())]
            means.append(torch.stack(terms).mean() if terms else q.sum() * 0)
        result.append(torch.stack(means).mean())
    return torch.stack(result)


def the_margin(boundary: float, alpha: float) -> Loss:
    return lambda p, n: torch.relu(p - boundary + alpha) + torch.relu(boundary - n + alpha)


def the_triplet(m: float) -> Loss:
    """A margin in cosine is half a margin in squared distance: d^2 = 2 - 2 cos."""
    return lambda p, n: torch.relu((p.square() - n.square()) / 2 + m)


def check(method: str | onca.Method, loss: Loss, p: int = 1, **allowed: Any) -> None:
    leaves = inputs(p)
    expected = by_loops(loss, leaves, **allowed)
    assert int((expected > 0).sum()) > 0
    wanted = [expected.detach(), *torch.autograd.grad(expected.sum(), leaves, allow_unused=True)]
    found = value_and_gradients(method, leaves)
    assert torch.allclose(found[0], wanted[0], rtol=1e-11, atol=1e-13)
    tangent = [x - (x * leaf).sum(-1, keepdim=True) * leaf for x, leaf in zip(found[1:], leaves, strict=True)]
    others = [x - (x * leaf).sum(-1, keepdim=True) * leaf for x, leaf in zip(wanted[1:], leaves, strict=True)]
    for one, other in zip(tangent, others, strict=True):  # they differ off the sphere, where d^2 is not 2 - 2 cos
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("p", [1, 3])
@pytest.mark.parametrize(("boundary", "alpha"), [(1.2, 0.2), (0.9, 0.5), (1.4, 0)])
def test_margin(boundary, alpha, p):
    check(margin(boundary, alpha), the_margin(boundary, alpha), p)


def test_margin_has_the_paper_s_values_by_default():
    check("margin()", the_margin(1.2, 0.2))


@pytest.mark.parametrize("p", [1, 3])
@pytest.mark.parametrize("m", [0.1, 0.5])
def test_triplet(m, p):
    check(f"triplet({m})", the_triplet(m), p)


@pytest.mark.parametrize("m", [0.2, 0.6])
def test_semihard_negatives_are_farther_than_the_positive_by_less_than_the_margin(m):
    def allowed(p: Tensor, n: Tensor) -> bool:
        return bool(p < n) and bool((n.square() - p.square()) / 2 < m)

    check(f"chain(keep(semihard({m})), triplet({m}))", the_triplet(m), allowed=allowed)


def test_semihard_and_its_triplet_have_no_zero_terms():
    leaves = inputs()
    pool = onca.pool(*leaves, normalize=False)
    left = onca.keep(onca.semihard(0.4))(pool)
    rules = value_and_gradients("chain(keep(semihard(0.4)), triplet(0.4))", leaves)[0]
    assert bool((rules > 0)[left.negatives.count() > 0].all())


@pytest.mark.parametrize("method", ["triplet(0.2)", "margin()"])
def test_a_query_without_negatives_has_no_loss_and_no_gradient(method):
    leaves = inputs()
    index, negative_index = torch.arange(6), torch.zeros(12, dtype=torch.int64)
    notes: dict[str, Any] = {}
    losses, query, *_ = value_and_gradients(method, leaves, index=index, negative_index=negative_index, notes=notes)
    assert losses[0] == 0 and not query[0].any() and notes["empty"] == 1


@pytest.mark.parametrize("method", ["triplet(0.2)", "margin()"])
def test_without_a_positive_of_its_own_the_first_attracted_one_serves(method):
    query, positive, negatives = inputs()
    keys = torch.cat([positive[:1, 0], negatives])
    given = torch.zeros(6, 13, dtype=torch.bool)
    given[:, 0] = True
    more = {"given": given, "normalize": False, "reduction": "none"}
    found = onca.contrast(query, None, keys, f"chain(attract(given), {method})", **more)
    shared = positive[:1, 0].expand(6, -1)
    assert torch.allclose(found, onca.contrast(query, shared, negatives, method, normalize=False, reduction="none"))


def test_margin_at_no_distance_is_finite():
    leaves = inputs()
    leaves[2] = torch.cat([leaves[0].detach(), leaves[2].detach()]).requires_grad_()  # keys equal to the queries
    for value in value_and_gradients(margin(), leaves):
        assert bool(torch.isfinite(value).all())


def test_margin_may_move():
    leaves = inputs()
    moving = value_and_gradients("margin(ramp(1.0, 1.4, 10), alpha=0.1)", leaves, epoch=5.0)
    fixed = value_and_gradients("margin(1.2, alpha=0.1)", leaves)
    assert all(torch.allclose(a, b) for a, b in zip(moving, fixed, strict=True))


def test_draws_by_distance_are_inverse_to_the_density():
    """Frequencies of single draws against the density on the sphere, integrated anew; closer than 0.5 is as 0.5."""
    dim, cosines = 6, torch.tensor([0.99, 0.9, 0.6, 0.3, 0.0, -0.3, -0.6, -0.9], dtype=torch.float64)
    side = (1 - cosines.square()).sqrt()
    keys = torch.stack([cosines, side, *[torch.zeros(8, dtype=torch.float64)] * (dim - 2)], 1)
    query = torch.nn.functional.one_hot(torch.zeros(20_000, dtype=torch.int64), dim).double()
    rule = onca.keep(onca.sample(1, weight="distance"))
    left = rule(onca.pool(query, query, keys, normalize=False, seed=3)).negatives
    found = left.hits(lambda piece: piece.present()).double() / len(query)
    d = (2 - 2 * cosines).sqrt().clamp(min=0.5)
    weight = 1 / (d ** (dim - 2) * (1 - d.square() / 4) ** ((dim - 3) / 2))
    assert torch.allclose(found, weight / weight.sum(), atol=0.011)
    assert torch.allclose(distance_weight(cosines, dim).softmax(0), weight / weight.sum(), rtol=1e-9)


def test_the_boundary_in_cosine():
    """What the pages say: 1.2 is a cosine of 0.28, the cut-off 0.5 one of 0.875, 1.4 one of 0.02."""
    for distance, cosine in ((1.2, 0.28), (0.5, 0.875), (1.4, 0.02)):
        assert 1 - distance**2 / 2 == pytest.approx(cosine)
        assert math.sqrt(2 - 2 * cosine) == pytest.approx(distance)


@pytest.mark.parametrize(
    ("text", "words"),
    [("margin('far')", "boundary must be a number"), ("margin(1.2, True)", "alpha must be a number")],
)
def test_refusals(text, words):
    with pytest.raises(ValueError, match=words):
        onca.read(text)
