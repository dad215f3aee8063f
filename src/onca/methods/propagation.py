"""The two terms of InvP (2010.11694), on sets as in the paper and on lists as in the authors' code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from onca.bag import Bag
from onca.identity import reached, walks
from onca.link import Test
from onca.objectives import infonce, negative_mass, positive_mass
from onca.pool import Pool
from onca.predicate import Both, Not
from onca.reduced import log_add
from onca.select import farthest, nearest

EPSILON = 1e-7  # of the official code, inside both logarithms


def background(pool: Pool, bag: Bag, count: int) -> Test:
    """The `count` nearest of a bag. Where a bank will want the nearest of all its rows, they are among these."""
    found, near, link = bag.threshold(count), pool.nearby, bag.links[0]
    whole = near is not None and bag.query is near.query and link.vectors is near.keys and not link.tests
    if near is not None and whole and found.chosen is not None and count > near.k:  # the own row may be one of them
        near.among, near.known = found.chosen.sets[0], found.chosen.known
    return found.test()


def walk_ends(pool: Pool, steps: int, distinct: bool) -> Bag:
    """The rows of the images where walks end, each as often as walks do; distinct: once, and without the own one.

    Rules that acted before have no say in it.
    """
    assert pool.neighbours is not None and pool.index is not None
    ends = walks(pool.neighbours, pool.index, steps)
    if distinct:
        ends = ends.sort(1).values
        again = torch.cat([ends[:, :1] < 0, ends[:, 1:] == ends[:, :-1]], 1)
        ends = torch.where(again | (ends == pool.index[:, None]), -1, ends)
    return _rows(pool, ends)


def _rows(pool: Pool, images: Tensor) -> Bag:
    """The rows of images [B,L] of the bank, -1 is none."""
    link = replace(pool.negatives.links[0], rows=images, absent=None, tests=())
    return Bag(pool.negatives.query, (link,), factor=pool.negatives.factor)


def _where_reached(pool: Pool, hard: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """loss(log sum over the positives [B]), and 0 for a query that reaches nothing; note `unreached`: their share."""
    none = torch.isneginf(hard.detach())
    pool.note("unreached", none.double().mean().item())
    return torch.where(none, 0, loss(torch.where(none, 0, hard)))


# The paper: sets.


def set_instance(pool: Pool, near: Test) -> Tensor:
    """L_ins [B]: InfoNCE of the own row against the nearest others."""
    return infonce(replace(pool, negatives=pool.negatives.only(near)))


def propagated(pool: Pool, steps: int, hardest: int, near: Test) -> Tensor:
    """L_inv [B] = -log(sum over N_h / sum over B), B = N_h and N_M without N.

    N: the images reached, N_h: the least similar of them, N_M: the nearest rows.
    """
    found = walk_ends(pool, steps, distinct=True)
    hard = found.only(farthest(hardest)(pool, found)).lse(pool.scale)
    inside = reached(steps)(pool, pool.negatives)
    rest = pool.negatives.only(Both(near, Not(inside)))
    mass = negative_mass(replace(pool, negatives=rest, notes={}))
    return _where_reached(pool, hard, lambda mine: torch.logaddexp(mass - mine, mass.new_zeros(())))


# The authors' code: lists.


def everyone(pool: Pool) -> Bag:
    """All rows of the bank, the own one too."""
    return replace(pool.negatives, query_index=None)


def denominators(pool: Pool, near: Test) -> tuple[Tensor, Tensor]:
    """(log D, log(D - e_ii)), where D is the sum over the nearest rows of the whole bank [B]; e_ii is taken off whether
    it is in D or not.

    One sum over keys, the one without the own row: taking that off D would lose the last digits.
    """
    assert pool.index is not None
    others = pool.negatives.only(near)
    inside = everyone(pool).only(near).count() > others.count()
    rest, own = others.lse(pool.scale), _rows(pool, pool.index[:, None]).lse(pool.scale)
    outside = torch.where(inside, -torch.inf, positive_mass(pool) - rest)
    return torch.where(inside, log_add(rest, own), rest), rest + torch.log1p(-outside.exp())


def listed_instance(pool: Pool, total: Tensor) -> Tensor:
    """L_ins [B] = -log(e_ii / D + 1e-7); total: log D."""
    return -torch.log((positive_mass(pool) - total).exp() + EPSILON)


def listed(pool: Pool, steps: int, hardest: int, others: Tensor, hard_pos: bool = True) -> Tensor:
    """L_inv [B] = -log(sum over hard / (D - e_ii) + 1e-7); may be negative. others: log(D - e_ii), what was reached
    included.

    hard: the least similar entries of the list of all walks, which holds an image as often as walks end in it, and the
    own one where walks lead back. hard_pos=False takes the most similar entries.
    """
    ends = walk_ends(pool, steps, distinct=False)
    chosen = (farthest if hard_pos else nearest)(hardest)(pool, ends)
    return _where_reached(
        pool, ends.only(chosen).lse(pool.scale), lambda mine: -torch.log((mine - others).exp() + EPSILON)
    )
