"""NPID's memory bank (arXiv 1805.01978): softmax over the bank and over drawn rows, NCE, and the bank after a step."""

from dataclasses import replace

import pytest
import torch
from torch import nn

import onca
from onca.bank import Bank
from onca.hosts import NPID, Batch
from onca.methods.npid import nce

Tensor = torch.Tensor
PRECISIONS = [torch.float64, torch.float32]
WIDTHS = [1, 7, None]


def bank_of(golden, name: str, dtype: torch.dtype) -> Bank:
    """A bank that holds the stored rows."""
    rows = golden.tensor(name, dtype)
    bank = Bank(*rows.shape, golden.number("momentum"), dtype=dtype)
    bank.load_state_dict({**bank.state_dict(), "keys": rows})
    return bank


def listed(golden, bank: Bank, x: Tensor, rows: Tensor) -> onca.Pool:
    """The own row against listed ones: no index, nothing masked."""
    pool = onca.Pool(bank.positives(x, rows[:, 0]), bank.drawn(x, rows[:, 1:]), golden.number("temperature"))
    return replace(pool, normaliser=bank.constant(pool), population=golden.integer("n_data"))


def same(golden, losses: Tensor, x: Tensor, loss: str, gradient: str) -> None:
    golden.close(losses.mean(), loss)
    (found,) = torch.autograd.grad(losses.mean(), x, retain_graph=True)
    golden.close(found, gradient, gradient=True)


@pytest.mark.golden("npid", "case")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_softmax(golden, dtype, width):
    x, bank = golden.tensor("x", dtype).requires_grad_(), bank_of(golden, "bank", dtype)
    y, rows, temperature = golden.tensor("y"), golden.tensor("idx"), golden.number("temperature")
    with onca.sliced.rows(width):
        full = onca.Pool(bank.positives(x, y), bank.negatives(x, y), temperature)
        same(golden, onca.infonce(full), x, "full_softmax_loss", "full_softmax_grad_x")
        drawn = onca.infonce(listed(golden, bank, x, rows))
        same(golden, drawn, x, "sampled_softmax_loss", "sampled_softmax_grad_x")


@pytest.mark.golden("npid", "case")
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_contrast_on_tensors(golden, dtype):
    """The same two losses without a Bank, by index and by lists of rows."""
    x, bank = golden.tensor("x", dtype).requires_grad_(), golden.tensor("bank", dtype)
    y, rows = golden.tensor("y"), golden.tensor("idx")
    more = {"temperature": golden.number("temperature"), "normalize": False, "reduction": "none"}
    full = onca.contrast(x, bank[y], bank, index=y, negative_index=torch.arange(len(bank)), **more)
    same(golden, full, x, "full_softmax_loss", "full_softmax_grad_x")
    drawn = onca.contrast(x, bank[rows[:, 0]], bank[rows[:, 1:]], **more)
    same(golden, drawn, x, "sampled_softmax_loss", "sampled_softmax_grad_x")


@pytest.mark.golden("npid", "case")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_nce(golden, dtype, width):
    x, bank = golden.tensor("x", dtype).requires_grad_(), bank_of(golden, "bank", dtype)
    with onca.sliced.rows(width):
        pool = listed(golden, bank, x, golden.tensor("idx"))
        scores = torch.einsum("bd,bkd->bk", x, bank.keys[golden.tensor("idx")]).detach()
        probabilities = (scores / pool.temperature).exp() / pool.normaliser
        golden.close(pool.normaliser, "nce_Z")
        golden.close(probabilities, "nce_probs")
        same(golden, nce(pool), x, "nce_loss", "nce_grad_x")


@pytest.mark.golden("npid", "case")
@pytest.mark.parametrize("dtype", PRECISIONS)
@pytest.mark.parametrize("method", ["full_softmax", "sampled_softmax", "nce"])
def test_host(golden, dtype, method):
    """A step of the host, its encoder the identity: loss, Z, and the bank after it. The gradient goes through the
    normalisation, so it is the stored one without its part along x."""
    x = golden.tensor("x", dtype).requires_grad_()
    host = NPID(nn.Identity(), bank_of(golden, "bank", dtype), golden.number("temperature"), official=True)
    batch = Batch((x,), index=golden.tensor("y"))
    if method == "full_softmax":
        host.official = False
    host.before_step()
    pools = host.pools(batch, rows=None if method == "full_softmax" else golden.tensor("idx")[:, 1:])
    loss = host.loss(pools, nce if method == "nce" else onca.infonce)
    loss.backward()
    host.after_step()
    golden.close(loss, f"{method}_loss")
    stored, unit = golden.tensor(f"{method}_grad_x"), golden.tensor("x")
    golden.close(x.grad, (stored - unit * (stored * unit).sum(1, keepdim=True)).numpy(), gradient=True)
    golden.close(host.memory.keys, "bank_after")
    if method != "full_softmax":
        golden.close(host.memory.normaliser, "nce_Z")
