"""The supervised contrastive loss (arXiv 2004.11362): labels or a mask, all views as anchors or the first alone."""

import oracle
import pytest
import torch
from oracle import Case

import onca
from onca.methods.supcon import with_positives

Tensor = torch.Tensor
PRECISIONS = [torch.float64, torch.float32]
WIDTHS = [1, 7, None]
METHOD = "chain(attract(given), supcon)"


def roles(golden, features: Tensor) -> dict[str, Tensor]:
    """All views view-major as keys, the anchors, and which keys are an anchor's positives, each row its own image."""
    images, views, _ = features.shape
    keys = features.transpose(0, 1).flatten(0, 1)
    anchors = {"all": images * views, "one": images}[golden.text("contrast_mode")]
    positive = golden.tensor("positive_mask").bool().repeat(views, views)[:anchors]
    row = torch.arange(len(keys))
    return {
        "query": keys[:anchors],
        "negatives": keys,
        "given": positive,
        "index": row[:anchors],
        "negative_index": row,
    }


def scale(golden) -> float:
    return golden.number("temperature") / golden.number("base_temperature")


@pytest.mark.golden("supcon", "case")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_mask(golden, dtype, width):
    features = golden.tensor("features", dtype).requires_grad_()
    known = roles(golden, features) | {"temperature": golden.number("temperature"), "normalize": False}
    with onca.sliced.rows(width):
        per_anchor = onca.contrast(positive=None, method=METHOD, reduction="none", **known) * scale(golden)
        (gradient,) = torch.autograd.grad(per_anchor.mean(), features)
    golden.close(per_anchor, "per_anchor")
    golden.close(per_anchor.mean(), "loss")
    golden.close(gradient, "grad_features", gradient=True)


@pytest.mark.golden("supcon", "case")
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_labels(golden, dtype):
    """By labels, or by image where the file has none (kind "none"); a free mask has no labels."""
    if "labels" not in golden and golden.text("kind") != "none":
        assert golden.text("kind") == "mask"
        return
    features = golden.tensor("features", dtype).requires_grad_()
    label = golden.tensor("labels") if "labels" in golden else torch.arange(len(features))
    known = roles(golden, features)
    known |= {"label": label.repeat(features.shape[1])[: len(known["query"])]}
    known |= {"negative_label": label.repeat(features.shape[1])}
    known |= {"temperature": golden.number("temperature"), "normalize": False}
    loss = onca.contrast(positive=None, method="chain(attract(same_class), supcon)", **known) * scale(golden)
    (gradient,) = torch.autograd.grad(loss, features)
    golden.close(loss, "loss")
    golden.close(gradient, "grad_features", gradient=True)


@pytest.mark.golden("supcon", "case")
def test_mean_over_anchors_with_positives(golden):
    """The other reduction: anchors without positives are left out of the mean."""
    features = golden.tensor("features").requires_grad_()
    known = roles(golden, features)
    own = torch.eye(len(known["negatives"]), dtype=torch.bool)[: len(known["query"])]
    has = (known["given"] & ~own).any(1)
    known |= {"temperature": golden.number("temperature"), "normalize": False}
    method = onca.chain(onca.attract(onca.given), with_positives(onca.supcon))
    loss = onca.contrast(positive=None, method=method, **known)
    share = has.double().mean().item()
    (gradient,) = torch.autograd.grad(loss, features)
    golden.close(loss * scale(golden) * share, "loss")
    golden.close(gradient * scale(golden) * share, "grad_features", gradient=True)


@pytest.mark.golden("supcon", "case")
def test_oracle(golden):
    known = roles(golden, golden.tensor("features"))
    case = Case(
        known["query"],
        None,
        [known["negatives"]],
        golden.number("temperature"),
        index=known["index"],
        negative_index=[known["negative_index"]],
        given=known["given"],
        normalize=False,
    )
    golden.close(oracle.losses(METHOD, case) * scale(golden), "per_anchor")
