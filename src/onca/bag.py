"""Bags: for each query, entries to compare it with. Everything that goes over keys is a walk of a bag.

Shapes, at line ends everywhere: B queries, b queries of one block, N entries, n entries of one link, P positives,
S support views or mixed points, D dimensions, L entries of a row list, E edges of a window.
Scores are cosines (or plain products where rows are taken as they are); temperature enters as
`scale` = 1 / temperature.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from onca import counted, reduced, sliced
from onca.counted import Ranks
from onca.engine import note
from onca.link import Link, Score, Slice, Test
from onca.mix import Mix
from onca.ranking import Hinge, KnownScore, Threshold, cosine_score
from onca.shared import divide, whole
from onca.sums import Even, log_sum_exp, mean_hinge, value_of


@dataclass(frozen=True, eq=False)
class Bag:
    """Weighted entries for each query: an entry that is present counts exp(tilt * score + shift) times.

    query [B,D]; factor: 1 / length of each query [B], None where rows are taken as they are; query_index [B], -1
    unknown; shifts, added up: [B] each. height: queries of one block; bags whose tests meet share it.
    """

    query: Tensor
    links: tuple[Link, ...]
    factor: Tensor | None = None
    query_index: Tensor | None = None
    tilt: float = 0.0
    shifts: tuple[Tensor | Even, ...] = ()
    attached: bool = True  # whether the tilt sends gradient to the scores
    height: int = field(default=0)
    memo: dict[Any, Any] = field(default_factory=dict, repr=False)  # what engines found out of the same keys

    def __post_init__(self) -> None:
        if not self.height:
            elements = sum(link.elements for link in self.links)
            object.__setattr__(self, "height", sliced.height(len(self.query), elements, self.query.device))

    def __len__(self) -> int:
        return sum(link.length for link in self.links)

    @property
    def shift(self) -> Tensor | None:
        """[B]; None where entries weigh exp(tilt * score)."""
        values = [value_of(shift) for shift in self.shifts]
        return sum(values[1:], start=values[0]) if values else None

    @property
    def dtype(self) -> torch.dtype:
        kinds = [self.query.dtype, *(link.vectors.dtype for link in self.links)]
        return torch.float64 if torch.float64 in kinds else torch.float32

    # What gradients may be asked for, in a fixed order, and whether each belongs to single queries.

    @property
    def tensors(self) -> list[Tensor | None]:
        return [self.query, self.factor, *(t for link in self.links for t in (link.vectors, link.factor))]

    @property
    def per_query(self) -> list[bool]:
        return [True, True, *(own for link in self.links for own in (link.per_query, link.per_query))]

    def slices(self, part: slice, tensors: Sequence[Tensor | None] | None = None) -> list[Slice]:
        """The links against the queries of one block. `tensors`: as above, block rows where they belong to queries."""
        if tensors is None:
            tensors = [
                t[part] if own and t is not None else t for t, own in zip(self.tensors, self.per_query, strict=True)
            ]
        query, factor = tensors[0], tensors[1]
        assert query is not None
        own = None if self.query_index is None else self.query_index[part]
        return [
            self._slice(link, part, own, query, factor, vectors, lengths)
            for link, vectors, lengths in zip(self.links, tensors[2::2], tensors[3::2], strict=True)
            if vectors is not None
        ]

    def _slice(
        self,
        link: Link,
        part: slice,
        own: Tensor | None,
        query: Tensor,
        factor: Tensor | None,
        vectors: Tensor,
        lengths: Tensor | None,
    ) -> Slice:
        def rescore(other: Tensor, other_factor: Tensor | None) -> Tensor:
            return link.scores(
                other, other_factor, vectors.detach(), None if lengths is None else lengths.detach(), part
            )

        piece = Slice(link, own, part, link.scores(query, factor, vectors, lengths, part), rescore)
        for test in link.turned:
            piece = piece.turn(test)
        return piece

    def blocks(self) -> Iterator[tuple[slice, list[Slice]]]:
        """All slices without gradients, block by block, made as they are asked for."""
        for part in sliced.blocks(len(self.query), self.height):
            with torch.no_grad(), torch.autocast(self.query.device.type, enabled=False):
                pieces = self.slices(part)
            yield part, pieces

    # What a rule makes of a bag.

    def only(self, test: Test) -> Bag:
        """The entries for which `test` holds; the keys stay where they are."""
        return replace(self, links=tuple(replace(link, tests=(*link.tests, test)) for link in self.links))

    def first(self, length: int) -> Bag:
        """The entries with the smallest `length` places."""
        links = [link for link in self.links if link.length]
        end = min((link.start for link in links), default=0) + length
        return replace(self, links=tuple(link.up_to(end) for link in links if link.start < end))

    def tilted(self, tilt: float, shift: Tensor | Even | None, attached: bool = True) -> Bag:
        """Every entry weighs exp(tilt * score + shift) times what it did. shift [B]."""
        more = () if shift is None else (shift,)
        return replace(self, tilt=self.tilt + tilt, shifts=(*self.shifts, *more), attached=attached)

    @property
    def plain(self) -> Bag:
        """The same entries, each counting once."""
        return replace(self, tilt=0.0, shifts=(), attached=True)

    def plus(self, bag: Bag) -> Bag:
        """This bag's entries, then the other's; nothing is copied. The queries must be the same."""
        return replace(self, links=self.links + bag.links, height=min(self.height, bag.height))

    def turned(self, test: Test) -> Bag:
        """The entries for which `test` holds count with the opposite sign of their score, as their mirror images do.

        What was asked of the entries before sees the scores that they had then, and what comes after the new ones.
        """
        return replace(self, links=tuple(link.turn(test) for link in self.links))

    def take(self, test: Test) -> Bag:
        """The entries for which `test` holds, as row lists: a small bag of its own, which forgets the others."""
        links, place = [], 0
        for link in self.links:
            links.append(counted.listed(replace(self, links=(link,)), test, place) if link.length else link)
            place += links[-1].length
        return replace(self, links=tuple(links), height=0)

    def mixed(self, first: Tensor, second: Tensor | None, share: Tensor, attached: bool = False) -> Bag:
        """Points share * first + (1 - share) * second of unit length (MoCHi, 2010.01028), as a bag of their own.

        first [B,S]: places of entries, -1 is absent; second [B,S]: places, or None for the query; share [B,S]. The
        entries are constants, and so is the query inside a point unless `attached`.
        """
        own = self.query.to(self.dtype) if self.factor is None else self.query * self.factor[:, None]
        sign = 1 if second is None else counted.signs(self, second)
        ends = share * counted.signs(self, first), (1 - share) * sign
        mix = Mix(tuple(link for link in self.links if link.length), first, second, *ends)
        link = Link((own if attached else own.detach())[:, None], mix=mix, role="mixed")
        return Bag(self.query, (link,), factor=self.factor, query_index=self.query_index)

    # The six walks: the only places that go over keys. Engines serve links of shared keys, torch all others.

    def lse(self, scale: float) -> Tensor:
        """log sum of exp(scale * score) over the entries, each with its weight: [B]; -inf where there are none."""
        asked = [(scale + self.tilt, scale + self.tilt if self.attached else scale)]
        even = next((x for x in self.shifts if isinstance(x, Even) and x.over(self)), None)
        total, *mass = self._log_sums(asked if even is None else [*asked, even.asked])
        for shift in self.shifts:
            total = total + (even.of(mass[0]) if even is not None and shift is even else value_of(shift))
        return total

    def _log_sums(self, asked: Sequence[tuple[float, float]]) -> list[Tensor]:
        """log sum exp(scale * score) over the entries [B], for each (scale, what gradients take it for)."""
        served, rest = divide(self, "lse") if all(scale for scale, _ in asked) else ([], self)
        found = [log_sum_exp(shared, asked) for shared in served]
        if rest is not None:
            found.append([reduced.log_sum_exp(rest, *each) for each in asked])
        total = found[0]
        for more in found[1:]:
            total = [reduced.log_add(*pair) for pair in zip(total, more, strict=True)]
        return total

    def mean(self, score: Callable[..., Tensor] | None = None, *parameters: Tensor) -> Tensor:
        """Mean of `score(slice, *parameters)` over the entries (weights apart): [B]; 0 where there are none.

        score: the cosine when not given; differentiable in `slice.score` and in the parameters ([B], given as [b,1]).
        """
        shared = whole(self, "mean") if isinstance(score, Hinge) and not self._keys_learn else None
        if shared is not None and isinstance(score, Hinge):
            return mean_hinge(shared, score.margin - parameters[0])
        if not isinstance(score, Hinge):
            note("mean", "torch")
        return reduced.mean(self, score or cosine_score, parameters)

    @property
    def _keys_learn(self) -> bool:
        return any(t is not None and t.requires_grad for t in self.tensors[2:])

    def count(self) -> Tensor:
        """Number of entries [B] int64."""
        served, rest = divide(self, "count")
        total = torch.zeros(len(self.query), dtype=torch.int64, device=self.query.device)
        for shared in served:
            total += shared.count()
        return total if rest is None else total + counted.count(rest)

    def kth(self, k: Ranks, score: Score | None = None) -> tuple[Tensor, Tensor]:
        """Score and place of the k-th entry from the hard end: k = 1 is the hardest, ties go to the smaller place.

        k: a number, [B], or a function from the numbers of entries [b] to [b] or [b,E]. Clipped to the number of
        entries; k = 0 gives (inf, -1): `score > t or (score == t and place <= p)` chooses exactly the k hardest.
        Gives score and place of the shape of k: [B] or [B,E].
        """
        found = self.threshold(k, score)
        return found.score, found.place

    def threshold(self, k: Ranks, score: Score | None = None) -> Threshold:
        """kth, and with it the tests that it stands for."""
        score = score or cosine_score
        shared = whole(self, "kth") if isinstance(score, KnownScore) else None
        if shared is not None and isinstance(score, KnownScore):
            found = shared.threshold(lambda number: counted.ranks(k, number), score)
            if found is not None:
                return found
        return counted.threshold(self, k, score)

    def hits(self, test: Test) -> Tensor:
        """For how many queries `test` holds, entry by entry: [N] int64, in the order of the links."""
        shared = whole(self.only(test), "hits")
        if shared is not None:
            hits = shared.hits()
            return torch.cat([hits[start : start + link.length] for link, start in shared.spans()])
        return counted.hits(self, test)

    def rows(self, test: Test, most: int) -> Tensor:
        """Places of the first `most` entries for which `test` holds: [B,most] int64, -1 where there are fewer."""
        shared = whole(self.only(test), "rows")
        if shared is not None and shared.in_order:
            columns = shared.listed(most)
            return torch.where(columns < 0, -1, columns + shared.offset)
        sets = counted.sets(self, test) if shared is None else shared.sets()
        return counted.rows(sets, len(self.query), most, self.query.device)
