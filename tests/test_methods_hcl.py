"""debiased and hcl: neutral parameters, the floor and its warning, annealing, and what other copies get wrong."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from pools import rows

import onca
from onca.methods.hcl import anneal_down, hcl

Tensor = torch.Tensor
quiet = pytest.mark.filterwarnings("ignore:.*more than half of the queries")


def inputs(b: int = 6, n: int = 30, d: int = 8) -> list[Tensor]:
    """A query, a positive near it, and negatives."""
    query = rows(b, d, seed=1)
    return [query, query + 0.6 * rows(b, d, seed=2), rows(n, d, seed=3)]


def value_and_gradients(method: Any, temperature: float = 0.5, **more: Any) -> list[Tensor]:
    leaves = [x.requires_grad_() for x in inputs()]
    losses = onca.contrast(*leaves, method, temperature, reduction="none", **more)
    return [losses.detach(), *torch.autograd.grad(losses.sum(), leaves)]


def same(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.allclose(a, b, rtol=1e-12, atol=1e-14) for a, b in zip(one, other, strict=True))


def on_the_line(positive: Tensor, negative: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs whose cosines are the given numbers [B] and [B,N]: one dimension, rows taken as they are."""
    return torch.ones(len(positive), 1, dtype=positive.dtype), positive[:, None], negative[:, :, None]


# --- shorthand and neutral parameters --------------------------------------------------------------------------------


@quiet
@pytest.mark.parametrize(("beta", "tau", "attached"), [(1, 0.1, True), (0.5, 0.05, False), (2.0, 0, True)])
def test_hcl_is_its_chain(beta, tau, attached):
    chain = onca.chain(onca.harden(beta, attached), onca.debiased(tau))
    assert same(value_and_gradients(hcl(beta, tau, attached)), value_and_gradients(chain))
    assert onca.harden(beta, attached) in set(hcl(beta, tau, attached).parts())


def test_the_defaults_are_those_of_the_contract():
    assert same(value_and_gradients(hcl()), value_and_gradients("chain(harden(1, True), debiased(0.1))"))
    assert str(onca.read("hcl(beta=1)")) == "hcl(beta=1)"


@pytest.mark.parametrize("method", ["debiased(0)", "debiased(tau_plus=0.0)", "hcl(0, 0)", "hcl(0, 0, attached=False)"])
def test_neutral_parameters_give_infonce(method):
    assert same(value_and_gradients(method), value_and_gradients("infonce"))


def test_hcl_without_tilt_is_debiased():
    assert same(value_and_gradients("hcl(0, 0.05)"), value_and_gradients("debiased(0.05)"))


def test_attached_weights_change_the_gradient_and_not_the_value():
    (value, *attached), (other, *detached) = (value_and_gradients(f"hcl(1, 0, attached={x})") for x in (True, False))
    assert torch.allclose(value, other, rtol=1e-12)
    assert not torch.allclose(attached[2], detached[2], rtol=0.1)


# --- the formula, and what other copies get wrong --------------------------------------------------------------------


def by_loops(positive: np.ndarray, negative: np.ndarray, t: float, tau: float, beta: float, wrong: str = "") -> list:
    """The loss of each query, cosines given: [B], [B,N]. `wrong`: one mistake."""
    losses = []
    for p, row in zip(positive / t, negative / t, strict=True):
        weights = np.exp(beta * row) / np.exp(beta * row).mean()
        total, number = float((weights * np.exp(row)).sum()), len(row)
        prior = 1 / len(positive) if wrong == "tau = 1 / B" else tau
        correction = prior * (1 if wrong == "no N" else number) * math.exp(p)
        left = (total - correction) / (1 - prior)
        floor = -math.inf if wrong == "no floor" else number * math.exp(-1 / t)
        estimate = max(left, floor)
        mass = math.exp(p) + estimate
        losses.append(math.log(mass) - p if mass > 0 else math.nan)
    return losses


def cosines(b: int = 12, n: int = 20) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(5)
    return draw.uniform(0.2, 0.95, b), draw.normal(0, 0.25, (b, n)).clip(-1, 1)


