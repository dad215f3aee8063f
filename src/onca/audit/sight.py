"""One look at one pool: what the host put there, what the method left of it, and what pushes whom.

Shapes: b queries that are looked at, n entries of a bag, m entries of host and reserve, B queries of the pool.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor
from torch.nn.functional import pad

from onca.audit.entries import Entries, entries, sample
from onca.bag import Bag
from onca.link import Link
from onca.method import chain, total
from onca.objectives import Method
from onca.part import Shorthand
from onca.pool import Pool
from onca.rules import Rule

TINY = 1e-3  # the length that a query has along its own further dimension, see `pushes`


@dataclass(frozen=True, eq=False)
class Sight:
    """A pool of a step and the queries `rows` [b] of it that are looked at; duplicates [I]: group of each image."""

    pool: Pool
    method: Method
    step: int
    epoch: float | None
    rows: Tensor
    duplicates: Tensor | None = None

    @cached_property
    def host(self) -> Entries:
        """The negatives as the host made them."""
        return entries(self.pool.negatives, self.rows)

    @cached_property
    def left_pool(self) -> Pool:
        with torch.no_grad(), warnings.catch_warnings(action="ignore"):
            return left_of(self.method, replace(self.pool, notes={}))

    @cached_property
    def left(self) -> Entries:
        """The negatives that the method's rules left: what the loss is made of."""
        return entries(self.left_pool.negatives, self.rows)

    @cached_property
    def positives(self) -> Entries:
        return entries(self.pool.positives, self.rows)

    @cached_property
    def index(self) -> Tensor:
        return self._of(self.pool.index)

    @cached_property
    def label(self) -> Tensor:
        return self._of(self.pool.label)

    def _of(self, known: Tensor | None) -> Tensor:
        place = self.pool.negatives.query.device
        rows = self.rows.to(place)
        return torch.full((len(rows),), -1, device=place) if known is None else known[rows]

    def duplicate(self, of: Entries) -> Tensor | None:
        """Which entries are near-duplicates of another image than the query's [b,n]; None where groups are unknown."""
        if self.duplicates is None or not bool((self.index >= 0).any()):
            return None
        group = self.duplicates.to(of.index.device)
        last = int(torch.cat([of.index.flatten(), self.index]).max())
        if last >= len(group):
            raise ValueError(f"duplicates has {len(group)} rows, one for each image, and none for image {last}")
        mine = torch.where(self.index >= 0, group[self.index.clamp_min(0)], -1)[:, None]
        theirs = torch.where(of.index >= 0, group[of.index.clamp_min(0)], -2)
        return (mine == theirs) & (of.index != self.index[:, None])

    @cached_property
    def weight(self) -> Tensor:
        """Share of the negatives' mass, the sum of exp(score / temperature), that each entry left has [b,n]."""
        scale = self.pool.scale + self.left_pool.negatives.tilt
        return torch.where(self.left.there, self.left.score.double() * scale, -torch.inf).softmax(1).nan_to_num(0)

    @cached_property
    def pushes(self) -> tuple[Entries, Tensor] | None:
        """The entries of host and reserve, and how much the loss of a query grows with the score of each [b,m].

        Negative for those that attract. None where the method cannot be differentiated by them.
        """
        return _pushes(self) if len(self.pool.positives) else None


def sight(pool: Pool, method: Method, step: int, epoch: float | None, queries: int, duplicates: Tensor | None) -> Sight:
    """A look at about `queries` of a pool's queries; nothing is computed before it is asked for."""
    known = pool.duplicates if duplicates is None else duplicates
    return Sight(pool, method, step, epoch, sample(pool.negatives, queries, step), known)


