"""The debiased contrastive loss (arXiv 2007.00224): the official in-batch form, and explicit sets with M positives."""

import oracle
import pytest
import torch
from oracle import Case

import onca

Tensor = torch.Tensor
PRECISIONS = [torch.float64, torch.float32]
WIDTHS = [1, 7, None]


def roles(z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both views as queries and keys, each row's other view, and the image of each row."""
    return torch.cat([z1, z2]), torch.cat([z2, z1]), torch.arange(len(z1)).repeat(2)


def inbatch(golden, method: str, z1: Tensor, z2: Tensor, notes: dict | None = None) -> Tensor:
    z, positive, image = roles(z1, z2)
    return onca.contrast(
        z,
        positive,
        z,
        method,
        golden.number("temperature"),
        index=image,
        negative_index=image,
        normalize=False,
        reduction="none",
        notes=notes,
    )


def debiased(golden) -> str:
    return f"debiased({golden.number('tau_plus')!r})"


@pytest.mark.filterwarnings("ignore:.*more than half of the queries")
@pytest.mark.golden("dcl", "inbatch")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_inbatch(golden, dtype, width):
    z1, z2 = (golden.tensor(name, dtype).requires_grad_() for name in ("z1", "z2"))
    notes: dict = {}
    with onca.sliced.rows(width):
        per_anchor = inbatch(golden, debiased(golden), z1, z2, notes)
        gradients = torch.autograd.grad(per_anchor.mean(), (z1, z2))
    golden.close(per_anchor, "loss_per_anchor")
    golden.close(per_anchor.mean(), "loss")
    for name, gradient in zip(("z1", "z2"), gradients, strict=True):
        golden.close(gradient, f"grad_{name}", gradient=True)
    assert notes["floor"] == pytest.approx(golden["clamped"].mean())


@pytest.mark.golden("dcl", "inbatch")
@pytest.mark.parametrize("method", ["infonce", "debiased(0)"])
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_without_correction_it_is_infonce(golden, dtype, method):
    z1, z2 = (golden.tensor(name, dtype).requires_grad_() for name in ("z1", "z2"))
    loss = inbatch(golden, method, z1, z2).mean()
    golden.close(loss, "loss_biased")
    for name, gradient in zip(("z1", "z2"), torch.autograd.grad(loss, (z1, z2)), strict=True):
        golden.close(gradient, f"grad_biased_{name}", gradient=True)


@pytest.mark.filterwarnings("ignore:.*more than half of the queries")
@pytest.mark.golden("dcl", "explicit")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_explicit(golden, dtype, width):
    inputs = [golden.tensor(name, dtype).requires_grad_() for name in ("q", "pos", "neg")]
    notes: dict = {}
    more = {"normalize": False, "reduction": "none", "notes": notes}
    with onca.sliced.rows(width):
        per_anchor = onca.contrast(*inputs, debiased(golden), golden.number("temperature"), **more)
        gradients = torch.autograd.grad(per_anchor.mean(), inputs)
    golden.close(per_anchor, "loss_per_anchor")
    golden.close(per_anchor.mean(), "loss")
    for name, gradient in zip(("q", "pos", "neg"), gradients, strict=True):
        golden.close(gradient, f"grad_{name}", gradient=True)
    assert notes["floor"] == pytest.approx(golden["clamped"].mean())


@pytest.mark.filterwarnings("ignore:.*more than half of the queries")
@pytest.mark.golden("dcl", "explicit")
def test_every_positive_in_the_numerator_in_turn(golden):
    """`loss_allpos`: each of the M positives first, the mean of the M losses."""
    q, pos, neg = (golden.tensor(name) for name in ("q", "pos", "neg"))
    turns = [
        onca.contrast(q, pos.roll(-m, 1), neg, debiased(golden), golden.number("temperature"), normalize=False)
        for m in range(pos.shape[1])
    ]
    golden.close(torch.stack(turns).mean(), "loss_allpos")


@pytest.mark.golden("dcl", "inbatch")
def test_oracle_inbatch(golden):
    z, positive, image = roles(golden.tensor("z1"), golden.tensor("z2"))
    case = Case(z, positive, [z], golden.number("temperature"), index=image, negative_index=[image], normalize=False)
    golden.close(oracle.losses(debiased(golden), case), "loss_per_anchor")


@pytest.mark.golden("dcl", "explicit")
def test_oracle_explicit(golden):
    q, pos, neg = (golden.tensor(name) for name in ("q", "pos", "neg"))
    case = Case(q, pos, [neg], golden.number("temperature"), normalize=False)
    golden.close(oracle.losses(debiased(golden), case), "loss_per_anchor")
