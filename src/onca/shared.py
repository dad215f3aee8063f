"""Links whose keys all queries share, as an engine takes them: one tensor of keys, and which of its rows are there."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from onca import sliced
from onca.engine import Kernels, View, chosen, note
from onca.engine.kernels import Known, pack, unpack
from onca.link import Link
from onca.predicate import bits_of, known_of
from onca.ranking import Chosen, KnownScore, Threshold

if TYPE_CHECKING:
    from onca.bag import Bag


@dataclass(frozen=True, eq=False)
class Shared:
    """All queries of a bag against links that are parts of one tensor.

    keys [N,D]: the tensor's rows from the first to the last that belongs to a link; columns count them. starts: the
    column at which each link begins. A ring buffer gives two links, the later one of which comes first in the tensor.
    present: bits int64 [B,W] of the entries that are there, None is all. known: scores of theirs that were made when
    they were chosen.
    """

    kernels: Kernels
    bag: Bag
    links: tuple[Link, ...]
    starts: tuple[int, ...]
    keys: Tensor
    present: Tensor | None = None
    known: Known | None = None

    def view(self, present: Tensor | None) -> View:
        bag, place = self.bag, None if self.in_order else self.places
        factors = [None if f is None else f.detach() for f in (bag.factor, self.links[0].factor)]
        return View(bag.query.detach(), self.keys, factors[0], factors[1], present, place, self.known)

    @property
    def in_order(self) -> bool:
        return len(self.links) == 1 and isinstance(self.links[0].place, int)

    @property
    def offset(self) -> int:
        """What is added to a column for its place, where the view knows none."""
        return self.links[0].start if self.in_order else 0

    @property
    def places(self) -> Tensor:
        """Places of the columns in the bag [N], -1 where nothing is."""
        return self._filled([link.places for link in self.links])

    def values(self, name: str) -> Tensor | None:
        """label or index of the columns [N], -1 unknown; None where a link has none, or one for each query."""
        known = [getattr(link, name) for link in self.links]
        return None if any(value is None or value.dim() != 1 for value in known) else self._filled(known)

    def _filled(self, values: Sequence[Tensor]) -> Tensor:
        if len(values) == 1:
            return values[0]
        found = torch.full((len(self.keys),), -1, device=self.keys.device)
        for value, start in zip(values, self.starts, strict=True):
            found[start : start + len(value)] = value
        return found

    def kept(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """What was found out before for the same columns, by this bag or one it was made of; or else `make()`."""
        known = [(start, x.place, x.index, x.label) for x, start in zip(self.links, self.starts, strict=True)]
        same = tuple(x if isinstance(x, int) else id(x) for each in known for x in each)
        at = (key, self.keys.data_ptr(), len(self.keys), same)
        if at not in self.bag.memo:
            self.bag.memo[at] = make(), known, self.bag.query_index  # held, so that no other tensor takes over their id
        found: Tensor = self.bag.memo[at][0]
        return found

    def spans(self) -> list[tuple[Link, int]]:
        """The links and the columns at which they begin, in the order of the bag."""
        return list(zip(self.links, self.starts, strict=True))

    @property
    def mutual(self) -> bool:
        """Whether the queries are the keys, and each is present for whom it finds present itself (SimCLR)."""
        bag, link = self.bag, self.links[0]
        pairs = [(bag.query, link.vectors), (bag.factor, link.factor)]
        if len(self.links) > 1 or link.tests or link.absent is not None or not all(_one(*pair) for pair in pairs):
            return False
        masked = bag.query_index is not None and link.index is not None
        return not masked or _one(bag.query_index, link.index) or torch.equal(bag.query_index, link.index)  # type: ignore[arg-type]

    # Walks of the present entries.

    def count(self) -> Tensor:
        """[B] int64."""
        if self.present is None:
            return torch.full((len(self.bag.query),), len(self.keys), device=self.keys.device)
        return self.kernels.count(self.present, len(self.keys))

    def hits(self) -> Tensor:
        """Queries that have each column: [N] int64."""
        if self.present is None:
            return torch.full((len(self.keys),), len(self.bag.query), device=self.keys.device)
        return self.kernels.hits(self.present, len(self.keys))

    def listed(self, most: int) -> Tensor:
        """Columns of the first `most` entries of each query: [B,most], -1 where there are fewer."""
        bits = self.span(self.links[0]) if self.present is None else self.present
        return self.kernels.listed(bits.expand(len(self.bag.query), -1).contiguous(), len(self.keys), most)

    def sets(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Block by block: which columns are present [b,N], and their places [N]."""
        places, keys = self.places, len(self.keys)
        for part in sliced.blocks(len(self.bag.query), sliced.height(len(self.bag.query), keys, self.keys.device)):
            bits = self.span(self.links[0]) if self.present is None else self.present[part]
            yield part, unpack(bits, keys).expand(part.stop - part.start, -1), places

    def threshold(self, wanted: Callable[[Tensor], Tensor], score: KnownScore) -> Threshold | None:
        """The wanted ranks (numbers of entries [B] -> [B] or [B,E]) by `score`; None: the engine does not know it."""
        view = score.view(self, self.present)
        if view is None:
            return None
        number = self.count()
        rank = wanted(number)
        found = self.kernels.select(view, rank[:, None] if rank.dim() == 1 else rank)
        place = found.place if not self.offset else torch.where(found.place < 0, -1, found.place + self.offset)
        end, sets = max(link.end for link in self.links), Chosen(self, found.chosen, found.known)
        return Threshold(score, found.score.reshape(rank.shape), place.reshape(rank.shape), found.tied, end, sets)

    # What is there.

    def span(self, link: Link, there: Tensor | bool = True) -> Tensor:
        """The bits [1,W] of a link's columns, or of those of them for which `there` [n] holds."""
        columns = torch.zeros(len(self.keys), dtype=torch.bool, device=self.keys.device)
        start = self.starts[self.links.index(link)]
        columns[start : start + link.length] = there
        return pack(columns[None])

    def asked(self, link: Link) -> tuple[list[Tensor], str]:
        """The bits of all that is asked of a link's entries; or why they cannot be told, in words."""
        found = [] if link.absent is None else [~self.span(link, link.absent)]
        own = self.bag.query_index
        if own is not None and link.index is not None and link.role in ("memory", "batch"):
            index = self.values("index")
            if index is None:
                return [], "indices of each query's own"
            found.append(self.kept(("own", id(own)), lambda: self.kernels.equal(own, index).bitwise_not_()))
        for test in link.tests:
            bits = bits_of(test, self)
            if bits is None:
                return [], "a test that only torch can put"
            found.append(bits)
        return found, ""


