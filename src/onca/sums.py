"""Sums that an engine makes over shared keys, as functions that autograd knows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from onca.engine.kernels import Sums
from onca.shared import Shared

if TYPE_CHECKING:
    from onca.bag import Bag


@dataclass(frozen=True, eq=False)
class Even:
    """The shift by which weights exp(tilt * score + shift) have the mean one over the entries of a bag.

    It is a sum over keys itself, and so is made when it is asked for: a sum over the same entries makes it in passing.
    attached: whether it sends gradient to the scores.
    """

    bag: Bag
    tilt: float
    attached: bool
    known: dict[bool, Tensor] = field(default_factory=dict, repr=False)  # with gradient or without

    @property
    def asked(self) -> tuple[float, float]:
        """(scale, slope) of the sum that it takes, as in `log_sum_exp`."""
        return self.tilt, self.tilt if self.attached else 0.0

    def over(self, bag: Bag) -> bool:
        """Whether the entries of `bag` are those of its own, with the same scores."""
        names = ("query", "factor", "query_index", "links")
        return all(getattr(bag, name) is getattr(self.bag, name) for name in names)

    def of(self, mass: Tensor) -> Tensor:
        """[B], for the log sum of exp(tilt * score) over the entries [B]."""
        number = self.bag.count()
        shift = number.clamp_min(1).to(mass.dtype).log() - torch.where(number > 0, mass, 0)
        return shift if self.attached else shift.detach()

    def value(self) -> Tensor:
        """[B]"""
        sloped = self.attached and torch.is_grad_enabled()
        if sloped not in self.known:
            with torch.set_grad_enabled(sloped):
                self.known[sloped] = self.of(self.bag.lse(self.tilt))
        return self.known[sloped]


def value_of(shift: Tensor | Even) -> Tensor:
    """[B]"""
    return shift.value() if isinstance(shift, Even) else shift


def log_sum_exp(shared: Shared, asked: Sequence[tuple[float, float]]) -> list[Tensor]:
    """log sum exp(scale * score) over the present entries [B], for each (scale, slope), all by the same products; -inf,
    without gradient, where there are none.

    slope: what the gradient takes scale for (a tilt that is a constant), 0 only behind others. Differentiable once, in
    queries, keys and their factors.
    """
    link = shared.links[0]  # keys that want a gradient stand alone
    values = _LogSumExp.apply(shared, asked, shared.bag.query, shared.bag.factor, link.vectors, link.factor)
    return list(values.unbind(0))


class _LogSumExp(torch.autograd.Function):
    """Gradients of queries are finished in the forward pass, so that backward only scales them and a memory may change
    in between. Where keys want one too, their products are made again in backward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        shared: Shared,
        asked: Sequence[tuple[float, float]],
        query: Tensor,
        factor: Tensor | None,
        keys: Tensor,
        lengths: Tensor | None,
    ) -> Tensor:
        wanted = ctx.needs_input_grad[2:]
        own, again = any(wanted[:2]), any(wanted[2:])
        scales, sloped = [scale for scale, _ in asked], sum(slope != 0 for _, slope in asked)
        view = shared.view(shared.present)
        if own and again and shared.mutual:
            found = Sums(torch.stack([shared.kernels.mutual_sums(view, scale) for scale in scales]), None, None)
        else:
            found = shared.kernels.sums(view, scales, sloped if own and not again else 0)
        ctx.shared, ctx.asked, ctx.again = shared if again else None, asked[:sloped], again
        # Saved through autograd: changing a memory before backward is then an error, not a wrong number.
        kept = (found.lse, keys) if again else (found.toward, found.mean if wanted[1] else None)
        ctx.save_for_backward(query, factor, lengths, *kept)
        return found.lse

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wanted, (query, factor, lengths, *rest) = ctx.needs_input_grad[2:], ctx.saved_tensors
        weights = [row.float() * (slope / scale) for row, (scale, slope) in zip(grad, ctx.asked, strict=False)]
        parts = [
            _again(ctx.shared, scale, rest[0][place], weight, wanted)
            if ctx.again
            else _finished(scale, weight, *(None if slopes is None else slopes[place] for slopes in rest))
            for place, ((scale, _), weight) in enumerate(zip(ctx.asked, weights, strict=True))
        ]
        toward, moment, back, back_factor = (_total(part) for part in zip(*parts, strict=True))
        by_factor = None
        if wanted[1] and moment is not None:  # the score is a multiple of the factor
            by_factor = torch.where(factor != 0, moment / factor, 0).to(factor.dtype)
        by_query = toward.to(query.dtype) if wanted[0] and toward is not None else None
        back = back.to(rest[1].dtype) if back is not None and wanted[2] else None
        back_factor = back_factor.to(lengths.dtype) if back_factor is not None and wanted[3] else None
        return None, None, by_query, by_factor, back, back_factor


Slopes = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]
"""By the query rows [B,D], by the logarithm of their factors [B], by the keys [N,D], by their factors [N]."""


def _finished(scale: float, weight: Tensor, toward: Tensor | None, mean: Tensor | None) -> Slopes:
    """What `Kernels.sums` found, times weight [B]."""
    moment = None if mean is None else mean * weight * scale
    return None if toward is None else toward * weight[:, None], moment, None, None


def _again(shared: Shared, scale: float, lse: Tensor, weight: Tensor, wanted: Sequence[bool]) -> Slopes:
    """Of the sum of weight [B] times lse [B]; what rows get as keys is in `toward` where they are the queries."""
    view, own, its = shared.view(shared.present), any(wanted[:2]), any(wanted[2:])
    if own and its and shared.mutual:
        toward, mean = shared.kernels.mutual(view, scale, lse, weight)
        return toward, scale * mean, None, None
    found = shared.kernels.spread(view, scale, lse, weight, own, its)
    return found.toward, None if found.mean is None else scale * found.mean, found.back, found.back_factor


def _total(values: Sequence[Tensor | None]) -> Tensor | None:
    there = [value for value in values if value is not None]
    return sum(there[1:], start=there[0]) if there else None


def mean_hinge(shared: Shared, offset: Tensor) -> Tensor:
    """Mean of max(0, score + offset [B]) over the present entries [B]; 0 where there are none. Differentiable once, in
    queries, their factors and offset; keys are constants."""
    value = _MeanHinge.apply(shared, offset, shared.bag.query, shared.bag.factor)
    assert isinstance(value, Tensor)
    return value


class _MeanHinge(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, shared: Shared, offset: Tensor, query: Tensor, factor: Tensor | None) -> Tensor:
        view, number = shared.view(shared.present), shared.count().clamp_min(1)
        found = shared.kernels.hinge(view, offset, slopes=any(ctx.needs_input_grad[2:]))
        ctx.save_for_backward(query, factor, found.toward, found.mass, found.active, number)
        return found.total / number

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        query, factor, toward, mass, active, number = ctx.saved_tensors
        share, (_, by_offset, by_query, by_factor) = grad / number, ctx.needs_input_grad
        return (
            None,
            share * active if by_offset else None,
            (toward * share[:, None]).to(query.dtype) if by_query else None,
            torch.where(factor != 0, mass * share / factor, 0).to(factor.dtype) if by_factor else None,
        )
