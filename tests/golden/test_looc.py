"""LooC (arXiv 2008.05659): n + 1 embedding spaces, their queues, and which views share which augmentation."""

import pytest
import torch
from torch import nn

import onca
from onca.hosts import Batch, LooC
from onca.views.leave_one_out import leave_one_out

Tensor = torch.Tensor
PRECISIONS = [torch.float64, torch.float32]
WIDTHS = [1, 7, None]


def space_losses(golden, zq: Tensor, zk: Tensor, queue: Tensor, every_image: bool) -> list[Tensor]:
    """One call a space. every_image: the variant in which the other views of every image are negatives."""
    losses = []
    for space in range(len(zq)):
        others = [view for view in range(len(zk)) if view != space] if space else []
        same = zk[space, others].transpose(0, 1)  # [B,n,D]
        more = same.flatten(0, 1) if every_image else same
        losses.append(
            onca.contrast(
                zq[space],
                zk[space, space],
                [more, queue[space]] if others else queue[space],
                temperature=golden.number("temperature"),
                normalize=False,
            )
        )
    return losses


@pytest.mark.golden("looc", "case")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_case(golden, dtype, width):
    zq = golden.tensor("zq", dtype).requires_grad_()
    zk, queue = golden.tensor("zk", dtype), golden.tensor("queue", dtype)
    assert len(zq) == golden.integer("n_aug") + 1
    with onca.sliced.rows(width):
        losses = torch.stack(space_losses(golden, zq, zk, queue, every_image=False))
        (gradient,) = torch.autograd.grad(losses.mean(), zq)
        variant = torch.stack(space_losses(golden, zq.detach(), zk, queue, every_image=True))
    golden.close(losses, "loss_per_space")
    golden.close(losses.mean(), "loss")
    golden.close(gradient, "grad_zq", gradient=True)
    golden.close(variant, "seco_variant_loss_per_space")


@pytest.mark.golden("looc", "case")
@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_host(golden, dtype, indexed):
    """A step of the host, its encoder the identity on the embeddings of all spaces side by side. With the images known
    nothing else comes out: keys of the same image are there on purpose."""
    zq, zk, queue = (golden.tensor(name, dtype) for name in ("zq", "zk", "queue"))
    spaces, batch, dim = zq.shape
    query = zq.transpose(0, 1).flatten(1).requires_grad_()
    keys = [zk[:, view].transpose(0, 1).flatten(1) for view in range(spaces)]
    queues = [onca.Queue(queue.shape[1], dim, dtype=dtype) for _ in range(spaces)]
    for memory, rows in zip(queues, queue, strict=True):
        memory.enqueue(rows)
    host = LooC(nn.Identity(), queues, 0.9, golden.number("temperature"))
    pools = host.pools(Batch((query, *keys), index=torch.arange(batch) if indexed else None))
    losses = torch.stack([onca.infonce(pool).mean() for pool in pools])
    loss = host.loss(pools, onca.infonce)
    loss.backward()
    host.after_step()
    golden.close(losses, "loss_per_space")
    golden.close(loss, "loss")
    stored, unit = golden.tensor("grad_zq"), golden.tensor("zq")
    tangent = stored - unit * (stored * unit).sum(2, keepdim=True)
    golden.close(query.grad.view(batch, spaces, dim).transpose(0, 1), tangent.numpy(), gradient=True)
    golden.close(torch.stack([memory.keys for memory in host.queues]), "queue_after")


@pytest.mark.golden("looc", "view_plan")
def test_view_plan(golden):
    """Numbers other than the query's 0 are names: which of them are equal is what counts."""
    plan = leave_one_out(golden.integer("n_aug"))
    stored = golden.tensor("plan")
    assert plan.shape == stored.shape and plan.shape[0] == len(golden["rows"])
    assert list(golden["rows"]) == ["q", *(f"k{view}" for view in range(len(plan) - 1))]
    assert torch.equal(plan == 0, stored == 0)
    for column, expected in zip(plan.T, stored.T, strict=True):
        assert torch.equal(column[:, None] == column, expected[:, None] == expected)
