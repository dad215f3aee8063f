"""Walking a bag block by block: no B x N matrix is ever held, only a few rows of one.

A block is some queries against all entries. All that is random access (order statistics) or a reduction (log-sum-exp,
mean) happens inside one block; its scores are made anew whenever they are needed, always by the same routine on the
same block, because a float32 score depends on the shape of the product that made it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from onca.engine import NotFinite

if TYPE_CHECKING:
    from onca.bag import Bag
    from onca.link import Slice

BLOCK_ELEMENTS = {"cpu": 1 << 20, "cuda": 1 << 27}  # scores in one block: 4 MB of float32 on a CPU, 512 MB on a GPU

_rows: ContextVar[int | None] = ContextVar("rows", default=None)


@contextmanager
def rows(count: int | None) -> Iterator[None]:
    """Sets how many queries are handled at once (None: as many as fit the block), for tests and for tight memory."""
    if count is not None and count < 1:
        raise ValueError(f"rows({count}): a block holds at least one query")
    token = _rows.set(count)
    try:
        yield
    finally:
        _rows.reset(token)


def height(queries: int, elements: int, device: torch.device) -> int:
    """How many queries share a block, when each of them needs `elements` numbers."""
    budget = BLOCK_ELEMENTS.get(device.type, BLOCK_ELEMENTS["cuda"])
    return max(1, min(queries, budget // max(1, elements)))


def blocks(queries: int, block_height: int) -> list[slice]:
    step = _rows.get() or block_height
    return [slice(start, min(start + step, queries)) for start in range(0, queries, step)]


Reducer = Callable[..., tuple[Tensor, list[Tensor], list[Tensor]]]
"""(slices, parameters [b], slopes wanted) -> value [b], its slopes by each score [b,n] and by each parameter [b].

The slopes are empty lists where they are not wanted."""


def reduce(bag: Bag, reducer: Reducer, parameters: Sequence[Tensor] = ()) -> Tensor:
    """One number per query [B], differentiable (once) in the bag's vectors and in the parameters [B]."""
    # Only tests must see the blocks that their bag was judged by; a sum without any takes as many queries as fit.
    asked = any(link.tests for link in bag.links)
    tall = bag.height if asked else height(len(bag.query), sum(link.elements for link in bag.links), bag.query.device)
    cut = blocks(len(bag.query), tall)
    value = _Reduce.apply(reducer, bag, cut, len(parameters), *parameters, *bag.tensors)
    assert isinstance(value, Tensor)
    return value


class _Reduce(torch.autograd.Function):
    """Gradients of what belongs to single queries are finished in the forward pass, so that backward only scales them
    and a memory may change in between. Keys that all queries share and that want a gradient are walked again.
    """

    @staticmethod
    def forward(ctx: Any, reducer: Reducer, bag: Bag, cut: list[slice], count: int, *tensors: Tensor | None) -> Tensor:
        wanted = [i for i, tensor in enumerate(tensors) if tensor is not None and ctx.needs_input_grad[i + 4]]
        own = [True] * count + bag.per_query
        again = any(not own[i] for i in wanted)
        value = torch.zeros(len(bag.query), dtype=bag.dtype, device=bag.query.device)
        grads = {i: torch.zeros_like(t) for i in wanted if not again and (t := tensors[i]) is not None}
        for part in cut:
            done, pieces = _block(reducer, bag, part, count, tensors, own, wanted if not again else [])
            value[part] = done
            for i, piece in pieces.items():
                grads[i][part] = piece
        ctx.reducer, ctx.bag, ctx.cut, ctx.count, ctx.own = reducer, bag, cut, count, own
        ctx.wanted, ctx.again, ctx.total = wanted, again, len(tensors)
        # Saved through autograd: changing a memory before backward is then an error, not a wrong number.
        ctx.save_for_backward(*(tensors if again else [grads[i] for i in wanted]))
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        result: list[Tensor | None] = [None] * ctx.total
        if not ctx.again:
            for i, own in zip(ctx.wanted, ctx.saved_tensors, strict=True):
                result[i] = own * grad.to(own.dtype).reshape(-1, *[1] * (own.dim() - 1))
            return (None, None, None, None, *result)
        tensors = ctx.saved_tensors
        for i in ctx.wanted:
            wide = torch.promote_types(tensors[i].dtype, torch.float32)  # a long sum in half precision would lose
            result[i] = torch.zeros_like(tensors[i], dtype=wide)
        for part in ctx.cut:
            _, pieces = _block(ctx.reducer, ctx.bag, part, ctx.count, tensors, ctx.own, ctx.wanted, grad[part])
            for i, piece in pieces.items():
                target = result[i]
                assert target is not None
                if ctx.own[i]:
                    target[part] = piece
                else:
                    target += piece
        narrow = [None if g is None else g.to(t.dtype) for g, t in zip(result, tensors, strict=True)]
        return (None, None, None, None, *narrow)


