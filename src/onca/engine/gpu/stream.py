"""Kernels of the fast path of selection: sample, brackets, stream, finish.

None of them waits for the host, allocates, or gives other results when its programs run in another order.
"""

# mypy: ignore-errors

import triton
import triton.language as tl

from onca.engine.gpu.tiles import (
    columns_of,
    earlier,
    first_rows,
    members,
    ones,
    ordered,
    packed,
    places,
    scores,
    span,
    unordered,
)


@triton.jit
def score_kernel(view, out):
    """out [rows,columns]: all scores."""
    row = tl.program_id(0) * view.height + tl.arange(0, view.height)
    column = columns_of(tl.program_id(1))
    score = scores(view, first_rows(view, row), row, column)
    inside = (row[:, None] < view.rows) & (column[None, :] < view.columns)
    tl.store(out + row[:, None].to(tl.int64) * view.columns + column[None, :], score, mask=inside)


@triton.jit
def sample_kernel(view, drawn, out):
    """out [rows,drawn]: the scores of a sample, one entry at a hashed place in each of `drawn` equal ranges of the
    columns; -inf where it is absent."""
    row = tl.program_id(0) * view.height + tl.arange(0, view.height)
    slot = columns_of(tl.program_id(1))
    number = slot.to(tl.int64)
    begin = number * view.columns // drawn
    width = tl.maximum((number + 1) * view.columns // drawn - begin, 1)
    column = (begin + ((number * 2654435761 >> 7) & 0xFFFFFF) % width).to(tl.int32)
    score = scores(view, first_rows(view, row), row, column)
    inside = (row[:, None] < view.rows) & (slot[None, :] < drawn)
    if view.present is not None:
        word = view.present + row[:, None].to(tl.int64) * view.words + (column // 64)[None, :]
        held = (tl.load(word, mask=inside, other=0) >> (column % 64).to(tl.int64)[None, :]) & 1
        score = tl.where(held != 0, score, float("-inf"))
    tl.store(out + row[:, None].to(tl.int64) * drawn + slot[None, :], score, mask=inside)


@triton.jit
def largest(number, wanted):
    """The wanted-th largest of int32 numbers: the largest that at least `wanted` of them reach."""
    low, high = tl.full((), -0x80000000, tl.int64), tl.full((), 0x7FFFFFFF, tl.int64)
    while low < high:
        middle = low + ((high - low + 1) >> 1)
        if tl.sum((number >= middle.to(tl.int32)).to(tl.int32)) >= wanted:
            low = middle
        else:
            high = middle - 1
    return low


@triton.jit
def bracket_kernel(view, sample, drawn, present, rank, deviations, lower, upper, BLOCK: tl.constexpr):
    """lower, upper [E,rows]: sampled scores between which the rank-th lies but for the chance that so many standard
    deviations leave. One program a row and edge; present [rows], rank [E,rows]."""
    row = tl.program_id(0)
    at = tl.program_id(1) * view.rows + row
    slot = tl.arange(0, BLOCK)
    score = tl.load(sample + row.to(tl.int64) * drawn + slot, mask=slot < drawn, other=float("-inf"))
    seen = tl.sum((score > float("-inf")).to(tl.int32))
    number = tl.maximum(tl.load(present + row), 1).to(tl.float32)
    share = tl.load(rank + at).to(tl.float32) / number
    # Drawn without putting back: the more of a row is seen, the narrower its bracket.
    half = deviations * tl.sqrt(share * (1 - share) * seen * tl.maximum(1 - seen / number, 0.0)) + 1
    deep = tl.ceil(share * seen + half).to(tl.int32)
    shallow = tl.floor(share * seen - half).to(tl.int32)
    below, over = float("-inf"), float("inf")
    if deep <= seen:
        below = unordered(largest(ordered(score), deep))
    if shallow >= 1:
        over = unordered(largest(ordered(score), shallow))
    if tl.load(rank + at) == 0:
        below = float("inf")
        over = float("inf")
    tl.store(lower + at, below)
    tl.store(upper + at, over)


@triton.jit
def classify(view, score, there, row, word, edge, lower, upper, filled, lists, split):
    """What is surely chosen goes to `lists.chosen` as a word; what lies in the bracket is appended to the segment of
    the row and split. Gives how many it then has, which may be more than fit."""
    chosen = lists.chosen + edge * lists.stride + row.to(tl.int64) * view.words + word
    tl.store(chosen, packed(there & (score > upper[:, None])), mask=row < view.rows)
    candidate = there & (score >= lower[:, None]) & (score <= upper[:, None])
    slot = filled[:, None] + earlier(candidate)
    at = (((edge * view.rows + row) * lists.splits + split) * lists.capacity)[:, None] + slot
    fits = candidate & (slot < lists.capacity)
    tl.store(lists.value + at, score, mask=fits)
    tl.store(lists.column + at, tl.broadcast_to(columns_of(word)[None, :], at.shape), mask=fits)
    return filled + tl.sum(candidate.to(tl.int32), 1)


@triton.jit
def close(view, row, edge, filled, lists, split):
    """Notes how full a segment is and fills the rest of it with -inf, which no rank reaches."""
    number = (edge * view.rows + row) * lists.splits + split
    tl.store(lists.filled + number, filled, mask=row < view.rows)
    for start in range(0, lists.capacity, 64):
        slot = start + tl.arange(0, 64)[None, :]
        rest = (row < view.rows)[:, None] & (slot >= filled[:, None]) & (slot < lists.capacity)
        at = number[:, None] * lists.capacity + slot
        tl.store(lists.value + at, tl.full(at.shape, float("-inf"), tl.float32), mask=rest)


@triton.jit
def stream_kernel(view, lists, lower, upper, EDGES: tl.constexpr):
    """One look at every score, for one or two edges. A split takes every splits-th word, so that keys which lie in some
    order (by class, say) fill the segments evenly."""
    row = tl.program_id(0) * view.height + tl.arange(0, view.height)
    split = tl.program_id(1)
    below = tl.load(lower + row, mask=row < view.rows, other=float("inf"))
    over = tl.load(upper + row, mask=row < view.rows, other=float("inf"))
    below_too = tl.load(lower + view.rows + row, mask=(row < view.rows) & (EDGES == 2), other=float("inf"))
    over_too = tl.load(upper + view.rows + row, mask=(row < view.rows) & (EDGES == 2), other=float("inf"))
    filled, filled_too = tl.zeros((view.height,), tl.int32), tl.zeros((view.height,), tl.int32)
    first = first_rows(view, row)
    for word in range(split, view.words, lists.splits):
        score = scores(view, first, row, columns_of(word))
        there = members(view, row, word)
        filled = classify(view, score, there, row, word, 0, below, over, filled, lists, split)
        if EDGES == 2:
            filled_too = classify(view, score, there, row, word, 1, below_too, over_too, filled_too, lists, split)
    close(view, row, 0, filled, lists, split)
    if EDGES == 2:
        close(view, row, 1, filled_too, lists, split)


@triton.jit
def reach(first, value, slots, limit, BLOCK: tl.constexpr):
    """How many values of a list are at least `limit`; `first` holds the first BLOCK of them."""
    total = tl.sum((first >= limit.to(tl.int32)).to(tl.int32))
    for begin in range(BLOCK, slots, BLOCK):
        slot = begin + tl.arange(0, BLOCK)
        more = ordered(tl.load(value + slot, mask=slot < slots, other=float("-inf")))
        total += tl.sum((more >= limit.to(tl.int32)).to(tl.int32))
    return total


@triton.jit
def early(view, value, column, slots, limit, last, BLOCK: tl.constexpr):
    """How many values of a list are `limit` and stand at a place up to `last`."""
    total = 0
    for begin in range(0, slots, BLOCK):
        slot = begin + tl.arange(0, BLOCK)
        inside = slot < slots
        same = inside & (ordered(tl.load(value + slot, mask=inside, other=float("-inf"))) == limit.to(tl.int32))
        at = tl.load(column + slot, mask=same, other=0)
        total += tl.sum((same & (places(view, at, same) <= last)).to(tl.int32))
    return total


@triton.jit
def mark(view, value, column, slots, chosen, limit, last, BLOCK: tl.constexpr):
    """Sets the bits of what a list holds up to (limit, last)."""
    for begin in range(0, slots, BLOCK):
        slot = begin + tl.arange(0, BLOCK)
        number = ordered(tl.load(value + slot, mask=slot < slots, other=float("-inf")))
        reached = (slot < slots) & (number >= limit.to(tl.int32))
        at = tl.load(column + slot, mask=reached, other=0)
        among = reached & ((number > limit.to(tl.int32)) | (places(view, at, reached) <= last))
        bit = tl.full((BLOCK,), 1, tl.int64) << (at % 64).to(tl.int64)
        # Each bit is set once: their order changes nothing.
        tl.atomic_or(chosen + at // 64, bit, mask=among, sem="relaxed")


@triton.jit
def bits_set(chosen, words):
    total = 0
    for begin in range(0, words, 128):
        word = begin + tl.arange(0, 128)
        total += tl.sum(ones(tl.load(chosen + word, mask=word < words, other=0)))
    return total


@triton.jit
def finish_kernel(view, lists, rank, lower, upper, found, BLOCK: tl.constexpr, SPLITS: tl.constexpr):
    """The exact rank in a list, ties by place, and the last bits of the set. One program a row and edge."""
    row, edge = tl.program_id(0).to(tl.int64), tl.program_id(1).to(tl.int64)
    number = edge * view.rows + row
    wanted = tl.load(rank + number).to(tl.int32)
    chosen = lists.chosen + edge * lists.stride + row * view.words
    split = tl.arange(0, SPLITS)
    filled = tl.load(lists.filled + number * lists.splits + split, mask=split < lists.splits, other=0)
    need = wanted - bits_set(chosen, view.words)
    held = (need >= 1) & (need <= tl.sum(filled)) & (tl.max(filled) <= lists.capacity)
    tl.store(found.failed + number, ((wanted > 0) & (held == 0)).to(tl.int32))
    score, last, tied = float("inf"), tl.full((), -1, tl.int64), 0
    if held & (wanted > 0):
        slots = lists.splits * lists.capacity
        value, column = lists.value + number * slots, lists.column + number * slots
        slot = tl.arange(0, BLOCK)
        first = ordered(tl.load(value + slot, mask=slot < slots, other=float("-inf")))
        low = ordered(tl.load(lower + number)).to(tl.int64)
        high = ordered(tl.load(upper + number)).to(tl.int64)
        while low < high:
            middle = low + ((high - low + 1) >> 1)
            if reach(first, value, slots, middle, BLOCK) >= need:
                low = middle
            else:
                high = middle - 1
        greater = reach(first, value, slots, low + 1, BLOCK)
        least, last = span(view)
        while least < last:
            middle = least + ((last - least) >> 1)
            if greater + early(view, value, column, slots, low, middle, BLOCK) >= need:
                last = middle
            else:
                least = middle + 1
        mark(view, value, column, slots, chosen, low, last, BLOCK)
        score = unordered(low)
        tied = (reach(first, value, slots, low, BLOCK) - greater > 1).to(tl.int32)
    tl.store(found.score + number, score)
    tl.store(found.place + number, last)
    tl.store(found.tied + number, tied)
