"""supcon by labels or a mask, and both reductions of queries without positives."""

from typing import Any

import pytest
import torch
from pools import rows

import onca
from onca.methods.supcon import with_positives

Tensor = torch.Tensor
LABELS = torch.tensor([0, 0, 1, 2, -1, 1, 1])  # 3 and 4 are alone: one has no companion, the other no label
TEXT = "chain(attract(same_class), {})"


def losses(z: Tensor, objective: str, notes: dict[str, Any] | None = None, label: Tensor = LABELS) -> Tensor:
    row = torch.arange(len(z))
    known = {"index": row, "negative_index": row, "label": label, "negative_label": label}
    return onca.contrast(z, None, z, TEXT.format(objective), 0.3, reduction="none", notes=notes, **known)


def by_loops(z: Tensor) -> Tensor:
    """-mean over companions of log of their share of all but the query itself, the mean outside the log."""
    z = torch.nn.functional.normalize(z, dim=1)
    result = []
    for i in range(len(z)):
        others = [j for j in range(len(z)) if j != i]
        logits = {j: z[i] @ z[j] / 0.3 for j in others}
        total = torch.logsumexp(torch.stack(list(logits.values())), 0)
        companions = [j for j in others if LABELS[j] == LABELS[i] >= 0]
        terms = [total - logits[j] for j in companions]
        result.append(torch.stack(terms).mean() if terms else z[i].sum() * 0)
    return torch.stack(result)


@pytest.fixture
def z() -> Tensor:
    return rows(7, 5, seed=1).requires_grad_()


def test_labels(z):
    found, expected = losses(z, "supcon"), by_loops(z)
    assert torch.allclose(found, expected, rtol=1e-12)
    gradients = (torch.autograd.grad(x.mean(), z)[0] for x in (found, expected))
    assert torch.allclose(*gradients, rtol=1e-11, atol=1e-14)
    assert found[3] == found[4] == 0  # they count in the mean


def test_with_positives_takes_the_mean_over_queries_that_have_some(z):
    notes: dict[str, Any] = {}
    found = losses(z, "with_positives(supcon)", notes)
    has = torch.tensor([True, True, True, False, False, True, True])
    assert found.mean().item() == pytest.approx(by_loops(z)[has].mean().item(), rel=1e-12)
    assert not found[~has].any() and notes["lone"] == pytest.approx(2 / 7)
    expected = torch.autograd.grad(by_loops(z)[has].mean(), z)[0]
    assert torch.allclose(torch.autograd.grad(found.mean(), z)[0], expected, rtol=1e-11, atol=1e-14)


def test_both_reductions_agree_where_all_have_positives(z):
    label = torch.tensor([0, 0, 1, 1, 2, 2, 2])
    assert torch.equal(losses(z, "supcon", label=label), losses(z, str(with_positives(onca.supcon)), label=label))


def test_nobody_with_positives_is_no_loss_and_no_gradient(z):
    loss = losses(z, "with_positives(supcon)", label=torch.arange(7)).mean()
    loss.backward()
    assert loss == 0 and not z.grad.any()


def test_float32_keeps_its_precision_in_the_share(z):
    wide, narrow = (losses(x, "with_positives(supcon)") for x in (z, z.detach().float()))
    assert narrow.dtype == torch.float32 and wide.dtype == torch.float64
    assert torch.allclose(narrow.double(), wide, rtol=2e-5)


def test_in_a_batch_of_both_views_it_is_simclr_s_host_with_labels():
    """The host gives the other view as the positive and hides the image's own rows; labels attract the rest."""
    one, two, label = rows(6, 5, seed=2), rows(6, 5, seed=3), torch.tensor([0, 0, 1, 1, 2, -1])
    host = onca.hosts.SimCLR(torch.nn.Identity(), 0.3)
    batch = onca.hosts.Batch(views=(one, two), index=torch.arange(6), label=label, epoch=0.0, step=0)
    found = host.loss(host.pools(batch), onca.read(TEXT.format("supcon")))
    z = torch.nn.functional.normalize(torch.cat([one, two]), dim=1)
    logits = (z @ z.T / 0.3).fill_diagonal_(-torch.inf)
    image, label = torch.arange(6).repeat(2), label.repeat(2)
    positive = (image[:, None] == image) | ((label[:, None] == label) & (label >= 0))
    positive.fill_diagonal_(False)
    terms = (logits.logsumexp(1, keepdim=True) - logits).masked_fill(~positive, 0).sum(1) / positive.sum(1)
    assert found.item() == pytest.approx(terms.mean().item(), rel=1e-12)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("with_positives(chain(attract(given), supcon))", "objective must be a objective"),
        ("with_positives(attract(given))", "attract.* is a rule"),
        ("with_positives()", "with_positives is with_positives"),
    ],
)
def test_refusals(text, words):
    with pytest.raises(ValueError, match=words):
        onca.read(text)


def test_labels_are_needed_and_asked_for(z):
    with pytest.raises(ValueError, match="label="):
        onca.contrast(z, None, z, "chain(attract(same_class), supcon)", 0.3)
    assert onca.read("chain(attract(same_class), with_positives(supcon))").needs == {"label"}


def test_an_objective_that_needs_positives_still_says_so(z):
    with pytest.raises(ValueError, match="query 3 has none"):
        losses(z, "with_positives(infonce)")
