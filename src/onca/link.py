"""Links and slices: entries of one kind, and a block of queries against them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

Test = Callable[["Slice"], Tensor]  # is an entry meant? [b,n] bool (or what broadcasts to it)
Score = Callable[["Slice"], Tensor]  # how difficult is an entry? [b,n], larger is harder

WIDTH = 8192  # keys of half precision that are widened at a time


@dataclass(frozen=True, eq=False)
class Mix:
    """Points between two rows of shared vectors, or between a row and the query: share * first + (1 - share) * second,
    brought to length one (MoCHi, 2010.01028). They are made block by block and never all held.

    first [B,S]: rows, -1 is absent; second [B,S]: rows, -1 is the query; share [B,S]. attached: whether gradient flows
    into the query through the points.
    """

    first: Tensor
    second: Tensor
    share: Tensor
    attached: bool = False

    def points(self, query: Tensor, vectors: Tensor, part: slice) -> Tensor:
        """[b,S,D] for a block of queries [b,D]."""
        first, second, share = self.first[part], self.second[part], self.share[part, :, None].to(query.dtype)
        own = (query if self.attached else query.detach())[:, None]
        other = torch.where(second[:, :, None] < 0, own, vectors[second.clamp_min(0)].to(query.dtype))
        mixed = share * vectors[first.clamp_min(0)].to(query.dtype) + (1 - share) * other
        return torch.nn.functional.normalize(mixed, dim=2)


@dataclass(frozen=True, eq=False)
class Link:
    """Entries of one kind, in order. A bag is a chain of links: keys of different kinds are never concatenated.

    vectors: [N,D] for all queries, or [B,N,D] for each; with `rows` [B,L], lists of rows of shared vectors (repeats
    count, -1 is absent); with `mix`, points between such rows. factor: 1 / length of each vector ([N] or [B,N]), None
    where rows are taken as they are. label, index, age, view: [N] or [B,N], -1 unknown. absent: [N] bool. place: of the
    first entry in the whole bag, or of each [N].
    """

    vectors: Tensor
    rows: Tensor | None = None
    mix: Mix | None = None
    factor: Tensor | None = None
    label: Tensor | None = None
    index: Tensor | None = None
    age: Tensor | None = None
    view: Tensor | None = None
    absent: Tensor | None = None
    role: str = "memory"  # "memory", "batch", "same image" or "mixed"
    place: int | Tensor = 0
    tests: tuple[Test, ...] = ()

    @property
    def per_query(self) -> bool:
        return self.vectors.dim() == 3

    @property
    def length(self) -> int:
        listed = self.rows if self.mix is None else self.mix.first
        return self.vectors.shape[-2] if listed is None else listed.shape[1]

    @property
    def start(self) -> int:
        """The smallest place."""
        return self.place if isinstance(self.place, int) else int(self.place.min())

    @property
    def end(self) -> int:
        """One more than the largest place."""
        return self.place + self.length if isinstance(self.place, int) else int(self.place.max()) + 1

    @property
    def elements(self) -> int:
        """Numbers that one query's block needs."""
        return self.length * (1 if self.rows is None and self.mix is None else self.vectors.shape[1])

    def part(self, start: int, stop: int) -> Link:
        """The entries start to stop - 1 of shared vectors."""

        def cut(value: Tensor | None) -> Tensor | None:
            return None if value is None else value[..., start:stop]

        return replace(
            self,
            vectors=self.vectors[start:stop],
            factor=cut(self.factor),
            label=cut(self.label),
            index=cut(self.index),
            age=cut(self.age),
            view=cut(self.view),
            absent=cut(self.absent),
            place=self.place[start:stop] if isinstance(self.place, Tensor) else self.place + start,
        )

    def up_to(self, place: int) -> Link:
        """The entries before a place, in a link whose places rise or fall by one."""
        if isinstance(self.place, Tensor):
            return self.part(int((self.place >= place).sum()), self.length)
        return self.part(0, min(max(place - self.place, 0), self.length))

    def scores(
        self, query: Tensor, factor: Tensor | None, vectors: Tensor, lengths: Tensor | None, part: slice
    ) -> Tensor:
        """[b,n] for a block: query [b,D], factor [b]; vectors, lengths: the link's own (block rows if per query)."""
        dtype = torch.promote_types(torch.promote_types(query.dtype, vectors.dtype), torch.float32)
        if self.mix is not None:
            vectors, lengths = self.mix.points(query.to(dtype), vectors, part), None
        elif self.rows is not None:
            chosen = self.rows[part].clamp_min(0)
            vectors, lengths = vectors[chosen], None if lengths is None else lengths[chosen]
        if vectors.dim() == 3:
            result = torch.bmm(vectors.to(dtype), query.to(dtype)[:, :, None])[:, :, 0]
        elif vectors.dtype == dtype:
            result = query.to(dtype) @ vectors.T
        else:
            result = torch.cat([query.to(dtype) @ piece.to(dtype).T for piece in torch.split(vectors, WIDTH)], 1)
        if lengths is not None:
            result = result * lengths
        return result if factor is None else result * factor[:, None]


@dataclass(eq=False)
class Slice:
    """A block of queries against the entries of one link: what a test is put to."""

    link: Link
    query_index: Tensor | None  # [b]
    part: slice
    graph: Tensor  # scores [b,n], with their graph where gradients are wanted
    rescore: Callable[[Tensor, Tensor | None], Tensor]  # (other queries [b,D], 1 / length [b]) -> scores [b,n]

    @cached_property
    def score(self) -> Tensor:
        return self.graph.detach()

    def leaf(self, wanted: bool) -> Slice:
        """The same slice, its scores as the start of a new graph where gradients are wanted."""
        other = replace(self)
        other.__dict__["score"] = self.score.detach().requires_grad_(wanted)
        other.__dict__["_present"] = self._present
        return other

    @property
    def place(self) -> Tensor:
        """Places of the entries in the whole bag [n]."""
        place = self.link.place
        if isinstance(place, Tensor):
            return place
        return torch.arange(place, place + self.link.length, device=self.graph.device)

    def entries(self, name: str) -> Tensor | None:
        """label, index, age or view of the entries: [1,n] or [b,n], None where the link does not know."""
        value: Tensor | None = getattr(self.link, name)
        if value is None:
            return None
        if self.link.rows is not None and value.dim() == 1:
            rows = self.link.rows[self.part]
            return torch.where(rows < 0, -1, value[rows.clamp_min(0)])
        return value[self.part] if value.dim() == 2 else value[None]

    @property
    def whole(self) -> bool:
        """Whether every entry is present for every query, known without looking."""
        link = self.link
        masks = link.index is not None and self.query_index is not None and link.role in ("memory", "batch")
        listed = link.rows is not None or link.mix is not None
        return not (masks or listed or link.tests or link.absent is not None)

    def present(self) -> Tensor:
        """Which entries are there [b,n]: not absent, not the query's own image, and chosen by all rules so far."""
        return self._present

    @cached_property
    def _present(self) -> Tensor:
        link = self.link
        there = (
            torch.ones_like(self.graph, dtype=torch.bool)
            if link.absent is None
            else ~link.absent.expand(self.graph.shape)
        )
        listed = link.rows if link.mix is None else link.mix.first
        if listed is not None:
            there = there & (listed[self.part] >= 0)
        index = self.entries("index")
        if index is not None and self.query_index is not None and link.role in ("memory", "batch"):
            own = self.query_index[:, None]
            there = there & (index != torch.where(own < 0, -2, own))  # -1 is unknown and equals nothing
        for test in link.tests:
            there = there & test(self)
        return there
