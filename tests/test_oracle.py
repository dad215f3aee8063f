"""The oracle of the other tests, checked against the official codes' numbers before anything is checked against it."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle
import pytest
import torch
from oracle import Case

Tensor = torch.Tensor
GOLDEN = Path(os.environ.get("ONCA_GOLDEN") or Path(__file__).parents[2] / "shared" / "golden")


def files(folder: str, pattern: str) -> Any:
    found = sorted((GOLDEN / folder).glob(f"{pattern}*.npz"))
    reason = f"no {folder} files in {GOLDEN}: name their folder in ONCA_GOLDEN"
    none = pytest.param(None, id=f"{folder}/{pattern}", marks=pytest.mark.skip(reason=reason))
    return pytest.mark.parametrize("path", [pytest.param(p, id=f"{folder}/{p.stem}") for p in found] or [none])


def load(path: Path) -> dict[str, Any]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: torch.from_numpy(a) if a.ndim else a.item() for name, a in archive.items()}


def leaf(values: Tensor) -> Tensor:
    return values.clone().requires_grad_()


def check(loss: Tensor, stored: float, gradients: dict[Tensor, Tensor]) -> None:
    assert float(loss.detach()) == pytest.approx(stored, rel=1e-12, abs=1e-13)
    for got, wanted in zip(
        torch.autograd.grad(loss, list(gradients), retain_graph=True), gradients.values(), strict=True
    ):
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


def in_batch(views: list[Tensor], temperature: float, **more: Any) -> Case:
    """Every row of all views is a query against all rows; the positives are its image's other views."""
    z, v, b = torch.cat(views), len(views), len(views[0])
    image = torch.arange(b).repeat(v)
    others = [[row for row in range(v * b) if row % b == i % b and row != i] for i in range(v * b)]
    return Case(z, z[torch.tensor(others)], [z], temperature, index=image, negative_index=[image], **more)


@files("nt_xent", "case")
def test_nt_xent(path: Path) -> None:
    g = load(path)
    x = [leaf(g["x1"]), leaf(g["x2"])]
    per_query = oracle.losses("infonce", in_batch(x, g["temperature"]))
    torch.testing.assert_close(per_query, g["per_anchor"], rtol=1e-12, atol=1e-13)
    check(per_query.mean(), g["loss"], {x[0]: g["grad_x1"], x[1]: g["grad_x2"]})
    z = [leaf(g["z1"]), leaf(g["z2"])]
    loss = oracle.losses("infonce", in_batch(z, g["temperature"], normalize=False)).mean()
    check(loss, g["loss"], {z[0]: g["grad_z1"], z[1]: g["grad_z2"]})


@files("moco_infonce", "case")
def test_moco(path: Path) -> None:
    g = load(path)
    for name, key, normalize in (("xq", "xk", True), ("q", "k", False)):
        q = leaf(g[name])
        per_query = oracle.losses("infonce", Case(q, g[key], [g["queue"].T], g["temperature"], normalize=normalize))
        torch.testing.assert_close(per_query, g["per_anchor"], rtol=1e-12, atol=1e-13)
        check(per_query.mean(), g["loss"], {q: g[f"grad_{name}"]})


@files("dcl", "inbatch")
def test_debiased_in_batch(path: Path) -> None:
    g = load(path)
    z = [leaf(g["z1"]), leaf(g["z2"])]
    case = in_batch(z, g["temperature"], normalize=False)
    per_query = oracle.losses(f"debiased({g['tau_plus']})", case)
    torch.testing.assert_close(per_query, g["loss_per_anchor"], rtol=1e-12, atol=1e-13)
    check(per_query.mean(), g["loss"], {z[0]: g["grad_z1"], z[1]: g["grad_z2"]})


def explicit(path: Path, text: str) -> None:
    g = load(path)
    q, positive, negative = leaf(g["q"]), leaf(g["pos"]), leaf(g["neg"])
    per_query = oracle.losses(text.format(**g), Case(q, positive, [negative], g["temperature"], normalize=False))
    torch.testing.assert_close(per_query, g["loss_per_anchor"], rtol=1e-12, atol=1e-13)
    check(per_query.mean(), g["loss"], {q: g["grad_q"], positive: g["grad_pos"], negative: g["grad_neg"]})


@files("dcl", "explicit")
def test_debiased_explicit(path: Path) -> None:
    explicit(path, "debiased({tau_plus})")


@files("hcl", "explicit")
def test_hardened_explicit(path: Path) -> None:
    explicit(path, "chain(harden({beta}), debiased({tau_plus}))")


@files("hcl", "inbatch")
def test_hardened_in_batch(path: Path) -> None:
    g = load(path)
    text = "infonce" if g["estimator"] == "easy" else f"chain(harden({g['beta']}), debiased({g['tau_plus']}))"
    z = [leaf(g["z1"]), leaf(g["z2"])]
    loss = oracle.losses(text, in_batch(z, g["temperature"], normalize=False)).mean()
    check(loss, g["loss"], {z[0]: g["grad_z1"], z[1]: g["grad_z2"]})


