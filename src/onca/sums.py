"""Sums that an engine makes over shared keys, as functions that autograd knows."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from onca.shared import Shared


def log_sum_exp(shared: Shared, scale: float, slope: float) -> Tensor:
    """log sum exp(scale * score) over the present entries [B]; -inf, without gradient, where there are none.

    slope: what the gradient takes scale for (a tilt that is a constant). Differentiable once, in queries, keys and
    their factors.
    """
    link = shared.links[0]  # keys that want a gradient stand alone
    value = _LogSumExp.apply(shared, scale, slope, shared.bag.query, shared.bag.factor, link.vectors, link.factor)
    assert isinstance(value, Tensor)
    return value


class _LogSumExp(torch.autograd.Function):
    """Gradients of queries are finished in the forward pass, so that backward only scales them and a memory may change
    in between. Where keys want one too, their products are made again in backward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        shared: Shared,
        scale: float,
        slope: float,
        query: Tensor,
        factor: Tensor | None,
        keys: Tensor,
        lengths: Tensor | None,
    ) -> Tensor:
        wanted = ctx.needs_input_grad[3:]
        own, again = any(wanted[:2]), any(wanted[2:])
        view = shared.view(shared.present)
        lse, toward, mean = shared.kernels.sums(view, scale, slopes=own and not again)
        ctx.shared, ctx.scale, ctx.ratio, ctx.again = shared, scale, slope / scale, again
        # Saved through autograd: changing a memory before backward is then an error, not a wrong number.
        ctx.save_for_backward(query, factor, lengths, *((lse, keys) if again else (toward, mean)))
        return lse

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        wanted, weight = ctx.needs_input_grad[3:], grad.float() * ctx.ratio
        query, factor, lengths, *rest = ctx.saved_tensors
        back = back_factor = None
        if ctx.again:
            shared, (lse, keys) = ctx.shared, rest
            view = shared.view(shared.present)
            if shared.mutual and any(wanted[:2]) and any(wanted[2:]):
                toward, mean = shared.kernels.mutual(view, ctx.scale, lse, weight)
                wanted = (*wanted[:2], False, False)  # what the rows get as keys is in it
            else:
                found = shared.kernels.spread(view, ctx.scale, lse, weight, any(wanted[:2]), any(wanted[2:]))
                toward, mean, back, back_factor = found.toward, found.mean, found.back, found.back_factor
            back = back.to(keys.dtype) if back is not None and wanted[2] else None
            back_factor = back_factor.to(lengths.dtype) if back_factor is not None and wanted[3] else None
        else:
            toward, mean = rest
            toward = None if toward is None else toward * weight[:, None]
            mean = None if mean is None else mean * weight
        by_factor = None
        if wanted[1] and mean is not None:  # the score is a multiple of the factor
            by_factor = torch.where(factor != 0, ctx.scale * mean / factor, 0).to(factor.dtype)
        by_query = toward.to(query.dtype) if wanted[0] and toward is not None else None
        return None, None, None, by_query, by_factor, back, back_factor


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
