"""Kernels of sums over sets: log-sum-exp with its slopes by queries, and the slopes by keys.

Exponentials are powers of two, of scores times `scale`, which holds 1 / ln 2.
"""

# mypy: ignore-errors

import triton
import triton.language as tl

from onca.engine.gpu.tiles import blend, columns_of, factors, first_rows, members, product, rows_of, scores


@triton.jit
def sums_kernel(view, scale, partial, splits, WIDTH: tl.constexpr, SLOPES: tl.constexpr):
    """partial.top, .total, .mean [splits,rows] and .slope [splits,rows,dim]: the largest exponent of a split's entries,
    and relative to it the sums of the weights, of weight times score, of weight times key. The third axis of programs
    goes over WIDTH dimensions of the slope."""
    row = tl.program_id(0) * view.height + tl.arange(0, view.height)
    split = tl.program_id(1)
    start = tl.program_id(2) * WIDTH
    top = tl.full((view.height,), float("-inf"), tl.float32)
    total, mean = tl.zeros((view.height,), tl.float32), tl.zeros((view.height,), tl.float32)
    slope = tl.zeros((view.height, WIDTH), tl.float32)
    first = first_rows(view, row)
    for word in range(split, view.words, splits):
        column = columns_of(word)
        score = scores(view, first, row, column)
        exponent = tl.where(members(view, row, word), score * scale, float("-inf"))
        higher = tl.maximum(top, tl.max(exponent, 1))
        reference = tl.where(higher == float("-inf"), 0.0, higher)
        weight, shrink = tl.exp2(exponent - reference[:, None]), tl.exp2(top - reference)
        top, total = higher, total * shrink + tl.sum(weight, 1)
        if SLOPES:
            mean = mean * shrink + tl.sum(weight * score, 1)
            rows = rows_of(view.key, view.key_stride, column, view.columns, start, view, WIDTH)
            weight *= factors(view.key_factor, column, view.columns)[None, :]
            slope = blend(weight, rows, slope * shrink[:, None], view)
    at, inside = split * view.rows + row.to(tl.int64), row < view.rows
    tl.store(partial.top + at, top, mask=inside)
    tl.store(partial.total + at, total, mask=inside)
    if SLOPES:
        d = start + tl.arange(0, WIDTH)
        tl.store(partial.mean + at, mean, mask=inside)
        kept = inside[:, None] & (d[None, :] < view.dim)
        tl.store(partial.slope + at[:, None] * view.dim + d[None, :], slope, mask=kept)


@triton.jit
def merge_kernel(view, scale, partial, splits, lse, slope, mean, WIDTH: tl.constexpr, SLOPES: tl.constexpr):
    """The splits put together, always in the same order. One program a row."""
    row = tl.program_id(0)
    top = tl.full((), float("-inf"), tl.float32)
    for split in range(splits):
        top = tl.maximum(top, tl.load(partial.top + split * view.rows + row))
    reference = tl.where(top == float("-inf"), 0.0, top)
    d = tl.arange(0, WIDTH)
    total, by_score, by_row = 0.0, 0.0, tl.zeros((WIDTH,), tl.float32)
    for split in range(splits):
        at = split * view.rows + row
        share = tl.exp2(tl.load(partial.top + at) - reference)
        total += share * tl.load(partial.total + at)
        if SLOPES:
            by_score += share * tl.load(partial.mean + at)
            rows = partial.slope + tl.cast(at, tl.int64) * view.dim + d
            by_row += share * tl.load(rows, mask=d < view.dim, other=0.0)
    something = total > 0
    tl.store(lse + row, tl.where(something, (top + tl.log2(total)) * 0.6931471805599453, float("-inf")))
    if SLOPES:
        whole = tl.where(something, total, 1.0)
        tl.store(mean + row, by_score / whole)
        factor = scale * 0.6931471805599453 / whole
        if view.query_factor is not None:
            factor *= tl.load(view.query_factor + row)
        tl.store(slope + row.to(tl.int64) * view.dim + d, by_row * factor, mask=d < view.dim)


@triton.jit
def back_kernel(view, scale, lse, weight, back, back_factor, WIDTH: tl.constexpr):
    """back [columns,dim], back_factor [columns]: slopes of the sum of weight [rows] times lse [rows], here divided by
    ln 2, by key rows and by their factors. One program a word of keys and WIDTH dimensions."""
    word = tl.program_id(0)
    start = tl.program_id(1) * WIDTH
    column = columns_of(word)
    by_key = factors(view.key_factor, column, view.columns)
    slope, by_factor = tl.zeros((64, WIDTH), tl.float32), tl.zeros((64,), tl.float32)
    for begin in range(0, view.rows, view.height):
        row = begin + tl.arange(0, view.height)
        inside = row < view.rows
        found = product(view, first_rows(view, row), row, column)
        by_query = factors(view.query_factor, row, view.rows)[:, None]
        exponent = found * by_key[None, :] * by_query * scale - tl.load(lse + row, mask=inside, other=0.0)[:, None]
        pull = tl.where(members(view, row, word), tl.exp2(exponent), 0.0)
        pull *= tl.load(weight + row, mask=inside, other=0.0)[:, None] * by_query
        by_factor += tl.sum(pull * found, 0)
        rows = rows_of(view.query, view.query_stride, row, view.rows, start, view, WIDTH)
        slope = blend(tl.trans(pull), rows, slope, view)
    if start == 0:
        tl.store(back_factor + column, by_factor, mask=column < view.columns)
    d = start + tl.arange(0, WIDTH)
    kept = (column < view.columns)[:, None] & (d[None, :] < view.dim)
    at = column[:, None].to(tl.int64) * view.dim + d[None, :]
    tl.store(back + at, slope * by_key[:, None], mask=kept)