def left_of(method: Method, pool: Pool) -> Pool:
    """The pool as the method's objective sees it. Of a `total`, as the term with the largest coefficient does."""
    while isinstance(method, Shorthand):
        method = method.meaning()  # type: ignore[assignment]  # a shorthand that is a method stands for a method
    if isinstance(method, total):
        terms = [(abs(float(pool.number(coefficient, method))), term) for coefficient, term in method.terms]
        return left_of(max(terms, key=lambda pair: pair[0])[1], pool)
    if not isinstance(method, chain):
        return pool
    for part in method.steps[:-1]:
        assert isinstance(part, Rule)
        pool = part(pool)
    last = method.steps[-1]
    return left_of(last, pool) if isinstance(last, Method) else pool


@torch.enable_grad()
def _pushes(look: Sight) -> tuple[Entries, Tensor] | None:
    """Every query of the sample gets a dimension of its own, in which it has length TINY and each entry a leaf of 0:
    the slope of all losses by a leaf is, but for TINY, the slope of one query's loss by one score. One backward pass
    serves all queries, and rules see the batch as it was. (`onca.ledger.slopes` tells of added entries and of single
    terms as well, query by query: for 64 queries and 4,096 keys that takes eight times as long.)"""
    pool, count = look.pool, len(look.rows)
    own = pool.negatives.query.new_zeros(len(pool), count)
    own[look.rows, torch.arange(count)] = TINY
    query = torch.cat([pool.negatives.query.detach(), own], 1).requires_grad_()  # every score then has a graph
    bags = [pool.negatives] if pool.reserve is None else [pool.negatives, pool.reserve]
    links = [link for bag in bags for link in bag.links]
    if any(link.mix is not None for link in links):
        return None
    leaves = [link.vectors.new_zeros(*link.vectors.shape[:-1], count).requires_grad_() for link in links]
    wide = [
        replace(link, vectors=torch.cat([link.vectors.detach(), leaf], -1), factor=_still(link.factor))
        for link, leaf in zip(links, leaves, strict=True)
    ]
    cut = len(pool.negatives.links)
    widened = replace(
        pool,
        positives=_with(pool.positives, query, [_padded(link, count) for link in pool.positives.links]),
        negatives=_with(pool.negatives, query, wide[:cut]),
        reserve=None if pool.reserve is None else _with(pool.reserve, query, wide[cut:]),
        support=None if pool.support is None else pad(pool.support.detach(), (0, count)),
        notes={},
    )
    with warnings.catch_warnings(action="ignore"):
        loss = look.method(widened).sum()
    if not loss.requires_grad:
        return None
    slopes = torch.autograd.grad(loss, leaves, materialize_grads=True)
    every = entries(pool.negatives if pool.reserve is None else pool.negatives.plus(pool.reserve), look.rows)
    columns = [_slopes(link, slope, look.rows) for link, slope in zip(links, slopes, strict=True) if link.length]
    found = torch.cat(columns, 1) if columns else every.score
    factor = pool.negatives.factor
    return every, found if factor is None else found / factor.detach()[look.rows, None].clamp_min(1e-12)


def _with(bag: Bag, query: Tensor, links: list[Link]) -> Bag:
    """The same bag of other vectors; what engines found out of the old ones is forgotten."""
    return replace(bag, query=query, factor=_still(bag.factor), links=tuple(links), memo={})


def _padded(link: Link, count: int) -> Link:
    return replace(link, vectors=pad(link.vectors.detach(), (0, count)), factor=_still(link.factor))


def _still(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.detach()


def _slopes(link: Link, slope: Tensor, rows: Tensor) -> Tensor:
    """By each score of one link [b,n], out of the slopes by its leaves [N,b] or [B,N,b]."""
    place = torch.arange(len(rows), device=slope.device)
    found = slope[rows, :, place] if link.per_query else slope.T  # [b,N]
    if link.factor is not None:
        factor = link.factor.detach()
        found = found / (factor[rows] if link.per_query else factor).clamp_min(1e-12)
    if link.rows is not None:  # an entry that is listed twice has half of its row's slope
        listed = link.rows[rows]
        times = torch.zeros_like(found).scatter_add_(1, listed.clamp_min(0), (listed >= 0).to(found.dtype))
        found = (found / times.clamp_min(1)).gather(1, listed.clamp_min(0)) * (listed >= 0)
    return found / TINY
