"""CMC's two banks (arXiv 1906.05849): each half against the bank of the other, the losses summed."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import onca
from onca.bank import Bank
from onca.hosts import CMC, Batch
from onca.methods.npid import nce

PRECISIONS = [torch.float64, torch.float32]
WIDTHS = [1, 7, None]
METHODS = {"softmax": onca.infonce, "nce": nce}


def bank_of(golden, name: str, dtype: torch.dtype) -> Bank:
    rows = golden.tensor(name, dtype)
    bank = Bank(*rows.shape, golden.number("momentum"), dtype=dtype)
    bank.load_state_dict({**bank.state_dict(), "keys": rows})
    return bank


@pytest.mark.golden("cmc", "case")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("method", METHODS)
def test_case(golden, method, dtype, width):
    rows, halves = golden.tensor("idx"), ("l", "ab")
    views = [golden.tensor(f"view_{half}", dtype).requires_grad_() for half in halves]
    banks = [bank_of(golden, f"bank_{half}", dtype) for half in reversed(halves)]
    total = torch.zeros((), dtype=dtype)
    with onca.sliced.rows(width):
        for half, view, bank in zip(halves, views, banks, strict=True):
            positives, negatives = bank.positives(view, rows[:, 0]), bank.drawn(view, rows[:, 1:])
            pool = onca.Pool(positives, negatives, golden.number("temperature"), population=golden.integer("n_data"))
            pool = replace(pool, normaliser=bank.constant(pool))
            golden.close(pool.normaliser, f"Z_{half}")
            total = total + METHODS[method](pool).mean()
        gradients = torch.autograd.grad(total, views)
    golden.close(total, f"{method}_loss")
    for half, gradient in zip(halves, gradients, strict=True):
        golden.close(gradient, f"{method}_grad_{half}", gradient=True)


@pytest.mark.golden("cmc", "case")
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("method", METHODS)
def test_host(golden, method, dtype):
    """A step of the host, its encoder the identity; stored gradients are of free variables, ours go through the
    normalisation."""
    views = torch.cat([golden.tensor(f"view_{half}", dtype) for half in ("l", "ab")], 1).requires_grad_()
    banks = [bank_of(golden, f"bank_{half}", dtype) for half in ("l", "ab")]
    host = CMC(nn.Identity(), *banks, golden.number("temperature"), official=True)
    pools = host.pools(Batch((views,), index=golden.tensor("y")), rows=golden.tensor("idx")[:, 1:])
    loss = host.loss(pools, METHODS[method])
    loss.backward()
    host.after_step()
    golden.close(loss, f"{method}_loss")
    for half, found in zip(("l", "ab"), views.grad.chunk(2, 1), strict=True):
        unit, stored = golden.tensor(f"view_{half}"), golden.tensor(f"{method}_grad_{half}")
        tangent = stored - unit * (stored * unit).sum(1, keepdim=True)
        golden.close(found, tangent.numpy(), gradient=True)
        golden.close((host.first if half == "l" else host.second).keys, f"bank_{half}_after")
    golden.close(host.second.normaliser, "Z_l")
    golden.close(host.first.normaliser, "Z_ab")
