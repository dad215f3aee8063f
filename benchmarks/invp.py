"""A step of InvP (2010.11694) on a bank of 50,000 images, against the official order of operations: `python -m
benchmarks.invp [--json FILE]`.

A step is loss, backward, new neighbours of the batch's images and new rows of the bank, for embeddings that are there.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

import onca
from benchmarks import data
from benchmarks.measure import Row, Table, Target, Unequal, agree, compare
from benchmarks.table import main
from onca.hosts import NPID, Batch

NEIGHBOURS, STEPS, HARDEST, BACKGROUND, WEIGHT = 4, 3, 50, 4096, 0.6  # the official defaults
TEMPERATURE, MOMENTUM, EPSILON = 0.2, 0.5, 1e-7
EPOCH = 40.0  # after the start of the second term
CHECKED = (
    "Checked before timing, for the first step: loss within 1e-5, gradient within 1e-3 of its length (entries "
    "that tie within rounding), the bank's rows afterwards within 1e-5, and at most 1 % of the new neighbours are "
    "others (two may tie)."
)


class Official:
    """Its order of operations: exp of all scores, the sorted best of them, walks layer by layer, column by column."""

    def __init__(self, bank: Tensor, graph: Tensor) -> None:
        self.bank, self.graph = bank.clone(), graph.clone()

    def step(self, query: Tensor, index: Tensor, background: int) -> tuple[Tensor, Tensor]:
        """Loss and gradient of queries [B,D]; then the graph and the bank take the batch."""
        leaf = query.clone().requires_grad_()
        unit = normalize(leaf)
        mass = (unit @ self.bank.T / TEMPERATURE).exp()
        own = mass[torch.arange(len(index)), index]
        near = mass.topk(background, sorted=True)
        total = near.values.sum(1)
        instance = -(own / total + EPSILON).log().mean()
        hard = mass.gather(1, self.walk(index)).topk(HARDEST, largest=False).values.sum(1)
        invariance = -(hard / (total - own) + EPSILON).log().mean()
        loss = instance + WEIGHT * invariance
        torch.autograd.backward(loss)
        self.link(index, near.indices)
        self.bank[index] = normalize(MOMENTUM * self.bank[index] + (1 - MOMENTUM) * unit.detach())
        assert leaf.grad is not None
        return loss.detach(), leaf.grad

    def walk(self, index: Tensor) -> Tensor:
        """Where walks end, level after level: [B, k + k^2 + ...], repeats and the own image included."""
        found, level = self.graph[index], 0
        for _ in range(STEPS - 1):
            end = found.shape[1]
            for column in range(level, end):
                found = torch.cat([found, self.graph[found[:, column]]], 1)
            level = end
        return found

    def link(self, index: Tensor, near: Tensor) -> None:
        best = near[:, : NEIGHBOURS + 1]
        spare = best[:, NEIGHBOURS:].expand_as(best)
        self.graph[index] = torch.where(best == index[:, None], spare, best)[:, :NEIGHBOURS]


class Ours:
    """The same through a host with a bank, whose encoder gives the embeddings as they are."""

    def __init__(self, bank: Tensor, graph: Tensor, background: int) -> None:
        self.memory = onca.Bank(*bank.shape, momentum=MOMENTUM, neighbours=NEIGHBOURS)
        assert self.memory.neighbours is not None
        self.graph = self.memory.neighbours
        self.memory.keys.copy_(bank), self.graph.copy_(graph)
        self.host = NPID(nn.Identity(), self.memory, TEMPERATURE)
        self.method = onca.invp(background=background, mode="official")

    def step(self, query: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
        leaf = query.clone().requires_grad_()
        self.host.before_step()
        loss = self.host.loss(self.host.pools(Batch((leaf,), index, epoch=EPOCH)), self.method)
        torch.autograd.backward(loss)
        self.host.after_step()
        assert leaf.grad is not None
        return loss.detach(), leaf.grad


def neighbours(bank: Tensor) -> Tensor:
    """The nearest rows of each: a graph as a trained bank has it."""
    return torch.cat([(part @ bank.T).topk(NEIGHBOURS + 1).indices[:, 1:] for part in bank.split(256)])


def others(mine: Tensor, its: Tensor) -> float:
    """Share of neighbours [B,k] that are not the same, in whatever order. Raises Unequal above 1 %."""
    share = (mine.sort(1).values != its.sort(1).values).double().mean().item()
    if share > 0.01:
        raise Unequal(f"{share:.0%} of the new neighbours differ")
    return share


def row(batch: int, images: int, dim: int) -> Row:
    bank = data.rows(images, dim, 1, "clustered")
    graph, background = neighbours(bank), min(BACKGROUND, images // 4)
    index = torch.randperm(images, generator=torch.Generator().manual_seed(0))[:batch]
    query = normalize(bank[index] + data.rows(batch, dim, 2))

    def sides() -> tuple[Ours, Official]:
        return Ours(bank, graph, background), Official(bank, graph)

    def check() -> dict[str, float]:
        mine, its = sides()
        found = agree(lambda: mine.step(query, index), lambda: its.step(query, index, background), 1e-5, 1e-3)()
        found |= {"bank": agree(lambda: [mine.memory.keys], lambda: [its.bank], 1e-5)()["result 0"]}
        return found | {"neighbours": others(mine.graph[index], its.graph[index])}

    mine, its = sides()
    group = f"{data.shape(batch, images, dim)}, float32"
    return compare(
        group, "the official order in torch", lambda: mine.step(query, index),
        lambda: its.step(query, index, background), Target(8), check=check,
    )  # fmt: skip


def table(batch: int = 256, images: int = 50_000, dim: int = 128) -> Table:
    """A step of InvP against the official order of operations."""
    return Table(
        "invp", "a step of InvP: loss, gradient, new neighbours, new rows", (row(batch, images, dim),), CHECKED
    )


if __name__ == "__main__":
    main(table)
