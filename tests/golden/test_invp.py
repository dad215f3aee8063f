"""Invariance propagation (arXiv 2010.11694) against the official code's numbers and those of the paper."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import onca
from onca.bank import Bank
from onca.identity import reached, walks
from onca.methods.invp import invp
from onca.methods.propagation import (
    denominators,
    everyone,
    listed,
    listed_instance,
    propagated,
    set_instance,
    walk_ends,
)
from onca.schedule import after, gaussian_ramp
from onca.select import farthest, nearest

Tensor = torch.Tensor
PRECISIONS = [torch.float64, torch.float32]
WIDTHS = [1, 3, None]


def read(golden, dtype: torch.dtype = torch.float64) -> SimpleNamespace:
    """The file's batch against its bank, and its numbers."""
    points, bank, index = golden.tensor("points", dtype), golden.tensor("bank", dtype), golden.tensor("indices")
    points.requires_grad_()
    numbers = {name: golden.integer(name) for name in ("k", "l", "n_background", "n_pos")}
    image, graph = torch.arange(len(bank)), golden.tensor("neigh")
    temperature = golden.number("temperature")
    pool = onca.pool(points, bank[index], bank, temperature, index=index, negative_index=image, neighbours=graph)
    return SimpleNamespace(points=points, bank=bank, index=index, graph=graph, pool=replace(pool, epoch=1.0), **numbers)


def gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    return torch.autograd.grad(loss, leaf, retain_graph=True)[0]


def chosen(bag: onca.Bag, test, *, present: bool = True) -> Tensor:
    """Entry by entry, [B,N] bool."""
    pieces = [pieces[0] for _, pieces in bag.blocks()]
    return torch.cat([test(piece) & (piece.present() if present else True) for piece in pieces])


def in_order(bag: onca.Bag, count: int) -> Tensor:
    """Places of the `count` most similar entries, most similar first [B,count]."""
    return bag.kth(torch.arange(1, count + 1).expand(len(bag.query), count))[1]


# --- the official code -----------------------------------------------------------------------------------------------


@pytest.mark.golden("invp", "case")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_official_losses(golden, dtype, width):
    case = read(golden, dtype)
    with onca.sliced.rows(width):
        near = nearest(case.n_background)(case.pool, everyone(case.pool))
        total, others = denominators(case.pool, near)
        instance = listed_instance(case.pool, total)
        exclusive, hard_pos = golden.flag("exclusive"), golden.flag("hard_pos")
        invariance = listed(case.pool, case.l, case.n_pos, others if exclusive else total, hard_pos)
    for name, loss in (("ins", instance.mean()), ("inv", invariance.mean())):
        golden.close(loss, f"loss_{name}")
        golden.close(gradient(loss, case.points), f"grad_{name}", gradient=True)
    if exclusive and hard_pos:  # what mode="official" stands for
        method = invp(case.k, case.l, case.n_pos, case.n_background, weight=0.6, start=0, mode="official")
        golden.close(method(case.pool).mean(), golden["loss_ins"] + 0.6 * golden["loss_inv"])


@pytest.mark.golden("invp", "case")
def test_official_lists(golden):
    case = read(golden)
    golden.close(walks(case.graph, torch.arange(len(case.bank)), case.l), "discovered_all")
    golden.close(walks(case.graph, case.index, case.l), "discovered")
    whole = everyone(case.pool)
    golden.close(in_order(whole, case.n_background), "background_indices")
    near = chosen(whole, nearest(case.n_background)(case.pool, whole))
    golden.close(near.sum(1), np.full(len(case.index), case.n_background))
    assert near.gather(1, golden.tensor("background_indices")).all()
    ends = walk_ends(case.pool, case.l, distinct=False)
    hard = (farthest if golden.flag("hard_pos") else nearest)(case.n_pos)(case.pool, ends)
    places = ends.rows(hard, golden["hard_pos_indices"].shape[1])
    assert (ends.only(hard).count() == places.shape[1]).all()
    images = walks(case.graph, case.index, case.l).gather(1, places)
    golden.close(images.sort(1).values, np.sort(golden["hard_pos_indices"], 1))


@pytest.mark.golden("invp", "case")
def test_bank_afterwards(golden):
    case = read(golden)
    memory = Bank(*case.bank.shape, golden.number("bank_momentum"), case.k, dtype=torch.float64)
    memory.keys.copy_(case.bank)
    memory.neighbours.copy_(case.graph)
    rows = torch.nn.functional.normalize(case.points.detach(), dim=1)
    memory.link(case.index, memory.nearby(rows, case.index).rows())
    memory.write(case.index, rows)
    golden.close(memory.neighbours.sort(1).values, np.sort(golden["neigh_after"], 1))  # there in another order
    golden.close(memory.keys, "bank_after")


# --- the paper -------------------------------------------------------------------------------------------------------


@pytest.mark.golden("invp", "case")
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("dtype", PRECISIONS)
def test_paper_losses(golden, dtype, width):
    case = read(golden, dtype)
    with onca.sliced.rows(width):
        near = nearest(case.n_background)(case.pool, case.pool.negatives)
        golden.close(set_instance(case.pool, near), "paper_loss_ins_per_anchor")
        invariance = propagated(case.pool, case.l, case.n_pos, near)
        golden.close(invariance, "paper_loss_inv_per_anchor")
        method = invp(case.k, case.l, case.n_pos, case.n_background, weight=0.6, start=0)
        both = golden["paper_loss_ins_per_anchor"] + 0.6 * golden["paper_loss_inv_per_anchor"]
        golden.close(method(case.pool), both)


@pytest.mark.golden("invp", "case")
@pytest.mark.parametrize("width", WIDTHS)
def test_paper_sets(golden, width):
    case = read(golden)
    with onca.sliced.rows(width):
        found = walk_ends(case.pool, case.l, distinct=True)
        golden.close(found.count(), "paper_positive_set_size")
        hard = found.only(farthest(case.n_pos)(case.pool, found))
        number = hard.count()
        ranked = in_order(hard, case.n_pos)  # most similar first, its last entry repeated where there are fewer
        images = found.links[0].rows.gather(1, ranked)
    expected = golden.tensor("paper_hard_pos_indices")
    assert expected.shape[1] == case.n_pos
    for b, n in enumerate(number.tolist()):
        assert n == min(case.n_pos, golden["paper_positive_set_size"][b])
        golden.close(images[b, :n].flip(0), expected[b, :n].numpy())
        assert (expected[b, n:] == -1).all()


@pytest.mark.golden("invp", "case")
@pytest.mark.parametrize("width", WIDTHS)
def test_everyone_reaches_what_breadth_first_search_does(golden, width):
    case = read(golden)
    image = torch.arange(len(case.bank))
    with onca.sliced.rows(width):
        pool = onca.pool(case.bank, None, case.bank, index=image, negative_index=image, neighbours=case.graph)
        members = chosen(pool.negatives, reached(case.l)(pool, pool.negatives), present=False)
    golden.close(members.to(torch.int8), "bfs_membership")


# --- the warm-up -----------------------------------------------------------------------------------------------------


@pytest.mark.golden("invp", "ramp")
def test_ramp(golden):
    end, epochs = golden.number("T"), golden["epochs"].tolist()
    golden.close(np.array([after(end, 1)(epoch) for epoch in epochs]), golden["binary"].astype(float))
    smooth = gaussian_ramp(1, end, golden.number("gaussian_weight"))
    golden.close(np.array([smooth(epoch) for epoch in epochs]), "gaussian")
