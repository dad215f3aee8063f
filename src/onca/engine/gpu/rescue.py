"""The kernel for rows whose bracket or list failed: slower, and right whatever the scores are."""

# mypy: ignore-errors

import triton
import triton.language as tl

from onca.engine.gpu.tiles import columns_of, first_rows, members, ordered, packed, places, scores, span, unordered


@triton.jit
def among(view, first, row, word, limit, last):
    """Which present entries of a word score more than `limit`, or the same at a place up to `last`; both int64 [n]."""
    column = columns_of(word)
    value = ordered(scores(view, first, row, column)).to(tl.int64)
    stands = places(view, column, column < view.columns)[None, :] <= last[:, None]
    return members(view, row, word) & ((value > limit[:, None]) | ((value == limit[:, None]) & stands))


@triton.jit
def tally(view, first, row, limit, last):
    """How many entries of each row are `among` [n]."""
    total = tl.zeros((view.height,), tl.int32)
    for word in range(view.words):
        total += tl.sum(among(view, first, row, word, limit, last).to(tl.int32), 1)
    return total


@triton.jit
def rescue_kernel(view, lists, rank, found):
    """Ranks by bisection over all scores, made anew each time. Blocks without a failed row end at once, so that the
    host need not know of them. One program a block of rows and edge."""
    row = tl.program_id(0) * view.height + tl.arange(0, view.height)
    edge = tl.program_id(1).to(tl.int64)
    number = edge * view.rows + row
    failed = tl.load(found.failed + number, mask=row < view.rows, other=0) != 0
    if tl.max(failed.to(tl.int32)) > 0:
        wanted = tl.load(rank + number, mask=failed, other=0).to(tl.int32)
        first = first_rows(view, row)
        begin, end = span(view)
        zero = tl.zeros((view.height,), tl.int64)
        low, high = zero - 0x80000000, zero + 0x7FFFFFFF
        reached, greater = tl.zeros((view.height,), tl.int32), tl.zeros((view.height,), tl.int32)
        while tl.max(high - low) > 0:
            middle = low + ((high - low + 1) >> 1)
            count = tally(view, first, row, middle, zero + end)
            enough = (count >= wanted) | (low == high)
            reached, greater = tl.where(enough, count, reached), tl.where(enough, greater, count)
            low, high = tl.where(enough, middle, low), tl.where(enough, high, middle - 1)
        least, last = zero + begin, zero + end
        while tl.max(last - least) > 0:
            middle = least + ((last - least) >> 1)
            enough = tally(view, first, row, low, middle) >= wanted
            least, last = tl.where(enough, least, tl.minimum(middle + 1, last)), tl.where(enough, middle, last)
        chosen = lists.chosen + edge * lists.stride + row.to(tl.int64) * view.words
        for word in range(view.words):
            tl.store(chosen + word, packed(among(view, first, row, word, low, last)), mask=failed)
        tl.store(found.score + number, unordered(low), mask=failed)
        tl.store(found.place + number, last, mask=failed)
        tl.store(found.tied + number, (reached - greater > 1).to(tl.int32), mask=failed)
