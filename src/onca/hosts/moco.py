"""MoCo v1 and v2: queries against a queue of keys from a momentum encoder (1911.05722, 2003.04297).

v1 and v2 differ in head, temperature, views and schedule only, which are not the host's. Order of one step: the key
weights move towards the query weights as they are before the optimiser's step; keys are encoded in shuffled order;
the loss sees the queue as it was; after the step the keys go in.
"""

from __future__ import annotations

from torch import Tensor, nn

from onca.bag import Bag
from onca.hosts.host import Batch, check_views, drawn_from, unit_rows
from onca.hosts.momentum import Momentum
from onca.link import Link
from onca.memory import Queue
from onca.pool import Pool, temperature_at
from onca.schedule import Number


class MoCo(Momentum):
    """encoder: maps a view to [B,D]; what becomes of its copy, `Momentum` says. symmetric: each view is query once and
    key once; the two losses are summed and the keys of both views go in, as in the official CIFAR recipe. support: so
    many more views of each image go through the key encoder and stand in `pool.support`.
    """

    def __init__(
        self,
        encoder: nn.Module,
        queue: Queue,
        momentum: float = 0.999,
        temperature: Number = 0.2,
        symmetric: bool = False,
        *,
        support: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, momentum, temperature, seed, support)
        if not isinstance(queue, Queue):
            raise ValueError(f"MoCo needs a memory: give queue=onca.Queue(size, dim); got {queue!r}")
        self.memory = queue
        self.symmetric = symmetric
        self._keys: list[tuple[Tensor, Batch, int]] = []
        self._pools: list[Pool] = []

    def pools(self, batch: Batch) -> list[Pool]:
        check_views(batch, self)
        directions = [(0, 1), (1, 0)] if self.symmetric else [(0, 1)]
        keys = {view: self.encode_keys(batch, view) for _, view in directions}
        self._keys = [(keys[view], batch, view) for view in sorted(keys)]
        more = self.support_views(lambda view: self.encode_keys(batch, view))
        pairs = enumerate(directions)
        self._pools = [self._pool(batch, query, keys[key], more, place) for place, (query, key) in pairs]
        return list(self._pools)

    def _pool(self, batch: Batch, view: int, keys: Tensor, more: Tensor | None, place: int) -> Pool:
        query = unit_rows(self.encoder(batch.views[view]))
        return Pool(
            positives=Bag(query, (Link(keys[:, None], role="same image"),), query_index=batch.index),
            negatives=self.memory.negatives(query, batch.index),
            reserve=self.memory.older(query, batch.index),
            temperature=temperature_at(self.temperature, batch.epoch),
            name=f"view {view} -> {1 - view}",
            support=more,
            seed=drawn_from(self.seed, batch.step, place),
            **self.told(batch),
        )

    def after_step(self) -> None:
        for pool in self._pools:
            self.memory.count(pool)
        for keys, batch, view in self._keys:
            self.memory.enqueue(keys, batch.index, batch.label, view)
        self._keys, self._pools = [], []
