"""What NPID and CMC share: queries against rows of banks, which then take them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from onca.bag import Bag
from onca.bank import Bank, draw_rows
from onca.hosts.host import Batch, Host, check_views, drawn_from, unit_rows
from onca.pool import Pool, temperature_at, unit
from onca.schedule import Number


@dataclass(frozen=True, eq=False)
class _Done:
    """What after_step needs of one pool: the bank that takes its queries, and the one they were scored against."""

    pool: Pool
    own: Bank
    other: Bank


class Banked(Host):
    """One view a step, embedded as [B, banks x D]: part i of it is a query whose own row is in bank i, and which is
    scored against the opposite bank; with one bank both are the same. See NPID and CMC.
    """

    own_views = 1
    names: tuple[str, ...] = ()  # of the pools

    def __init__(
        self, encoder: nn.Module, temperature: Number, draws: int, official: bool, support: int, seed: int
    ) -> None:
        super().__init__(encoder, temperature, seed, support)
        if isinstance(draws, bool) or not isinstance(draws, int) or draws < 0:
            raise ValueError(f"draws is the number of rows drawn for a query, or 0 for the whole bank; got {draws!r}")
        self.draws = draws
        self.official = official
        self._done: list[_Done] = []

    @property
    def banks(self) -> tuple[Bank, ...]:
        raise NotImplementedError  # abstract

    @property
    def gives(self) -> frozenset[str]:
        linked = all(bank.neighbours is not None for bank in self.banks)
        return super().gives | {"normaliser"} | ({"neighbours"} if linked else set())

    def draw(self, batch: Batch) -> Tensor | None:
        """The rows of this step [B,draws], the same for every bank; None where queries meet whole banks."""
        if not self.draws:
            return None
        view = batch.views[0]
        return draw_rows(len(view), self.draws, self.banks[0].images, drawn_from(self.seed, batch.step), view.device)

    def pools(self, batch: Batch, rows: Tensor | None = None) -> list[Pool]:
        """rows [B,K]: recorded draws in the place of fresh ones."""
        check_views(batch, self)
        index = self.banks[0].known(batch.index, type(self).__name__)
        rows = self.draw(batch) if rows is None else rows
        queries = self._parts(unit_rows(self.encoder(batch.views[0])))
        support = self.support_views(lambda view: unit_rows(self.encoder(batch.views[view])))
        supports = [None] * len(queries) if support is None else self._parts(support)
        self._done = []
        for place, (query, its, own) in enumerate(zip(queries, supports, self.banks, strict=True)):
            other = self.banks[-1 - place]
            pool = Pool(
                positives=other.positives(query, index),
                negatives=self._negatives(other, query, index, rows),
                temperature=temperature_at(self.temperature, batch.epoch),
                name=self.names[place],
                support=its,
                neighbours=other.neighbours,
                nearby=other.nearby(query, index),
                seed=drawn_from(self.seed, batch.step, place),
                **(self.told(batch) | {"population": other.images}),
            )
            pool = replace(pool, normaliser=other.constant(pool))
            self._done.append(_Done(pool, own, other))
        return [done.pool for done in self._done]

    def _negatives(self, bank: Bank, query: Tensor, index: Tensor, rows: Tensor | None) -> Bag:
        masked = None if self.official else index
        return bank.negatives(query, masked) if rows is None else bank.drawn(query, rows, masked)

    def _parts(self, rows: Tensor) -> list[Tensor]:
        """The unit rows [...,D] of each bank, out of what the encoder gives side by side."""
        dim, count = self.banks[0].dim, len(self.banks)
        if rows.shape[-1] != count * dim:
            raise ValueError(
                f"{count} bank(s) of dim {dim} need an encoder of {count * dim} numbers; it gives {rows.shape[-1]}"
            )
        return [unit(part) for part in torch.split(rows, dim, -1)] if count > 1 else [rows]

    def after_step(self) -> None:
        found = [None if done.pool.nearby is None else done.pool.nearby.rows() for done in self._done]
        for done, near in zip(self._done, found, strict=True):  # found before any bank moves
            index, query = done.pool.index, done.pool.negatives.query
            assert index is not None and done.pool.normaliser is not None
            done.other.normaliser.copy_(done.pool.normaliser)
            done.own.write(index, query, done.pool.label)
            if near is not None:
                done.other.link(index, near)
        self._done = []


def check_bank(bank: Bank, owner: str) -> None:
    """Raises ValueError unless it is a bank."""
    if not isinstance(bank, Bank):
        raise ValueError(f"{owner} needs a memory with a row for each image: give onca.Bank(images, dim); got {bank!r}")
