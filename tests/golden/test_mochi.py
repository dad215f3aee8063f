"""Hard negative mixing (MoCHi, arXiv 2010.01028) against a re-implementation whose draws were recorded."""

from dataclasses import replace

import pytest
import torch

import onca
from onca.methods.mochi import Draws, hard_set, points

Tensor = torch.Tensor
PRECISIONS = [torch.float64, torch.float32]
WIDTHS = [1, 3, None]


def inputs(golden, dtype: torch.dtype, normalize: bool) -> tuple[Tensor, onca.Pool]:
    query = golden.tensor("q", dtype).requires_grad_()
    pool = onca.pool(
        query,
        golden.tensor("k", dtype),
        golden.tensor("queue", dtype),
        golden.number("temperature"),
        index=golden.tensor("image_id"),
        negative_index=golden.tensor("queue_image_id"),
        normalize=normalize,
    )
    return query, pool


def with_points(golden, pool: onca.Pool, attached: bool = False) -> onca.Pool:
    """The recorded draws, applied."""
    names = ("mix_i", "mix_j", "alpha", "mixq_j", "beta")
    drawn = Draws(*(golden.tensor(name) for name in names))
    return replace(pool, added=(points(pool.negatives, drawn, attached),))


def loss_of(golden, dtype: torch.dtype, kind: str) -> tuple[Tensor, Tensor]:
    query, pool = inputs(golden, dtype, normalize=kind == "tangent")
    loss = onca.infonce(pool if kind == "nomix" else with_points(golden, pool, kind == "attached")).mean()
    return loss, torch.autograd.grad(loss, query)[0]


@pytest.mark.golden("mochi", "mix")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("kind", ["free", "tangent", "attached", "nomix"])
def test_loss_and_gradient(golden, kind, dtype, width):
    with onca.sliced.rows(width):
        loss, gradient = loss_of(golden, dtype, kind)
    golden.close(loss, "loss_nomix" if kind == "nomix" else "loss")
    golden.close(gradient, "grad_q" if kind == "free" else f"grad_q_{kind}", gradient=True)
    if kind == "free" and dtype == torch.float32:
        golden.close(loss, "loss_float32")


@pytest.mark.golden("mochi", "mix")
@pytest.mark.parametrize("width", WIDTHS)
def test_every_logit_and_point(golden, width):
    """Positive, queue (-inf where masked), first and second kind, in this order; points through their coordinates."""
    _, pool = inputs(golden, torch.float64, normalize=False)
    pool = with_points(golden, pool)
    rows, coordinates = [], []
    axes = torch.eye(pool.negatives.query.shape[1], dtype=torch.float64)
    with onca.sliced.rows(width):
        for bag in (pool.positives, pool.negatives, *pool.added):
            parts = [[onca.sliced.masked(p, p.score, -torch.inf) for p in pieces] for _, pieces in bag.blocks()]
            rows.append(torch.cat([torch.cat(part, 1) for part in parts]) * pool.scale)
        for part, pieces in pool.added[0].blocks():
            height = part.stop - part.start
            along = [torch.stack([p.rescore(axis.expand(height, -1), None) for axis in axes], 2) for p in pieces]
            coordinates.append(torch.cat(along, 1))
    found, wanted = torch.cat(rows, 1), golden.tensor("logits")
    golden.close(torch.isneginf(found), torch.isneginf(wanted).numpy())
    golden.close(torch.where(torch.isneginf(found), 0, found), torch.where(torch.isneginf(wanted), 0, wanted).numpy())
    golden.close(torch.cat(coordinates), torch.cat([golden.tensor("synth"), golden.tensor("synth_q")], 1).numpy())


@pytest.mark.golden("mochi", "mix")
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_the_hard_set_of_each_query(golden, dtype):
    """Where fewer rows are there than asked for, what is masked is no negative and -1 here."""
    _, pool = inputs(golden, dtype, normalize=False)
    golden.close(~torch.cat([p.present() for _, (p,) in pool.negatives.blocks()]), "queue_masked")
    wanted = golden.tensor("hard_index")
    wanted = torch.where(golden.tensor("queue_masked").gather(1, wanted), -1, wanted)
    golden.close(hard_set(pool, golden.integer("n_hard")).sort(1).values, wanted.sort(1).values.numpy())


@pytest.mark.golden("mochi", "mix")
def test_recorded_draws_come_from_the_hard_sets(golden):
    hard = golden.tensor("hard_index")
    for name, count in (("mix_i", "s"), ("mix_j", "s"), ("mixq_j", "s_prime")):
        places = golden.tensor(name)
        assert places.shape == (len(hard), golden.integer(count))
        assert bool((places[:, :, None] == hard[:, None]).any(2).all())
    assert bool((golden.tensor("beta") < golden.number("beta_max")).all())