def _block(
    reducer: Reducer,
    bag: Bag,
    part: slice,
    count: int,
    tensors: Sequence[Tensor | None],
    own: list[bool],
    wanted: list[int],
    scale: Tensor | None = None,
) -> tuple[Tensor, dict[int, Tensor]]:
    """Value [b] of one block and the gradients of the wanted tensors, each times `scale` [b] where that is given."""
    leaves: list[Tensor | None] = []
    for i, tensor in enumerate(tensors):
        leaf = None if tensor is None else (tensor[part] if own[i] else tensor).detach()
        leaves.append(leaf.requires_grad_() if leaf is not None and i in wanted else leaf)
    with torch.autocast(bag.query.device.type, enabled=False), torch.set_grad_enabled(bool(wanted)):
        pieces = bag.slices(part, leaves[count:])
        with torch.no_grad():
            value, by_score, by_parameter = reducer(pieces, leaves[:count], bool(wanted))
            if scale is not None:
                by_score = [slope * scale[:, None] for slope in by_score]
                by_parameter = [slope * scale for slope in by_parameter]
        grads = {i: by_parameter[i] for i in wanted if i < count}
        keys = [i for i in wanted if i >= count]
        pairs = zip(pieces, by_score, strict=True) if keys else ()
        reached = [(piece.graph, slope) for piece, slope in pairs if piece.graph.requires_grad]
        if reached:  # of several links only some may want a gradient
            found = torch.autograd.grad(
                [graph for graph, _ in reached],
                [leaf for i, leaf in enumerate(leaves) if i in keys and leaf is not None],
                [slope for _, slope in reached],
                allow_unused=True,
            )
            grads |= {i: slope for i, slope in zip(keys, found, strict=True) if slope is not None}
    return value, grads


def masked(piece: Slice, values: Tensor, fill: float) -> Tensor:
    """`values` [b,n] with `fill` where an entry is not present."""
    if piece.whole:
        return values
    return torch.where(piece.present(), values, fill)


def count(there: Tensor) -> Tensor:
    """How many of each row hold: [b,n] bool -> [b] int64."""
    if there.device.type == "cpu":  # numpy counts bytes; torch widens every one of them to an int64 first
        return torch.from_numpy(np.count_nonzero(there.numpy(), axis=1))
    return there.sum(1)


def edges(values: Tensor, k: Tensor, number: Tensor, place: Tensor) -> tuple[Tensor, Tensor, bool]:
    """(score, place, whether scores tie there) of the k-th entry of each row in a stable descending order.

    Shapes: values [b,N] with -inf where nothing is, k [b,E], number of entries [b], place [N]. k = 0 (or an empty row)
    gives (inf, -1). Raises NotFinite where a score is nan: a comparison would quietly pass over it.
    """
    if values.shape[1] and bool(values.amax(1).isnan().any()):
        raise NotFinite("a score is not a number: queries or keys hold nan or inf")
    k = torch.minimum(k, number[:, None])
    threshold, places = values.new_full(k.shape, torch.inf), torch.full_like(k, -1)
    tied, in_order = False, bool((place[1:] > place[:-1]).all())
    for edge in range(k.shape[1]):
        some = k[:, edge] > 0
        if not bool(some.any()):
            continue
        t = kth_largest(values, k[:, edge].clamp_min(1))
        equal = values == t[:, None]
        ties = count(equal)
        first, tied = place[_first(equal)], tied or bool((ties > 1).any())
        several = ((ties > 1) & some if in_order else some & (ties > 0)).nonzero()[:, 0]
        if len(several):
            more = count(values[several] > t[several, None])
            first[several] = _place_of(equal[several], k[several, edge] - more, place, in_order)
        threshold[:, edge], places[:, edge] = t.masked_fill(~some, torch.inf), first.masked_fill(~some, -1)
    return threshold, places, tied


def _place_of(there: Tensor, needed: Tensor, place: Tensor, in_order: bool) -> Tensor:
    """The `needed`-th smallest place [b] of those entries of each row that hold: [b,n] bool -> [b]."""
    if not in_order:
        place, order = place.sort()
        there = there[:, order]
    return place[_first(there.cumsum(1, dtype=torch.int32) == needed[:, None])]


def _first(there: Tensor) -> Tensor:
    """Column of the first of each row that holds: [b,n] bool -> [b]; 0 where there is none."""
    if there.device.type == "cpu":
        return torch.from_numpy(there.numpy().argmax(1))
    return there.byte().argmax(1)


def kth_largest(values: Tensor, k: Tensor) -> Tensor:
    """The k-th largest of each row: values [b,N], k [b] from 1 to N -> [b] in the dtype of values."""
    if values.device.type != "cpu":
        return values.topk(int(k.max()), dim=1).values.gather(1, k[:, None] - 1)[:, 0]
    numbers, places = values.numpy(), (values.shape[1] - k).numpy()
    if (places == places[0]).all():  # one rank at a time: asked for several, numpy leaves its fast way
        return torch.from_numpy(np.partition(numbers, places[0], axis=1)[:, places[0]].copy())
    found = [np.partition(row, place)[place] for row, place in zip(numbers, places, strict=True)]
    return torch.from_numpy(np.stack(found))
