"""Ring and Ball (arXiv 2010.02037): a queue, a bank with recorded draws, and the policies of the outer fraction."""

from dataclasses import replace
from decimal import Decimal

import pytest
import torch

import onca
from onca.methods.ring import aggregation, ball, ring
from onca.schedule import adaptive, exponential_decay, staircase

Tensor = torch.Tensor
PRECISIONS = [torch.float64, torch.float32]
WIDTHS = [1, 7, None]


def percent(golden, name: str) -> float:
    """A fraction as the percentage that one would write: 0.29 is 29.0, without binary dust."""
    return float(Decimal(repr(golden.number(name))) * 100)


def rules(golden) -> list[onca.Rule]:
    match golden.text("variant"):
        case "moco" | "nce":
            return []
        case "ball":
            return [ball(percent(golden, "thres_outer"))]
        case "ring":
            of = "outer" if golden.flag("dynamic_inner") else "all"
            inner, outer = percent(golden, "thres_inner"), percent(golden, "thres_outer")
            return [ring(outer, inner, of, neighbours=golden.flag("neighbor_views"))]
    raise AssertionError(golden.text("variant"))


def objective(golden) -> onca.Objective:
    """InfoNCE wherever it is that; neighbours or a bare denominator need the other one."""
    join = "logsumexp" if "logsumexp_inner" not in golden or golden.flag("logsumexp_inner") else "mean"
    inside = "self_negative" not in golden or golden.flag("self_negative")
    if inside and not golden.flag("neighbor_views"):
        return onca.infonce
    return aggregation(join, inside)


def chosen(bag: onca.Bag, row: int) -> list[int]:
    """Places that are present for one query, in their order."""
    places = bag.rows(lambda piece: piece.present(), len(bag))[row]
    return places[places >= 0].tolist()


@pytest.mark.golden("ring", "moco")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("tangent", [False, True])
def test_queue(golden, dtype, tangent, width):
    q, k = (golden.tensor(name, dtype).requires_grad_() for name in ("q", "k"))
    queue = golden.tensor("queue", dtype)
    method = onca.chain(*rules(golden), objective(golden))
    with onca.sliced.rows(width):
        loss = onca.contrast(q, k, queue, method, golden.number("temperature"), normalize=tangent)
        gradients = torch.autograd.grad(loss, (q, k))
    golden.close(loss, "loss")
    for name, gradient in zip(("q", "k"), gradients, strict=True):
        golden.close(gradient, f"grad_{name}{'_tangent' * tangent}", gradient=True)


@pytest.mark.golden("ring", "moco")
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_which_rows(golden, dtype):
    """Each query's own ring, and its own skipped rows."""
    pool = onca.pool(golden.tensor("q", dtype), golden.tensor("k", dtype), golden.tensor("queue", dtype), 0.2)
    left = pool
    for rule in rules(golden):
        left = rule(left)
    for row, (wanted, skipped) in enumerate(zip(golden["negative_index"], golden["neighbor_index"], strict=True)):
        assert chosen(left.negatives, row) == sorted(wanted.tolist())
        if golden.text("variant") == "ring" and golden.flag("neighbor_views"):
            attracted = replace(left.positives, links=left.positives.links[1:])
            assert chosen(attracted, row) == sorted(skipped.tolist())


@pytest.mark.golden("ring", "moco")
def test_infonce_is_aggregation_over_one_positive(golden):
    if objective(golden) != onca.infonce:
        return
    q, k, queue = (golden.tensor(name) for name in ("q", "k", "queue"))
    method = onca.chain(*rules(golden), aggregation())
    golden.close(onca.contrast(q, k, queue, method, golden.number("temperature"), normalize=False), "loss")


def ranked(scores: Tensor) -> Tensor:
    return scores.sort(dim=1, descending=True, stable=True).indices


@pytest.mark.golden("ring", "nce")
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("tangent", [False, True])
def test_bank(golden, dtype, tangent):
    """The rule on the whole bank, then the recorded draws out of what it left, with repeats; nothing is masked."""
    q, bank = golden.tensor("q", dtype).requires_grad_(), golden.tensor("bank", dtype)
    index, drawn = golden.tensor("index"), golden.tensor("negative_index")
    left = onca.pool(q, bank[index], bank, golden.number("temperature"), normalize=tangent)
    for rule in rules(golden):
        left = rule(left)
    for row in range(len(q)):
        assert set(drawn[row].tolist()) <= set(chosen(left.negatives, row))
    (link,) = left.negatives.links
    listed = replace(left.negatives, links=(replace(link, rows=drawn, tests=()),))
    loss = objective(golden)(replace(left, negatives=listed)).mean()
    (gradient,) = torch.autograd.grad(loss, q)
    golden.close(loss, "loss")
    golden.close(gradient, "grad_q_tangent" if tangent else "grad_q", gradient=True)


@pytest.mark.golden("ring", "nce")
def test_bank_draws(golden):
    """noise_rank counts from the hardest row of the ring: the ring is the ranks n_inner to n_outer - 1."""
    if golden.text("variant") == "nce":
        golden.close(golden.tensor("noise_rank"), "negative_index")
        return
    order = ranked(golden.tensor("q") @ golden.tensor("bank").T)
    inside = order[:, golden.integer("n_inner") : golden.integer("n_outer")]
    golden.close(inside.gather(1, golden.tensor("noise_rank")), "negative_index")


@pytest.mark.golden("ring", "nce")
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_bank_rows_after(golden, dtype):
    rows, index = golden.tensor("bank", dtype), golden.tensor("index")
    bank = onca.Bank(*rows.shape, golden.number("bank_momentum"), dtype=dtype)
    bank.keys.copy_(rows)
    bank.write(index, golden.tensor("q", dtype))
    golden.close(bank.keys[index], "bank_rows_after")


@pytest.mark.golden("ring", "schedule")
def test_schedules(golden):
    """A fraction per step: here one epoch is one step."""
    steps, last = golden.integer("total_steps"), golden.integer("max_anneal_step")
    start, end = golden.number("init_thres"), golden.number("min_thres")
    size, rate = golden.number("step_size"), golden.number("exp_decay")
    levels = round((start - end) / size) + 1
    policies = {
        "linear": onca.ramp(start, end, last - 1),
        "step": staircase(start, end, size, last, levels),
        "exponential": exponential_decay(start, end, rate, last),
    }
    for name, policy in policies.items():
        values = torch.tensor([policy(step) for step in range(steps + 1)], dtype=torch.float64)
        golden.close(values, name)


@pytest.mark.golden("ring", "schedule")
def test_adaptive(golden):
    metric = golden["adaptive_metric"].tolist()
    policy = adaptive(
        golden.number("init_thres"),
        golden.number("min_thres"),
        golden.number("adaptive_delta"),
        most=1.0,
        window=golden.integer("adaptive_window"),
        lower_is_better=golden.flag("adaptive_lower_is_better"),
    )
    values = [policy(step, metric[: step + 1]) for step in range(len(metric))]
    golden.close(torch.tensor(values, dtype=torch.float64), "adaptive_threshold")
