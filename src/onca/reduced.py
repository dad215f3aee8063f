"""Sums that torch makes: block by block, or at once over a few entries of each query's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from onca.link import Slice
from onca.sliced import Reducer, blocks, count, height, masked, reduce

if TYPE_CHECKING:
    from onca.bag import Bag


def log_sum_exp(bag: Bag, scale: float, slope: float) -> Tensor:
    """log sum exp(scale * score) over the present entries [B]; -inf, without gradient, where there are none.

    slope: what the gradient takes scale for (a tilt that is a constant).
    """
    piece = _few(bag)
    if piece is None:
        return reduce(bag, _log_sum_exp(scale, slope))
    score, constant = piece.score, piece.score.detach()
    weight = score * scale if slope == scale else constant * scale + (score - constant) * slope
    return weight.logsumexp(1)


def mean(bag: Bag, score: Callable[..., Tensor], parameters: Sequence[Tensor]) -> Tensor:
    """Mean over the present entries of `score(slice, *parameters [b,1])` [B]; 0 where there are none."""
    piece = _few(bag)
    if piece is None:
        return reduce(bag, _mean(score), parameters)
    return score(piece, *(parameter[:, None] for parameter in parameters)).mean(1).to(bag.dtype)


def _few(bag: Bag) -> Slice | None:
    """All queries against a few entries of their own, every one of them there, as positives nearly always are.

    Autograd goes through their scores: a walk, which finishes its gradients by itself, would take longer than the rest
    of a small loss. None where a walk is due: there is more than one block, or something to look at.
    """
    link, number = bag.links[0], len(bag.query)
    if len(bag.links) > 1 or not link.per_query or not link.length or link.rows is not None or link.mix is not None:
        return None
    tall = height(number, link.length * link.vectors.shape[2], bag.query.device)
    if len(blocks(number, tall)) != 1 or torch.is_autocast_enabled(bag.query.device.type):
        return None
    piece = bag.slices(slice(0, number), bag.tensors)[0]
    if not piece.whole:
        return None
    piece.score = piece.graph
    return piece


def _log_sum_exp(scale: float, slope: float) -> Reducer:
    def reducer(pieces: list[Slice], _: list[Tensor], slopes: bool) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        weights = [masked(piece, piece.score * scale, -torch.inf) for piece in pieces]
        nothing = weights[0].new_full((len(weights[0]),), -torch.inf)
        top = torch.stack([nothing, *(w.amax(1) for w in weights if w.shape[1])]).amax(0)
        reference = torch.where(torch.isneginf(top), 0, top)
        weights = [w.sub_(reference[:, None]).exp_() for w in weights]
        total = torch.stack([w.sum(1) for w in weights]).sum(0)
        share = torch.where(total > 0, slope / total, 0)
        return total.log() + reference, [w.mul_(share[:, None]) for w in weights] if slopes else [], []

    return reducer


def _mean(score: Callable[..., Tensor]) -> Reducer:
    def reducer(
        pieces: list[Slice], parameters: list[Tensor], slopes: bool
    ) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        present = [piece.present() for piece in pieces]
        number = torch.stack([count(there) for there in present]).sum(0)
        share = 1 / number.clamp_min(1).to(pieces[0].score.dtype)
        with torch.set_grad_enabled(slopes):
            leaves = [piece.leaf(slopes) for piece in pieces]
            own = [parameter.detach().requires_grad_(slopes) for parameter in parameters]
            columns = [parameter[:, None] for parameter in own]
            results = [
                torch.where(there, score(leaf, *columns), 0) for leaf, there in zip(leaves, present, strict=True)
            ]
            value = torch.stack([result.sum(1) for result in results]).sum(0) * share
        if not slopes:
            return value, [], []
        inputs = [*(leaf.score for leaf in leaves), *own]
        if not value.requires_grad:
            return value, [torch.zeros_like(x) for x in inputs[: len(leaves)]], [torch.zeros_like(x) for x in own]
        found = torch.autograd.grad(value, inputs, torch.ones_like(value), materialize_grads=True)
        return value.detach(), list(found[: len(leaves)]), list(found[len(leaves) :])

    return reducer


def log_add(one: Tensor, other: Tensor) -> Tensor:
    """log(exp(one) + exp(other)) [B], also where one of them or both are -inf, whose gradient would be nan."""
    none = torch.isneginf(one)
    return torch.where(none, other, torch.logaddexp(torch.where(none, 0, one), other))
