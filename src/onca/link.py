"""Links and slices: entries of one kind, and a block of queries against them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from onca.listed import ListedScores, pick
from onca.mix import Mix

Test = Callable[["Slice"], Tensor]  # is an entry meant? [b,n] bool (or what broadcasts to it)
Score = Callable[["Slice"], Tensor]  # how difficult is an entry? [b,n], larger is harder

WIDTH = 8192  # keys of half precision that are widened at a time


@dataclass(frozen=True, eq=False)
class Link:
    """Entries of one kind, in order. A bag is a chain of links: keys of different kinds are never concatenated.

    vectors: [N,D] for all queries, or [B,N,D] for each; with `rows` [B,L], lists of rows of them (repeats count, -1 is
    absent); with `mix`, points between entries of other links, and vectors [B,1,D] the end that is the query. factor:
    1 / length of each vector ([N] or [B,N]), None where rows are taken as they are. label, index, age, view: [N] or
    [B,N], -1 unknown. absent: [N] bool. place: of the first entry in the whole bag, or of each [N]. tests: what rules
    have asked of the entries. turned: tests whose entries count with the opposite sign of their score; `tests` see the
    scores as they were when each was asked.
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
    turned: tuple[Test, ...] = ()

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
    def places(self) -> Tensor:
        """Places of the entries in the whole bag [n]."""
        if isinstance(self.place, Tensor):
            return self.place
        return torch.arange(self.place, self.place + self.length, device=self.vectors.device)

    @property
    def elements(self) -> int:
        """Numbers that one query's block needs."""
        copied = self.mix is not None or (self.rows is not None and self.per_query)
        return self.length * (self.vectors.shape[-1] if copied else 1)

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

    def turn(self, test: Test) -> Link:
        """The same entries; those for which `test` holds count with the opposite sign of their score."""

        def as_before(asked: Test) -> Test:
            return lambda piece: asked(piece if piece.before is None else piece.before)

        return replace(self, turned=(*self.turned, test), tests=tuple(as_before(asked) for asked in self.tests))

    def columns(self, places: Tensor) -> tuple[Tensor, Tensor]:
        """Which entries of this link stand at some places of the bag, and whether they are of this link at all."""
        if isinstance(self.place, int):
            columns = places - self.place
            return columns.clamp(0, self.length - 1), (columns >= 0) & (columns < self.length)
        order = self.place.argsort()
        columns = order[torch.searchsorted(self.place[order], places).clamp_max(self.length - 1)]
        return columns, self.place[columns] == places

    def entries(self, columns: Tensor, part: slice, dtype: torch.dtype) -> Tensor:
        """The entries [b,S,D] in columns [b,S], constants, divided by their length where it is known."""
        if self.rows is not None:
            columns = self.rows[part].gather(1, columns).clamp_min(0)
        own = self.per_query
        found = pick(self.vectors.detach()[part] if own else self.vectors.detach(), columns, own).to(dtype)
        if self.factor is None:
            return found
        factor = self.factor.detach()
        return found * pick(factor[part] if own else factor, columns, own).to(dtype)[:, :, None]

    def scores(
        self, query: Tensor, factor: Tensor | None, vectors: Tensor, lengths: Tensor | None, part: slice
    ) -> Tensor:
        """[b,n] for a block: query [b,D], factor [b]; vectors, lengths: the link's own (block rows if per query)."""
        dtype = torch.promote_types(torch.promote_types(query.dtype, vectors.dtype), torch.float32)
        listed = None if self.rows is None else self.rows[part].clamp_min(0)
        if listed is not None and lengths is not None:
            lengths = pick(lengths, listed, self.per_query)
        if listed is not None and self.per_query:
            vectors, listed = pick(vectors, listed, True), None
        if listed is not None:
            result: Tensor = ListedScores.apply(query.to(dtype), vectors, listed)
        elif self.mix is not None:
            result = self.mix.scores(query.to(dtype), vectors[:, 0].to(dtype), part)
        elif vectors.dim() == 3 and vectors.shape[1] == 1:  # bmm goes through a library, ten times as long
            result = torch.linalg.vecdot(vectors.to(dtype), query.to(dtype)[:, None])
        elif vectors.dim() == 3:
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
    before: Slice | None = None  # the same slice before the last turn
    turned: Tensor | None = None  # which entries count with the opposite sign of the score that they had at first [b,n]

    @cached_property
    def score(self) -> Tensor:
        return self.graph.detach()

    def leaf(self, wanted: bool) -> Slice:
        """The same slice, its scores as the start of a new graph where gradients are wanted."""
        other = replace(self)
        other.__dict__["score"] = self.score.detach().requires_grad_(wanted)
        other.__dict__["_present"] = self._present
        return other

    def turn(self, test: Test) -> Slice:
        """The same slice, the score of each entry for which `test` holds with the opposite sign."""
        chosen = test(self).expand(self.graph.shape)

        def rescore(other: Tensor, factor: Tensor | None) -> Tensor:
            scores = self.rescore(other, factor)
            return torch.where(chosen, -scores, scores)

        graph = torch.where(chosen, -self.graph, self.graph)
        turned = chosen if self.turned is None else self.turned ^ chosen
        return replace(self, graph=graph, rescore=rescore, before=self, turned=turned)

    @property
    def place(self) -> Tensor:
        """Places of the entries in the whole bag [n]."""
        return self.link.places

    def entries(self, name: str) -> Tensor | None:
        """label, index, age or view of the entries: [1,n] or [b,n], None where the link does not know."""
        value: Tensor | None = getattr(self.link, name)
        if value is None:
            return None
        own = value.dim() == 2
        value = value[self.part] if own else value
        if self.link.rows is None:
            return value if own else value[None]
        rows = self.link.rows[self.part]
        return torch.where(rows < 0, -1, pick(value, rows.clamp_min(0), own))

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
        there = torch.ones_like(self.graph, dtype=torch.bool)
        listed = link.rows if link.mix is None else link.mix.first
        if listed is not None:
            there = listed[self.part] >= 0
        if link.absent is not None:
            there = there & ~(link.absent if link.rows is None else link.absent[link.rows[self.part].clamp_min(0)])
        index = self.entries("index")
        if index is not None and self.query_index is not None and link.role in ("memory", "batch"):
            own = self.query_index[:, None]
            there = there & (index != torch.where(own < 0, -2, own))  # -1 is unknown and equals nothing
        for test in link.tests:
            there = there & test(self)
        return there
