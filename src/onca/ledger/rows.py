"""One query of a bag against all its entries, laid open.

Shapes: n entries of a link.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onca import sliced
from onca.bag import Bag
from onca.link import Link, Slice


@dataclass(frozen=True, eq=False)
class Row:
    """A query against the entries of one link, on the CPU: all [n].

    score: float64, as the objective sees it; turned: whether it has the opposite sign of the similarity. present: not
    absent, not the query's own image, and chosen by all rules. index, label, age: -1 unknown.
    """

    link: Link
    role: str
    place: Tensor
    score: Tensor
    turned: Tensor
    present: Tensor
    index: Tensor
    label: Tensor
    age: Tensor

    @property
    def similarity(self) -> Tensor:
        return torch.where(self.turned, -self.score, self.score)


class Rows:
    """The rows of a bag. Where rules asked something of its entries, slices are made for whole blocks, because tests
    judge the blocks they were prepared on."""

    def __init__(self, bag: Bag) -> None:
        self.bag = bag
        asked = any(link.tests or link.turned for link in bag.links)
        self._parts = sliced.blocks(len(bag.query), bag.height if asked else 1)
        self._made: dict[int, list[Slice]] = {}  # start of a block -> its slices

    def of(self, query: int) -> list[Row]:
        """One row for each link."""
        part = self._parts[query // self._parts[0].stop]
        if part.start not in self._made:
            with torch.no_grad(), torch.autocast(self.bag.query.device.type, enabled=False):
                self._made[part.start] = self.bag.slices(part)
        return [self._row(piece, query - part.start) for piece in self._made[part.start]]

    def _row(self, piece: Slice, at: int) -> Row:
        score = piece.score[at].double().cpu()
        turned = torch.zeros_like(score, dtype=torch.bool)
        if piece.turned is not None:
            turned = piece.turned[at].cpu()
        there = piece.present()
        known = [_known(piece, name, at, len(score)) for name in ("index", "label", "age")]
        role = "batch" if piece.link.vectors is self.bag.query else piece.link.role
        return Row(piece.link, role, piece.place.cpu(), score, turned, there[at].cpu(), *known)


def _known(piece: Slice, name: str, at: int, count: int) -> Tensor:
    value = piece.entries(name) if piece.link.mix is None else None
    if value is None:
        return torch.full((count,), -1)
    return (value[0] if len(value) == 1 else value[at]).cpu().long()
