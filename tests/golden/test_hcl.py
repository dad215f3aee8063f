"""Hard negatives by importance weights (arXiv 2010.04592): in-batch, extreme, and explicit sets."""

import oracle
import pytest
import torch
from oracle import Case

import onca
from onca.methods.hcl import hcl

Tensor = torch.Tensor
PRECISIONS = [torch.float64, torch.float32]
WIDTHS = [1, 7, None]

pytestmark = pytest.mark.filterwarnings("ignore:.*more than half of the queries")


def roles(z1: Tensor, z2: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Both views as queries and keys, each row's other view, and the image of each row."""
    return torch.cat([z1, z2]), torch.cat([z2, z1]), torch.arange(len(z1)).repeat(2)


def method(golden, attached: bool = True) -> onca.Method:
    """The estimator of the file: "easy" is InfoNCE whatever its beta and tau_plus."""
    if "estimator" in golden and golden.text("estimator") == "easy":
        return onca.infonce
    assert "estimator" not in golden or golden.text("estimator") == "hard"
    return hcl(golden.number("beta"), golden.number("tau_plus"), attached)


def inbatch(golden, chosen: onca.Method, z1: Tensor, z2: Tensor, notes: dict | None = None) -> Tensor:
    z, positive, image = roles(z1, z2)
    return onca.contrast(
        z,
        positive,
        z,
        chosen,
        golden.number("temperature"),
        index=image,
        negative_index=image,
        normalize=False,
        reduction="none",
        notes=notes,
    )


def check_inbatch(golden, dtype: torch.dtype) -> None:
    z1, z2 = (golden.tensor(name, dtype).requires_grad_() for name in ("z1", "z2"))
    notes: dict = {}
    per_anchor = inbatch(golden, method(golden), z1, z2, notes)
    golden.close(per_anchor.mean(), "loss")
    for name, gradient in zip(("z1", "z2"), torch.autograd.grad(per_anchor.mean(), (z1, z2)), strict=True):
        golden.close(gradient, f"grad_{name}", gradient=True)
    if "loss_per_anchor" in golden:
        golden.close(per_anchor, "loss_per_anchor")
    if "clamped" in golden:
        assert notes["floor"] == pytest.approx(golden["clamped"].mean())
    if "grad_detached_z1" in golden:
        detached = inbatch(golden, method(golden, attached=False), z1, z2).mean()
        golden.close(detached, "loss")
        for name, gradient in zip(("z1", "z2"), torch.autograd.grad(detached, (z1, z2)), strict=True):
            golden.close(gradient, f"grad_detached_{name}", gradient=True)


@pytest.mark.golden("hcl", "inbatch")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_inbatch(golden, dtype, width):
    with onca.sliced.rows(width):
        check_inbatch(golden, dtype)


@pytest.mark.golden("hcl", "extreme")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_extreme(golden, dtype, width):
    """Where exp((beta + 1) / t) overflows: everything stays in log space."""
    with onca.sliced.rows(width):
        check_inbatch(golden, dtype)


@pytest.mark.golden("hcl", "extreme")
def test_extreme_in_float32_is_finite_and_close(golden):
    z1, z2 = (golden.tensor(name, torch.float32) for name in ("z1", "z2"))
    loss = inbatch(golden, method(golden), z1, z2).mean()
    assert torch.isfinite(loss)
    assert float(loss) == pytest.approx(golden.number("loss"), rel=1e-5)


@pytest.mark.golden("hcl", "inbatch")
def test_the_weights(golden):
    """Mean one over the negatives, in index order without the anchor and its positive."""
    if "weights" not in golden:
        return
    z, _, image = roles(golden.tensor("z1"), golden.tensor("z2"))
    pool = onca.pool(z, z, z, golden.number("temperature"), index=image, negative_index=image, normalize=False)
    tilted = onca.harden(golden.number("beta"))(pool).negatives
    if tilted.shift is None:
        golden.close(torch.ones_like(golden.tensor("weights")), "weights")
        return
    weights = (tilted.tilt * (z @ z.T) + tilted.shift[:, None]).exp()
    there = image[:, None] != image
    golden.close(weights[there].reshape(len(z), -1), "weights")


@pytest.mark.golden("hcl", "inbatch")
def test_share_of_attracted_negatives(golden):
    """Attached weights pull easy negatives; detached ones never pull."""
    if "attracted_fraction" not in golden:
        return
    z, positive, image = roles(golden.tensor("z1"), golden.tensor("z2"))
    there = image[:, None] != image
    pulled = {}
    for attached in (True, False):
        keys = z.expand(len(z), -1, -1).clone().requires_grad_()  # a copy for each anchor: one gradient a pair
        loss = onca.contrast(
            z,
            positive,
            keys,
            method(golden, attached),
            golden.number("temperature"),
            index=image,
            negative_index=image.expand(len(z), -1),
            normalize=False,
            reduction="sum",
        )
        (gradient,) = torch.autograd.grad(loss, keys)
        slope = (gradient * z[:, None]).sum(-1) / z.square().sum(-1)[:, None]
        pulled[attached] = (slope[there] < 0).double().mean()
    golden.close(pulled[True], "attracted_fraction")
    assert pulled[False] == 0


@pytest.mark.golden("hcl", "explicit")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("attached", [True, False])
def test_explicit(golden, dtype, width, attached):
    """Several positives are only informative (their weights follow the paper as remembered), and agree as well."""
    inputs = [golden.tensor(name, dtype).requires_grad_() for name in ("q", "pos", "neg")]
    notes: dict = {}
    more = {"normalize": False, "reduction": "none", "notes": notes}
    with onca.sliced.rows(width):
        per_anchor = onca.contrast(*inputs, method(golden, attached), golden.number("temperature"), **more)
        gradients = torch.autograd.grad(per_anchor.mean(), inputs)
    golden.close(per_anchor, "loss_per_anchor")
    golden.close(per_anchor.mean(), "loss")
    for name, gradient in zip(("q", "pos", "neg"), gradients, strict=True):
        golden.close(gradient, f"grad_{name}" if attached else f"grad_detached_{name}", gradient=True)
    assert notes["floor"] == pytest.approx(golden["clamped"].mean())


@pytest.mark.golden("hcl", "explicit")
def test_oracle_explicit(golden):
    q, pos, neg = (golden.tensor(name) for name in ("q", "pos", "neg"))
    case = Case(q, pos, [neg], golden.number("temperature"), normalize=False)
    text = f"chain(harden({golden.number('beta')!r}), debiased({golden.number('tau_plus')!r}))"
    golden.close(oracle.losses(text, case), "loss_per_anchor")
