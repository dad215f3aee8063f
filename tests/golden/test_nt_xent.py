"""SimCLR's NT-Xent (arXiv 2002.05709) against the official codes' numbers."""

import oracle
import pytest
import torch
from oracle import Case

import onca

Tensor = torch.Tensor
PRECISIONS = [torch.float64, torch.float32]
WIDTHS = [1, 7, None]


def roles(x1: Tensor, x2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both views as queries and keys, each row's other view, and the image of each row."""
    z = torch.cat([x1, x2])
    return z, torch.cat([x2, x1]), torch.arange(len(x1)).repeat(2)


def losses(x1: Tensor, x2: Tensor, temperature: float, *, normalize: bool) -> Tensor:
    z, positive, image = roles(x1, x2)
    return onca.contrast(
        z,
        positive,
        z,
        temperature=temperature,
        index=image,
        negative_index=image,
        normalize=normalize,
        reduction="none",
    )


@pytest.mark.golden("nt_xent", "case")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize(("view", "normalize"), [("x", True), ("z", False)])
def test_case(golden, dtype, view, normalize, width):
    x1, x2 = (golden.tensor(f"{view}{i}", dtype).requires_grad_() for i in (1, 2))
    with onca.sliced.rows(width):
        per_anchor = losses(x1, x2, golden.number("temperature"), normalize=normalize)
        loss = per_anchor.mean()
        gradients = torch.autograd.grad(loss, (x1, x2))
    golden.close(per_anchor, "per_anchor")
    golden.close(loss, "loss")
    golden.close(2 * loss, "loss_simclr_sum")
    golden.close(loss * golden.number("temperature") / golden.number("base_temperature"), "loss_base_scaled")
    for i, gradient in enumerate(gradients, start=1):
        golden.close(gradient, f"grad_{view}{i}", gradient=True)


@pytest.mark.golden("nt_xent", "case")
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_host(golden, dtype):
    """The SimCLR host, its encoder the identity."""
    x1, x2 = (golden.tensor(f"x{i}", dtype).requires_grad_() for i in (1, 2))
    host = onca.hosts.SimCLR(torch.nn.Identity(), golden.number("temperature"))
    batch = onca.hosts.Batch(views=(x1, x2), index=torch.arange(len(x1)), label=None, epoch=0.0, step=0)
    host.before_step()
    loss = host.loss(host.pools(batch), onca.infonce)
    loss.backward()
    golden.close(loss, "loss")
    golden.close(x1.grad, "grad_x1", gradient=True)
    golden.close(x2.grad, "grad_x2", gradient=True)


@pytest.mark.golden("nt_xent", "case")
def test_oracle(golden):
    z, positive, image = roles(golden.tensor("x1"), golden.tensor("x2"))
    case = Case(z, positive, [z], golden.number("temperature"), index=image, negative_index=[image])
    golden.close(oracle.losses("infonce", case), "per_anchor")