@files("hcl", "extreme")
def test_hardened_at_the_edge_of_float32(path: Path) -> None:
    test_hardened_in_batch(path)


@files("ring", "moco")
def test_ranks(path: Path) -> None:
    """The ring's negatives are nearest(n_outer) without nearest(n_inner), in files with the plain numerator."""
    g = load(path)
    rule = f"keep(nearest({g['n_outer']}) & ~nearest({g['n_inner']}))" if g["variant"] != "moco" else "keep(above(-2))"
    case = Case(leaf(g["q"]), leaf(g["k"]), [g["queue"]], g["temperature"])
    for now, wanted in zip(oracle.left(f"chain({rule}, infonce)", case), g["negative_index"], strict=True):
        assert sorted(now.shown) == sorted(wanted.tolist())
    assert case.positive is not None
    if g["self_negative"] and not g["neighbor_views"]:
        gradients = {case.query: g["grad_q_tangent"], case.positive: g["grad_k_tangent"]}
        check(oracle.losses(f"chain({rule}, infonce)", case).mean(), g["loss"], gradients)


@files("supcon", "case")
def test_supcon(path: Path) -> None:
    g = load(path)
    images, views, _ = g["features"].shape
    features = leaf(g["features"])
    z = features.transpose(0, 1).flatten(0, 1)  # view-major
    rows = torch.arange(images * views)
    given = g["positive_mask"].bool()[rows % images][:, rows % images]
    a = images if g["contrast_mode"] == "one" else images * views
    case = Case(z[:a], None, [z], g["temperature"], index=rows[:a], negative_index=[rows], given=given[:a])
    per_query = oracle.losses("chain(attract(given), supcon)", replace(case, normalize=False))
    per_query = per_query * g["temperature"] / g["base_temperature"]
    torch.testing.assert_close(per_query, g["per_anchor"], rtol=1e-12, atol=1e-13)
    check(per_query.mean(), g["loss"], {features: g["grad_features"]})


def check_fnc(case: Case, g: dict[str, Any], chosen: str, hidden: Tensor) -> None:
    for name, text in (
        ("attraction", f"chain(attract({chosen}), supcon)"),
        ("elimination_keep_own", f"chain(drop({chosen}), supcon)"),
        ("elimination_strict", f"chain(drop({chosen}), infonce)"),
    ):
        per_query = oracle.losses(text, case)
        torch.testing.assert_close(per_query, g[f"{name}_per_anchor"].flatten(), rtol=1e-12, atol=1e-13)
        check(2 * per_query.mean(), g[f"{name}_loss"], {hidden: g[f"{name}_grad_hidden"]})


@files("fnc", "inbatch")
def test_false_negatives_in_batch(path: Path) -> None:
    g = load(path)
    hidden, views = leaf(g["hidden"]), g["n_views"]
    parts = list(hidden.reshape(views, -1, hidden.shape[1]))
    support = torch.stack(parts, 1).repeat(views, 1, 1)
    chosen = f"nearest({g['topk']}, by=support_max) & above({g['threshold']}, by=support_max)"
    check_fnc(in_batch(parts, g["temperature"], support=support), g, chosen, hidden)


@files("fnc", "memory")
def test_false_negatives_in_memory(path: Path) -> None:
    g = load(path)
    hidden, views = leaf(g["hidden"]), g["n_views"]
    ema = g["hidden_ema"].reshape(views, -1, hidden.shape[1])
    image = torch.arange(ema.shape[1]).repeat(views)
    positive = torch.cat([ema[[w for w in range(views) if w != v]].transpose(0, 1) for v in range(views)])
    unknown = torch.full((len(g["memory"]) - len(image),), -1)
    case = Case(hidden, positive, [g["memory"]], g["temperature"], index=image)
    case = replace(case, negative_index=[torch.cat([image, unknown])], support=ema.transpose(0, 1).repeat(views, 1, 1))
    check_fnc(case, g, f"nearest({g['topk']}, by=support_max) & above({g['threshold']}, by=support_max)", hidden)


@files("fnc", "queue")
def test_false_negatives_in_queue(path: Path) -> None:
    g = load(path)
    by = f"by=support_{g['aggregation']}"
    near, high = f"nearest({g['topk']}, {by})", f"above({g['threshold']}, {by})"
    chosen = {"topk": near, "threshold": high, "both": f"{near} & {high}"}[g["rule"]]
    q = leaf(g["q"])
    case = Case(q, g["pos"], [g["queue"]], g["temperature"], support=g["support"], normalize=False)
    texts = {"elimination": f"chain(drop({chosen}), infonce)", "attraction": f"chain(attract({chosen}), supcon)"}
    for name, text in texts.items():
        per_query = oracle.losses(text, case)
        torch.testing.assert_close(per_query, g[f"{name}_per_anchor"], rtol=1e-12, atol=1e-13)
        check(per_query.mean(), g[f"{name}_loss"], {q: g[f"{name}_grad_q"]})
