"""Values equal pytorch-metric-learning's after the stated change of units, where that is installed (extra `peers`).

That library measures distances between unit rows and averages over what is not 0; here scores are cosines
(d^2 = 2 - 2 cos) and each query's mean includes zeros. Its triplets come from labels: label 0 stands for a query and
its positive, so that each pair makes one triplet with each negative.
"""

from typing import Any

import pytest
import torch
from pools import rows

import onca

peer = pytest.importorskip(
    "pytorch_metric_learning", reason="compares with pytorch-metric-learning: pip install onca[peers]"
)
from pytorch_metric_learning import distances, losses, miners, reducers  # noqa: E402  # only where it is there

Tensor = torch.Tensor
B, N, D = 8, 14, 6


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    query = rows(B, D, seed=1)
    negatives = torch.cat([rows(N - 6, D, seed=3), query[:6] + rows(6, D, seed=4)])
    return query, query + 0.7 * rows(B, D, seed=2), negatives


def triples() -> tuple[Tensor, Tensor, Tensor]:
    """Rows of (queries, positives, negatives): each query with its positive and every negative."""
    anchor = torch.arange(B).repeat_interleave(N)
    return anchor, anchor + B, torch.arange(N).repeat(B) + 2 * B


def theirs(make: Any, chosen: tuple[Tensor, ...] | None = None, **more: Any) -> Tensor:
    """The loss of each triple of theirs [B,N], 0 where it was not chosen."""
    chosen = triples() if chosen is None else chosen
    loss = make(reducer=reducers.DoNothingReducer(), **more)
    embeddings = torch.cat(inputs())
    result = loss(embeddings, torch.zeros(len(embeddings), dtype=torch.int64), chosen)
    (found,) = (value["losses"] for value in result.values() if torch.is_tensor(value["losses"]))
    full = torch.zeros(B, N, dtype=torch.float64)
    full[chosen[0], chosen[2] - 2 * B] = found
    return full


def ours(method: str) -> Tensor:
    return onca.contrast(*inputs(), method, reduction="none")


@pytest.mark.parametrize("m", [0.05, 0.2, 0.6])
def test_triplet_in_cosine(m):
    found = theirs(losses.TripletMarginLoss, margin=m, distance=distances.CosineSimilarity())
    assert bool((found > 0).any()) and bool((found == 0).any())
    assert torch.allclose(ours(f"triplet({m})"), found.mean(1), rtol=1e-10)


@pytest.mark.parametrize("m", [0.1, 0.4])
def test_triplet_in_squared_distances(m):
    """A margin in squared distance is twice the margin in cosine, and so is the loss."""
    squared = distances.LpDistance(normalize_embeddings=True, p=2, power=2)
    found = theirs(losses.TripletMarginLoss, margin=m, distance=squared)
    assert torch.allclose(2 * ours(f"triplet({m / 2})"), found.mean(1), rtol=1e-9)


@pytest.mark.parametrize("m", [0.2, 0.6])
@pytest.mark.parametrize("squared", [False, True])
def test_semihard(m, squared):
    """Their miner takes the same negatives, by cosine or (with twice the margin) by squared distance."""
    by = distances.LpDistance(normalize_embeddings=True, p=2, power=2) if squared else distances.CosineSimilarity()
    miner = miners.TripletMarginMiner(margin=2 * m if squared else m, type_of_triplets="semihard", distance=by)
    embeddings, chosen = torch.cat(inputs()), torch.zeros(B, N, dtype=torch.bool)
    for b in range(B):
        label = torch.arange(len(embeddings))
        label[b + B] = b
        anchor, positive, negative = miner(embeddings, label)
        mine = (anchor == b) & (positive == b + B) & (negative >= 2 * B)
        chosen[b, negative[mine] - 2 * B] = True
    pool = onca.pool(*inputs())
    left = onca.keep(onca.semihard(m))(pool).negatives
    places = left.rows(lambda piece: piece.present(), N)
    found = torch.zeros(B, N, dtype=torch.bool)
    for b in range(B):
        found[b, places[b][places[b] >= 0]] = True
    assert bool(chosen.any()) and torch.equal(found, chosen)


@pytest.mark.parametrize("m", [0.2, 0.6])
def test_semihard_triplets(m):
    """Where a query has semi-hard negatives, the mean of their losses."""
    pool = onca.pool(*inputs())
    places = onca.keep(onca.semihard(m))(pool).negatives.rows(lambda piece: piece.present(), N)
    query, column = (places >= 0).nonzero(as_tuple=True)
    chosen = (query, query + B, places[query, column] + 2 * B)
    found = theirs(losses.TripletMarginLoss, chosen, margin=m, distance=distances.CosineSimilarity())
    number = (places >= 0).sum(1)
    assert bool((number > 0).any())
    expected = found.sum(1) / number.clamp_min(1)
    assert torch.allclose(ours(f"chain(keep(semihard({m})), triplet({m}))"), expected, rtol=1e-10)


@pytest.mark.parametrize(("boundary", "alpha"), [(1.2, 0.2), (0.9, 0.4)])
def test_margin(boundary, alpha):
    found = theirs(losses.MarginLoss, margin=alpha, beta=boundary)
    assert torch.allclose(ours(f"margin({boundary}, {alpha})"), found.mean(1), rtol=1e-6)  # their beta is a float32


def test_margin_s_own_reduction():
    """Theirs is the sum over all triples by the number of terms that are not 0: the paper's."""
    leaves = inputs()
    embeddings = torch.cat(leaves)
    whole = losses.MarginLoss()(embeddings, torch.zeros(len(embeddings), dtype=torch.int64), triples())
    query, positive, negatives = (torch.nn.functional.normalize(x, dim=1) for x in leaves)
    near = (query - positive).norm(dim=1) - 1.2 + 0.2 > 0
    far = 1.2 - torch.cdist(query, negatives) + 0.2 > 0
    number = int(near.sum()) * N + int(far.sum())
    assert ours("margin()").sum().item() * N / number == pytest.approx(whole.item(), rel=1e-6)


def test_draws_by_distance():
    """Their miner's frequencies: our weights, cut at a distance of 1.4, which is `above(0.02)` here."""
    query, _, negatives = inputs()
    embeddings = torch.cat([query[:1], query[:1], negatives])  # a query that is its own positive
    label = torch.tensor([0, 0, *range(1, N + 1)])
    torch.manual_seed(0)
    miner = miners.DistanceWeightedMiner(cutoff=0.5, nonzero_loss_cutoff=1.4)
    drawn = torch.cat([miner(embeddings, label)[2] - 2 for _ in range(2000)])  # two draws each
    left = onca.pool(query[:1].expand(8000, -1), query[:1].expand(8000, -1), negatives, seed=5)
    for rule in (onca.keep(onca.above(0.02)), onca.keep(onca.sample(1, weight="distance"))):
        left = rule(left)
    found = left.negatives.hits(lambda piece: piece.present()).double() / 8000
    assert torch.allclose(found, torch.bincount(drawn, minlength=N).double() / len(drawn), atol=0.03)


def test_supcon_averaged_over_anchors_with_positives():
    """Their port leaves anchors without positives out of the mean."""
    z, label = rows(9, D, seed=6), torch.tensor([0, 0, 1, 1, 1, 2, 3, 4, 4])
    row = torch.arange(9)
    known = {"label": label, "negative_label": label, "index": row, "negative_index": row}
    found = onca.contrast(z, None, z, "chain(attract(same_class), with_positives(supcon))", 0.1, **known)
    assert found.item() == pytest.approx(losses.SupConLoss(temperature=0.1)(z, label).item(), rel=1e-9)
