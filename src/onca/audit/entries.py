"""A few queries of a bag against all its entries, laid open: what the checks of the audit look at.

Shapes: b queries that are looked at, n entries of a bag, P positives, B queries of the pool.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from onca import sliced
from onca.bag import Bag
from onca.link import Link, Slice
from onca.listed import pick

NUMBERS = 16  # of a row that its print is made of


@dataclass(frozen=True, eq=False)
class Entries:
    """score [b,n] float32 or better. there [b,n]: present and chosen. index, label [b,n], -1 unknown. beside [n]:
    another view of the query's own image that a host put there on purpose. prints [b,n]: equal for rows that are equal
    to the bit.
    """

    score: Tensor
    there: Tensor
    index: Tensor
    label: Tensor
    beside: Tensor
    prints: Tensor

    def same(self, name: str, own: Tensor) -> Tensor:
        """Entries that share a known index or label with their query [b]: [b,n]."""
        value: Tensor = getattr(self, name)
        return (value == own[:, None]) & (own[:, None] >= 0)


def sample(bag: Bag, count: int, step: int) -> Tensor:
    """Which queries of a bag are looked at in a step: about `count` of them, in ascending order.

    Whole blocks, because a rule's tests judge the very blocks of scores that they were prepared on.
    """
    size, parts = len(bag.query), sliced.blocks(len(bag.query), bag.height)
    if len(parts) == 1:
        every = -(-size // count)
        return torch.arange(step % every, size, every)
    wanted = min(len(parts), -(-count // bag.height))
    blocks = [parts[(step + place * len(parts) // wanted) % len(parts)] for place in range(wanted)]
    return torch.cat([torch.arange(part.start, part.stop) for part in sorted(blocks, key=lambda part: part.start)])


@torch.no_grad()
def entries(bag: Bag, rows: Tensor) -> Entries:
    """The entries of a bag for the queries `rows` [b] (ascending)."""
    found: list[list[Tensor]] = []
    for part in sliced.blocks(len(bag.query), bag.height):
        wanted = rows[(rows >= part.start) & (rows < part.stop)] - part.start
        if not len(wanted):
            continue
        with torch.autocast(bag.query.device.type, enabled=False):
            pieces = [piece for piece in bag.slices(part) if piece.link.length]
        there = wanted.to(bag.query.device)
        found.append([torch.cat(columns, 1) for columns in zip(*(_columns(p, there) for p in pieces), strict=True)])
    if not found or not found[0]:
        return _nothing(len(rows), bag.query)
    score, present, index, label, prints = (torch.cat(blocks) for blocks in zip(*found, strict=True))
    links = [link for link in bag.links if link.length]
    beside = torch.cat([torch.full((link.length,), link.role == "same image") for link in links])
    return Entries(score, present, index, label, beside.to(score.device), prints)


def _columns(piece: Slice, wanted: Tensor) -> tuple[Tensor, ...]:
    """What is known of one link's entries for some rows of a block: score, there, index, label, prints."""
    shape = piece.score.shape
    known = [piece.entries(name) for name in ("index", "label")]
    unknown = torch.full((1, 1), -1, device=piece.score.device)
    tables = [(unknown if value is None else value).expand(shape)[wanted] for value in known]
    return piece.score[wanted], piece.present().expand(shape)[wanted], *tables, _link_prints(piece)[wanted]


def _link_prints(piece: Slice) -> Tensor:
    """Prints [b,n] of one block of a link; of mixed points none are equal."""
    link, shape = piece.link, piece.score.shape
    if link.mix is not None:
        return torch.arange(shape.numel(), device=piece.score.device).view(shape) - shape.numel()
    own = link.vectors[piece.part] if link.per_query else link.vectors
    made = prints(own)
    if link.rows is not None:
        made = pick(made, link.rows[piece.part].clamp_min(0), link.per_query)
    return made.expand(shape)


def prints(vectors: Tensor) -> Tensor:
    """A whole number for each row [...,D]: rows that are equal to the bit have the same, others by no likely chance."""
    columns = torch.linspace(0, vectors.shape[-1] - 1, min(NUMBERS, vectors.shape[-1])).long()
    bits = vectors.detach()[..., columns.to(vectors.device)].float().contiguous().view(torch.int32).long()
    state = torch.zeros(bits.shape[:-1], dtype=torch.int64, device=bits.device)
    for number in bits.unbind(-1):
        state = (state ^ number) * -7046029254386353131 + 1442695040888963407
        state = state ^ (state >> 29)
    return state


def memory_links(bag: Bag) -> list[Link]:
    """The links of a bag that are of a memory which all queries share, with an entry or more."""
    shared = [link for link in bag.links if link.length and not link.per_query and link.mix is None]
    return [link for link in shared if link.role == "memory" and link.vectors is not bag.query]


def _nothing(count: int, like: Tensor) -> Entries:
    whole = torch.zeros(count, 0, dtype=torch.int64, device=like.device)
    return Entries(like.new_zeros(count, 0), whole.bool(), whole, whole, whole[:0].flatten().bool(), whole)
