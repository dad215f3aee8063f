"""The drop-in forms for anyone's loop: contrast, a function of tensors, and Contrast, a module with a memory."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from onca.bag import Bag
from onca.engine import NotFinite
from onca.link import Link
from onca.memory import Queue
from onca.method import as_method
from onca.objectives import Method
from onca.pool import TABLES, Negatives, Pool, check_tables, check_temperature, pool, temperature_at, unit
from onca.schedule import Number

FORWARD = frozenset({"label", "index", "support"})  # what Contrast takes with each batch


def contrast(
    query: Tensor,
    positive: Tensor | None,
    negatives: Negatives,
    method: str | Method = "infonce",
    temperature: Number = 0.2,
    *,
    reduction: str = "mean",
    notes: dict[str, Any] | None = None,
    **more: Any,
) -> Tensor:
    """The loss of `method` on `pool(query, positive, negatives, temperature, **more)`, reduced.

    Args:
        reduction: "mean", "sum" or "none" ([B]). notes: a dict that receives what parts report, e.g. `empty`.
        query, positive, negatives, temperature, more: see `onca.pool`.

    Raises:
        ValueError: an expression, shape or number that does not fit; a loss that is not finite, with input and row.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f'reduction must be "mean", "sum" or "none"; got {reduction!r}')
    chosen = as_method(method)
    try:
        made = pool(query, positive, negatives, temperature, **more)
    except ValueError as problem:
        raise ValueError(f"{chosen}: {problem}") from None
    loss = losses(made, chosen)
    if notes is not None:
        notes.update(made.notes)
    return loss if reduction == "none" else loss.mean() if reduction == "mean" else loss.sum()


def losses(pool: Pool, method: Method) -> Tensor:
    """method(pool) [B]. Raises ValueError when one is not finite, naming the input and the row that is not.

    On a GPU the look at the values is left to the training loop, which takes it where it waits anyway.
    """
    try:
        loss = method(pool)
    except NotFinite:
        loss = torch.full((len(pool),), torch.nan)
    if loss.device.type == "cpu":
        check_finite(loss, pool, method)
    return loss


def check_finite(loss: Tensor, pool: Pool, method: Method) -> None:
    """Raises ValueError when a loss [B] is not finite, naming the first input and row that is not."""
    if math.isfinite(loss.detach().sum().item()) or bool(torch.isfinite(loss).all()):  # a sum may pass what floats hold
        return
    query = int((~torch.isfinite(loss)).nonzero()[0])
    inputs = [("query", pool.negatives.query)]
    inputs += [("positive", link.vectors) for link in pool.positives.links[:1]]
    inputs += [("negatives", link.vectors) for bag in (pool.negatives, pool.reserve) if bag for link in bag.links]
    for name, value in inputs:
        bad = (~torch.isfinite(value)).any(-1).nonzero()
        if len(bad):
            row = ", ".join(str(place) for place in bad[0].tolist())
            raise ValueError(f"{method}: the loss is not finite: {name}, row {row} holds nan or inf")
    raise ValueError(
        f"the loss of query {query} is not finite although all inputs are: {method} at temperature {pool.temperature}"
    )


class Contrast(nn.Module):
    """The loss of queries against a memory, which then takes the keys.

        contrast = onca.Contrast("chain(keep(hardest(5)), infonce)", 0.1, memory=onca.Queue(4096, 128))
        loss = contrast(query, key, index=image_number)

    Args:
        method: an expression or its text. temperature: a number above 0 or a schedule. memory: a Queue.
        tables: what is known beside the batch, as in `onca.pool`: duplicates, depth, external, neighbours ...

    Raises:
        ValueError: no memory; a method that needs what neither a batch nor the tables give.
    """

    def __init__(
        self,
        method: str | Method = "infonce",
        temperature: Number = 0.2,
        memory: Queue | None = None,
        **tables: Any,
    ) -> None:
        super().__init__()
        if not isinstance(memory, Queue):
            raise ValueError(f"Contrast needs a memory: give memory=onca.Queue(size, dim); got {memory!r}")
        self.method = as_method(method)
        self.temperature = temperature
        self.memory = memory
        self.tables = check_tables(tables)
        for need in sorted(self.method.needs - FORWARD - set(tables)):
            remedy = f"Contrast(..., {need}=...)" if need in TABLES else "onca.contrast, which takes it"
            raise ValueError(f"{self.method} needs {need}, which a memory does not hold: use {remedy}")
        self.notes: dict[str, Any] = {}
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        check_temperature(temperature)

    step: Tensor

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        index: Tensor | None = None,
        label: Tensor | None = None,
        *,
        support: Tensor | None = None,
        epoch: float | None = None,
    ) -> Tensor:
        """Mean loss of query [B,D] with its positive key [B,D] against the memory as it was; then, in training mode,
        the detached keys go in. index, label [B]: which image, which class (-1 unknown). support [B,S,D]. Rows are
        normalised here. Raises ValueError as `onca.contrast` does.
        """
        if query.shape != key.shape or query.dim() != 2 or query.shape[1] != self.memory.dim:
            want, have = f"[B,{self.memory.dim}]", f"{list(query.shape)} and {list(key.shape)}"
            raise ValueError(f"{self.method}: query and key must both be {want}; got {have}")
        for name, value in (("index", index), ("label", label)):
            if value is not None and value.shape != query.shape[:1]:
                raise ValueError(f"{self.method}: {name} must be [{len(query)}]; got {list(value.shape)}")
        wide = torch.promote_types(query.dtype, torch.float32)
        query, key = unit(query.to(wide)), unit(key.to(wide))
        pool = Pool(
            positives=Bag(query, (Link(key[:, None], role="same image"),), query_index=index),
            negatives=self.memory.negatives(query, index),
            reserve=self.memory.older(query, index),
            temperature=temperature_at(self.temperature, epoch),
            label=label,
            index=index,
            support=None if support is None else unit(support.to(wide)),
            epoch=epoch,
            step=int(self.step),
            seed=int(self.step),
            **self.tables,
        )
        loss = losses(pool, self.method)
        self.notes = pool.notes
        if self.training:
            self.memory.count(pool)
            self.memory.enqueue(key, index, label)
            self.step += 1
        return loss.mean()
