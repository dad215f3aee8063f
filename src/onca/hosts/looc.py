"""LooC: one embedding space invariant to all augmentations, and for each of them one that is not (2008.05659)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from onca.bag import Bag
from onca.hosts.host import Batch, check_views, drawn_from, unit_rows
from onca.hosts.momentum import Momentum
from onca.link import Link
from onca.memory import Queue
from onca.objectives import Method
from onca.pool import Pool, temperature_at, unit
from onca.schedule import Number


class LooC(Momentum):
    """n + 1 spaces, one queue each; the encoder maps a view to [B,(n+1)D] (`encoders.Spaces`).

    Views are q, k0, k1 .. kn: k0 shares no parameters with q, ki those of augmentation i (`views.looc_views`). In space
    0 the positive is k0 and the negatives are queue 0; in space i > 0 the positive is ki, and the negatives are the n
    other keys of the *same* image, which differ from q in augmentation i, and queue i. The loss is the mean
    over spaces; queue i takes ki as embedded in space i. With one queue it is MoCo.

    Keys of the same image stand first in the bag, with role "same image": never masked, and chosen by `same_image` and
    `same_class`. names: of the augmentations, for the names of pools. Support views go through the key encoder.
    """

    def __init__(
        self,
        encoder: nn.Module,
        queues: Sequence[Queue],
        momentum: float = 0.999,
        temperature: Number = 0.2,
        *,
        names: Sequence[str] = (),
        support: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, momentum, temperature, seed, support)
        queues = list(queues)
        if not queues or not all(isinstance(queue, Queue) for queue in queues):
            raise ValueError(
                f"LooC needs a memory for each space: give queues=[onca.Queue(size, dim), ...]; got {queues}"
            )
        if len({id(queue) for queue in queues}) < len(queues) or len({queue.dim for queue in queues}) > 1:
            raise ValueError("LooC needs a queue of its own for each space, all of one dim")
        if names and len(names) != len(queues) - 1:
            raise ValueError(f"LooC of {len(queues)} queues keeps {len(queues) - 1} augmentations; got names={names}")
        self.memories = nn.ModuleList(queues)
        kept = names or [f"augmentation {space}" for space in range(1, len(queues))]
        self.names = ("all", *kept)
        self.own_views = len(queues) + 1
        self._keys: list[tuple[Tensor, Batch]] = []
        self._pools: list[Pool] = []

    @property
    def queues(self) -> list[Queue]:
        return [memory for memory in self.memories if isinstance(memory, Queue)]

    def pools(self, batch: Batch) -> list[Pool]:
        check_views(batch, self)
        spaces = len(self.memories)
        queries = self._spaces(unit_rows(self.encoder(batch.views[0])))
        keys = [self._spaces(self.encode_keys(batch, view)) for view in range(1, spaces + 1)]  # [view][space] [B,D]
        support = self.support_views(lambda view: self.encode_keys(batch, view))
        supports = [None] * spaces if support is None else self._spaces(support)
        self._keys = [(keys[space][space], batch) for space in range(spaces)]
        self._pools = [
            self._pool(batch, space, queries[space], [of_view[space] for of_view in keys], supports[space])
            for space in range(spaces)
        ]
        return list(self._pools)

    def _pool(self, batch: Batch, space: int, query: Tensor, keys: list[Tensor], support: Tensor | None) -> Pool:
        """keys: those of all key views in this space."""
        memory = self.queues[space]
        others = [key for view, key in enumerate(keys) if view != space] if space else []
        negatives, reserve = memory.negatives(query, batch.index), memory.older(query, batch.index)
        if others:
            same = _same_image(torch.stack(others, 1), batch)
            negatives = Bag(query, (same, *_behind(negatives, same.length)), query_index=batch.index)
            reserve = None if reserve is None else replace(reserve, links=_behind(reserve, same.length))
        return Pool(
            positives=Bag(query, (_same_image(keys[space][:, None], batch),), query_index=batch.index),
            negatives=negatives,
            reserve=reserve,
            temperature=temperature_at(self.temperature, batch.epoch),
            name=f"space {space}: {self.names[space]}",
            support=support,
            seed=drawn_from(self.seed, batch.step, space),
            **self.told(batch),
        )

    def loss(self, pools: Sequence[Pool], method: Method) -> Tensor:
        """The mean over queries and over spaces."""
        return super().loss(pools, method) / len(pools)

    def after_step(self) -> None:
        for memory, pool in zip(self.queues, self._pools, strict=False):
            memory.count(pool)
        for space, (keys, batch) in enumerate(self._keys):
            self.queues[space].enqueue(keys, batch.index, batch.label, view=space + 1)
        self._keys, self._pools = [], []

    def _spaces(self, rows: Tensor) -> list[Tensor]:
        """The unit rows [...,D] of each space, out of what the encoder gives side by side."""
        dim, count = self.queues[0].dim, len(self.queues)
        if rows.shape[-1] != count * dim:
            raise ValueError(
                f"LooC of {count} queues of dim {dim} needs an encoder of {count * dim} numbers; it gives "
                f"{rows.shape[-1]}"
            )
        return [unit(part) for part in torch.split(rows, dim, -1)]


def _same_image(keys: Tensor, batch: Batch) -> Link:
    """Keys [B,P,D] of the queries' own images."""
    index, label = (
        None if known is None else known[:, None].expand(keys.shape[:2]) for known in (batch.index, batch.label)
    )
    return Link(keys, index=index, label=label, role="same image")


def _behind(bag: Bag, count: int) -> tuple[Link, ...]:
    """The links with their places moved behind `count` other entries."""
    return tuple(replace(link, place=link.place + count) for link in bag.links)