def _one(one: Tensor | None, other: Tensor | None) -> bool:
    """Whether two tensors are the same numbers in the same memory (or neither is there)."""
    if one is None or other is None:
        return one is other
    return one.data_ptr() == other.data_ptr() and one.shape == other.shape and one.stride() == other.stride()


def divide(bag: Bag, walk: str) -> tuple[list[Shared], Bag | None]:
    """What engines serve of a bag, and a bag of the rest, None where all is served."""
    served: list[Shared] = []
    for links in _together(bag):
        shared, reason = _join(bag, links)
        served += [shared] if shared else []
        note(walk, shared.kernels.name if shared else f"torch: {reason}")
    taken = [link for shared in served for link in shared.links]
    left = tuple(link for link in bag.links if link not in taken)
    return served, replace(bag, links=left) if left or not served else None


def whole(bag: Bag, walk: str) -> Shared | None:
    """The bag as an engine serves it, where it serves all of it at once."""
    served, rest = divide(bag, walk)
    return served[0] if len(served) == 1 and (rest is None or not len(rest)) else None


def _together(bag: Bag) -> list[list[Link]]:
    """Links that have entries, together those of one tensor of which the same is asked (the two spans of a ring)."""
    groups: dict[object, list[Link]] = {}
    for link in bag.links:
        v = link.vectors
        alone = link.factor is not None or v.requires_grad or link.per_query or link.rows is not None
        kind = link if alone else (v.untyped_storage().data_ptr(), v.dtype, v.stride(), *map(id, link.tests))
        if link.length:
            fits = all(_apart(link.vectors, other.vectors) for other in groups.get(kind, []))
            groups.setdefault(kind if fits else link, []).append(link)
    return list(groups.values())


def _apart(one: Tensor, other: Tensor) -> bool:
    """Whether two parts of one tensor, of equal strides, are rows of it that do not meet (not columns, nor shared)."""
    stride, distance = int(one.stride(0)), int(other.storage_offset()) - int(one.storage_offset())
    if stride <= 0 or distance % stride:
        return False
    rows = distance // stride
    return rows >= len(one) or -rows >= len(other)


def _join(bag: Bag, links: list[Link]) -> tuple[Shared | None, str]:
    """Those of the links that an engine serves, as one; or None and the reason, in words."""
    if any(link.per_query or link.rows is not None or link.mix is not None for link in links):
        return None, "entries of each query's own"
    if any(link.turned for link in links):
        return None, "scores with the opposite sign"
    first = links[0].vectors.detach()
    kernels, reason = chosen(bag.query, first)
    if kernels is None:
        return None, reason
    starts, keys = _spanned(links, first)
    shared = Shared(kernels, bag, tuple(links), starts, keys)
    told = [shared.asked(link) for link in links]
    can = [link for link, (_, reason) in zip(links, told, strict=True) if not reason]
    if len(can) < len(links):
        return _join(bag, can) if can else (None, told[0][1])
    present = _present(shared, [bits for bits, _ in told])
    known = next((known for link in links for test in link.tests if (known := known_of(test, shared))), None)
    return (shared if present is None else replace(shared, present=present, known=known)), ""


def _spanned(links: list[Link], first: Tensor) -> tuple[tuple[int, ...], Tensor]:
    """At which row each link begins, and the rows of their tensor from the first to the last that belongs to one."""
    if len(links) == 1:
        return (0,), first
    offsets = [int(link.vectors.storage_offset()) for link in links]
    stride, least = max(1, int(first.stride(0))), min(offsets)
    starts = tuple((offset - least) // stride for offset in offsets)
    rows = max(start + link.length for start, link in zip(starts, links, strict=True))
    return starts, first.as_strided((rows, first.shape[1]), first.stride(), least)


def _present(shared: Shared, told: list[list[Tensor]]) -> Tensor | None:
    """The entries of all links for which all holds that is asked of them: [B,W], None is all."""
    if len(told) == 1 and not told[0]:
        return None
    total: Tensor | None = None
    for link, bits in zip(shared.links, told, strict=True):
        everything = len(shared.links) == 1 and len(shared.keys) % 64 == 0  # no bit that belongs to no entry
        there = _all(bits if everything else [*bits, shared.span(link)])
        total = there if total is None else total | there
    assert total is not None
    return total.expand(len(shared.bag.query), -1).contiguous()


def _all(bits: Sequence[Tensor]) -> Tensor:
    """The entries for which all of the bits [B,W] or [1,W] hold."""
    if len(bits) == 1:
        return bits[0]
    wide = sorted(bits, key=len, reverse=True)
    total = wide[0] & wide[1]
    for each in wide[2:]:
        total &= each  # in place: new memory costs more than the operation
    return total