@quiet
@pytest.mark.parametrize("beta", [0.0, 0.5])
@pytest.mark.parametrize("wrong", ["", "no floor", "no N", "tau = 1 / B"])
def test_the_formula_and_its_usual_mistakes(beta, wrong):
    """At t = 0.2 some queries stand on the floor and some do not, so each mistake shows."""
    positive, negative = cosines()
    tensors = on_the_line(torch.tensor(positive), torch.tensor(negative))
    notes: dict[str, Any] = {}
    found = onca.contrast(*tensors, hcl(beta, 0.05), 0.2, normalize=False, reduction="none", notes=notes)
    assert 0 < notes["floor"] < 1
    expected = by_loops(positive, negative, 0.2, 0.05, beta, wrong)
    assert np.allclose(found.numpy(), expected, rtol=1e-10, atol=0) == (wrong == "")


@quiet
def test_on_the_floor_negatives_get_no_gradient_at_all():
    positive, negative = (torch.tensor(x) for x in cosines())
    query, own, keys = on_the_line(positive, negative)
    keys.requires_grad_()
    losses = onca.contrast(query, own, keys, "debiased(0.05)", 0.2, normalize=False, reduction="none")
    (gradient,) = torch.autograd.grad(losses.sum(), keys)
    left = (negative / 0.2).exp().mean(1) - 0.05 * (positive / 0.2).exp()
    on_floor = left / 0.95 < math.exp(-1 / 0.2)
    assert 0 < int(on_floor.sum()) < len(on_floor)
    assert torch.equal(gradient[:, :, 0].abs().sum(1) == 0, on_floor)


@quiet
@given(seed=st.integers(0, 10**6), tau=st.floats(0, 0.4), more=st.floats(0.01, 0.4))
@settings(max_examples=25, deadline=None, derandomize=True)
def test_more_correction_is_less_loss_where_the_positive_outweighs_the_mean(seed, tau, more):
    draw = torch.Generator().manual_seed(seed)
    positive = torch.rand(8, generator=draw, dtype=torch.float64) * 2 - 1
    negative = torch.rand(8, 12, generator=draw, dtype=torch.float64) * 2 - 1
    tensors = on_the_line(positive, negative)
    less, also = (
        onca.contrast(*tensors, onca.debiased(prior), 0.5, normalize=False, reduction="none")
        for prior in (tau, tau + more)
    )
    outweighs = (positive / 0.5).exp() > (negative / 0.5).exp().mean(1)
    assert bool((also <= less + 1e-12)[outweighs].all())


@quiet
@pytest.mark.parametrize("method", ["debiased(0.1)", "hcl(1)", "hcl(0.5, 0.01, attached=False)"])
def test_order_and_rotation_of_all_embeddings_change_nothing(method):
    query, positive, negatives = inputs()
    turn = torch.linalg.qr(rows(8, 8, seed=9)).Q
    plain = onca.contrast(query, positive, negatives, method, 0.3, reduction="none")
    other = onca.contrast(query @ turn, positive @ turn, negatives.flip(0) @ turn, method, 0.3, reduction="none")
    assert torch.allclose(plain, other, rtol=1e-10)


def test_a_single_image_has_no_negatives_and_no_loss():
    z = rows(2, 4, seed=1).requires_grad_()
    index = torch.tensor([0, 0])
    loss = onca.contrast(z, z[[1, 0]], z, "hcl()", 0.5, index=index, negative_index=index)
    loss.backward()
    assert loss == 0 and not z.grad.any()


# --- the floor -------------------------------------------------------------------------------------------------------

TABLE = {  # shared notes on 2007.00224: share of queries on the floor, for tau_plus 0.001, 0.01, 0.05 and 0.1
    (0.15, 0.5): (0, 0, 0, 0),
    (0.15, 0.3): (0, 0, 0.07, 0.89),
    (0.15, 0.2): (0, 0.02, 0.96, 1),
    (0.15, 0.1): (0.53, 1, 1, 1),
    (0.15, 0.07): (0.97, 1, 1, 1),
    (0.3, 0.2): (0, 0, 0.42, 0.94),
    (0.3, 0.07): (0.02, 0.33, 0.79, 0.91),
}


