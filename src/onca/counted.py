"""Entries that torch counts, ranks and lists, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from onca import sliced
from onca.link import Link, Score, Test
from onca.ranking import Threshold

if TYPE_CHECKING:
    from onca.bag import Bag

Ranks = int | Tensor | Callable[[Tensor], Tensor]
"""A number, [B], or a function from the numbers of entries [b] to [b] or [b,E]. 1 is the hard end."""

Sets = Iterable[tuple[slice, Tensor, Tensor]]
"""Block by block: which entries are meant [b,N], and their places [N]."""


def count(bag: Bag) -> Tensor:
    """Number of entries [B] int64."""
    if not any(link.tests for link in bag.links):  # only these must see the blocks that their bag was judged by
        bag = replace(bag, height=0)
    total = torch.zeros(len(bag.query), dtype=torch.int64, device=bag.query.device)
    for part, pieces in bag.blocks():
        for piece in pieces:
            total[part] += sliced.count(piece.present())
    return total


def threshold(bag: Bag, k: Ranks, score: Score) -> Threshold:
    """Score and place of the k-th entries: [B] or [B,E]."""
    scores, places, ties = [], [], False
    for part, pieces in bag.blocks():
        values = torch.cat([sliced.masked(piece, score(piece), -torch.inf) for piece in pieces], 1)
        number = torch.stack([sliced.count(piece.present()) for piece in pieces]).sum(0)
        rank = ranks(k, number, part)
        edges = rank[:, None] if rank.dim() == 1 else rank
        value, place, tied = sliced.edges(values, edges, number, torch.cat([p.place for p in pieces]))
        scores.append(value.reshape(rank.shape))
        places.append(place.reshape(rank.shape))
        ties = ties or tied
    end = max(link.end for link in bag.links)
    return Threshold(score, torch.cat(scores), torch.cat(places), ties, end)


def ranks(k: Ranks, number: Tensor, part: slice = slice(None)) -> Tensor:
    """Which ranks are asked for, of queries `part` with so many entries [b]: [b] or [b,E]."""
    return k(number) if callable(k) else k[part] if isinstance(k, Tensor) else torch.full_like(number, k)


def hits(bag: Bag, test: Test) -> Tensor:
    """For how many queries `test` holds, entry by entry: [N] int64, in the order of the links."""
    total = bag.query.new_zeros(len(bag), dtype=torch.int64)
    for _, there, _ in sets(bag, test):
        total += there.sum(0)
    return total


def sets(bag: Bag, test: Test) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Sets of the entries for which `test` holds."""
    for part, pieces in bag.blocks():
        there = torch.cat([piece.present() & test(piece) for piece in pieces], 1)
        yield part, there, torch.cat([piece.place for piece in pieces])


def rows(found: Sets, queries: int, most: int, device: torch.device) -> Tensor:
    """The first `most` places of the sets: [B,most] int64, -1 where there are fewer."""
    result = torch.full((queries, most), -1, dtype=torch.int64, device=device)
    for part, there, place in found:
        if not bool((place[1:] > place[:-1]).all()):
            place, order = place.sort()
            there = there[:, order]
        query, column = there.nonzero(as_tuple=True)
        number = sliced.count(there)
        rank = torch.arange(len(query), device=device) - (number.cumsum(0) - number)[query]
        kept = rank < most
        result[part][query[kept], rank[kept]] = place[column[kept]]
    return result


def signs(bag: Bag, places: Tensor) -> Tensor:
    """-1 for the entries at places [B,S] that were turned, else 1."""
    result = torch.ones_like(places)
    if not any(link.turned for link in bag.links):
        return result
    for part, pieces in bag.blocks():
        for piece in pieces:
            if piece.turned is not None and piece.link.length:
                columns, inside = piece.link.columns(places[part])
                result[part] = torch.where(inside & piece.turned.gather(1, columns), -1, result[part])
    return result


def listed(bag: Bag, test: Test, place: int) -> Link:
    """The only link of a bag cut down to the entries for which `test` holds, the first of them at `place`."""
    link = bag.links[0]
    if link.mix is not None:
        raise ValueError("take: mixed points stand in no list, and none can be made of them")
    most = max(1, int(bag.only(test).count().max()))
    places = bag.rows(test, most)  # [B,L], -1 where there are fewer
    columns, inside = link.columns(places)
    chosen = columns if link.rows is None else link.rows.gather(1, columns)
    turned: tuple[Test, ...] = ()
    if link.turned:
        sign = signs(bag, places)
        turned = (lambda piece: sign[piece.part] < 0,)
    return replace(link, rows=torch.where(inside, chosen, -1), tests=(), turned=turned, absent=None, place=place)
