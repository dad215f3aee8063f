"""Device functions that the kernels share: a tile of scores, words of bits, order-preserving numbers.

Every kernel that scores does it here, with the same tile, steps and warps, so that the sample, the stream and the
second look see the same bits. A tile is `view.height` queries against the 64 keys of one word; `view` is an Operands
(plan.py).
"""

# mypy: ignore-errors

import triton
import triton.language as tl


@triton.jit
def rows_of(matrix, stride, row, end, start, view, width: tl.constexpr):
    """Dimensions start ... start + width of matrix rows [n,width], 0 past the ends."""
    d = start + tl.arange(0, width)
    inside = (row[:, None] < end) & (d[None, :] < view.dim)
    return tl.load(matrix + row[:, None].to(tl.int64) * stride + d[None, :], mask=inside, other=0.0)


@triton.jit
def first_rows(view, row):
    """What many tiles use of the queries: their first dimensions, of the first view."""
    return rows_of(view.query, view.query_stride, row * view.views, view.rows * view.views, 0, view, view.step)


@triton.jit
def product(view, first, row, column):
    """Query rows times key rows [height,64] in float32; `first` holds the query rows where one step takes them whole.

    Both sides are brought to float32 first if `view.wide`: where their types differ, and under the interpreter, whose
    product of bfloat16 multiplies the stored patterns.
    """
    total = tl.zeros((view.height, 64), tl.float32)
    for start in range(0, view.dim, view.step):
        a = first
        if view.dim > view.step:
            a = rows_of(view.query, view.query_stride, row, view.rows * view.views, start, view, view.step)
        b = rows_of(view.key, view.key_stride, column, view.columns, start, view, view.step)
        if view.wide:
            total = tl.dot(a.to(tl.float32), tl.trans(b.to(tl.float32)), total, input_precision="ieee")
        else:
            total = tl.dot(a, tl.trans(b), total)
    return total


@triton.jit
def factors(factor, index, end):
    """Factors at an index, 1 where there are none."""
    if factor is None:
        return tl.full(index.shape, 1.0, tl.float32)
    else:
        return tl.load(factor + index, mask=index < end, other=1.0)


@triton.jit
def scores(view, first, row, column):
    """Scores [height,64]; of several views of a query the largest."""
    by_key = factors(view.key_factor, column, view.columns)[None, :]
    end = view.rows * view.views
    at = row * view.views
    best = product(view, first, at, column) * by_key * factors(view.query_factor, at, end)[:, None]
    for number in tl.static_range(1, view.views):
        at = row * view.views + number
        other = rows_of(view.query, view.query_stride, at, end, 0, view, view.step)
        best = tl.maximum(
            best, product(view, other, at, column) * by_key * factors(view.query_factor, at, end)[:, None]
        )
    return best


@triton.jit
def blend(weight, rows, total, view):
    """total + weight times rows, in float32. Weights are rounded to the rows' type where that has the range for it."""
    if view.wide:  # three products of tf32 are as good as one of float32, which does not fit the registers
        return tl.dot(weight, rows.to(tl.float32), total, input_precision="tf32x3")
    elif rows.dtype == tl.float16:  # small weights would vanish in it; tf32 holds every float16 number
        return tl.dot(weight, rows.to(tl.float32), total, input_precision="tf32")
    else:
        return tl.dot(weight.to(rows.dtype), rows, total)


@triton.jit
def columns_of(word):
    return word * 64 + tl.arange(0, 64)


@triton.jit
def members(view, row, word):
    """Which of the 64 entries of a word are present, bool [n,64]."""
    there = (row[:, None] < view.rows) & (columns_of(word)[None, :] < view.columns)
    if view.present is None:
        return there
    else:
        held = tl.load(view.present + row.to(tl.int64) * view.words + word, mask=row < view.rows, other=0)
        return there & spelt(held)


@triton.jit
def spelt(words):
    """Words [n] as bool [n,64]; by halves of 32 bits, which take half the registers."""
    bit = tl.arange(0, 64)[None, :]
    half = tl.where(bit < 32, words.to(tl.int32)[:, None], (words >> 32).to(tl.int32)[:, None])
    return ((half >> (bit & 31)) & 1) != 0


@triton.jit
def packed(there):
    """Bool [n,64] as words [n]."""
    bit = tl.arange(0, 64)[None, :]
    one = there.to(tl.int32) << (bit & 31)
    low = tl.sum(tl.where(bit < 32, one, 0), 1).to(tl.uint32, bitcast=True)
    high = tl.sum(tl.where(bit < 32, 0, one), 1)
    return low.to(tl.int64) | (high.to(tl.int64) << 32)


@triton.jit
def earlier(there):
    """How many entries stand before each in its row [n,64]: a product with ones above the diagonal, exact in float16. A
    scan would take the tile out of the layout that products leave it in, which costs more."""
    bit = tl.arange(0, 64)
    return tl.dot(there.to(tl.float16), (bit[:, None] < bit[None, :]).to(tl.float16)).to(tl.int32)


@triton.jit
def ones(word):
    """How many bits of each int64 are set, int32: sums of neighbouring 2, 4 and 8 bits, then of all bytes."""
    word = word - ((word >> 1) & 0x5555555555555555)
    word = (word & 0x3333333333333333) + ((word >> 2) & 0x3333333333333333)
    word = (word + (word >> 4)) & 0x0F0F0F0F0F0F0F0F
    return ((word * 0x0101010101010101) >> 56).to(tl.int32)


@triton.jit
def ordered(score):
    """Float32 as int32 in the same order; both zeros are one number."""
    pattern = tl.where(score == 0, 0.0, score).to(tl.int32, bitcast=True)
    return pattern ^ ((pattern >> 31) & 0x7FFFFFFF)


@triton.jit
def unordered(number):
    """The float32 that `ordered` made a number of; numbers int32 or int64."""
    pattern = number.to(tl.int32)
    return (pattern ^ ((pattern >> 31) & 0x7FFFFFFF)).to(tl.float32, bitcast=True)


@triton.jit
def places(view, column, meant):
    """Places of columns, int64: the columns themselves where no others are given."""
    if view.place is None:
        return column.to(tl.int64)
    else:
        return tl.load(view.place + column, mask=meant, other=0)


@triton.jit
def span(view):
    """The smallest and the largest place."""
    if view.place is None:
        return tl.full((), 0, tl.int64), tl.full((), 0, tl.int64) + view.columns - 1
    else:
        return tl.load(view.span), tl.load(view.span + 1)