def floor_share(spread: float, temperature: float, tau: float) -> float:
    """Synthetic cosines: positives N(0.8, 0.08), 510 negatives N(0, spread), both within -1 to 1."""
    draw = torch.Generator().manual_seed(1)
    positive = (0.8 + 0.08 * torch.randn(1500, generator=draw)).clamp(-1, 1)
    negative = (spread * torch.randn(1500, 510, generator=draw)).clamp(-1, 1)
    notes: dict[str, Any] = {}
    method = onca.debiased(tau)
    onca.contrast(*on_the_line(positive, negative), method, temperature, normalize=False, notes=notes)
    return notes["floor"]


@quiet
@pytest.mark.parametrize(("spread", "temperature"), TABLE)
def test_the_table_of_floor_shares(spread, temperature):
    found = [floor_share(spread, temperature, tau) for tau in (0.001, 0.01, 0.05, 0.1)]
    assert found == pytest.approx(TABLE[spread, temperature], abs=0.06)  # the notes' own sample was small


def losses_on_floor(share: float, seed: int) -> Callable[[], Tensor]:
    """A loss in which that share of 20 queries stands on the floor; other numbers for another seed."""
    positive = torch.where(torch.arange(20) < 20 * share, 0.95, -0.5)
    negative = 0.05 * rows(20, 30, seed=seed).float()
    return lambda: onca.contrast(*on_the_line(positive, negative), onca.debiased(0.1), 0.1, normalize=False)


def test_the_floor_is_told_once_in_a_training():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        for step in range(5):
            losses_on_floor(0.55, step)()
    (warning,) = seen
    text = str(warning.message)
    assert "debiased(0.1)" in text and "temperature 0.1" in text and "raise the temperature or lower tau_plus" in text


def test_half_on_the_floor_is_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        losses_on_floor(0.5, 0)()


# --- schedules -------------------------------------------------------------------------------------------------------


def official(beta: float, epochs: int) -> list[float] | None:
    """beta in each epoch of `--anneal down`, or None where the official code stops with an error."""
    levels, length, values = iter(np.linspace(beta, 0, 9)), epochs // 9, []
    if length == 0:
        return None
    for epoch in range(1, epochs + 1):
        values.append(float(beta))
        if epoch % length == 0:
            if (level := next(levels, None)) is None:
                return None
            beta = level
    return values


@pytest.mark.parametrize("epochs", [*range(1, 60), 100, 200, 400, 500])
def test_annealing_is_the_official_one_where_that_does_not_stop(epochs):
    expected = official(1.5, epochs)
    found = [anneal_down(1.5, epochs)(epoch) for epoch in range(epochs)]
    assert found[0] == 1.5 and found == sorted(found, reverse=True) and found[-1] >= 0
    assert expected is None or found == pytest.approx(expected, abs=1e-12)
    assert (expected is None) == (epochs < 9 or epochs // (epochs // 9) > 9)


def test_annealing_inside_an_epoch_does_not_move():
    course = anneal_down(1, 90)
    assert course(20.0) == course(29.99) == 0.875 and course(30.0) == 0.75


def test_beta_may_be_a_schedule():
    method = onca.read("hcl(anneal_down(1, 90))")
    assert same(value_and_gradients(method, epoch=45.0), value_and_gradients(hcl(0.625)))
    with pytest.raises(ValueError, match=r"give epoch="):
        value_and_gradients(method)


# --- refusals --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hcl(tau_plus=1)", "tau_plus is a share of the classes"),
        ("hcl(beta='x')", "beta must be a number or a schedule"),
        ("hcl(1, 0.1, 1)", "attached must be True or False"),
        ("hcl(anneal_down(1, 0))", "epochs must be a whole number from 1"),
        ("hcl(anneal_down(ramp(0, 1, 2), 9))", "start must be a plain number"),
        ("hcl(anneal_down(1, 9.5))", "epochs must be a whole number from 1"),
    ],
)
def test_refusals(text, words):
    with pytest.raises(ValueError, match=words):
        onca.read(text)
