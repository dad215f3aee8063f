"""Kernels that make sets of entries, as bits, and read them."""

# mypy: ignore-errors

import triton
import triton.language as tl

from onca.engine.gpu.tiles import columns_of, earlier, first_rows, members, ones, packed, scores, spelt


@triton.jit
def above_kernel(view, bound, chosen, splits):
    """chosen [rows,words]: the present entries that score more than bound [rows]."""
    row = tl.program_id(0) * view.height + tl.arange(0, view.height)
    limit = tl.load(bound + row, mask=row < view.rows, other=float("inf"))
    first = first_rows(view, row)
    for word in range(tl.program_id(1), view.words, splits):
        there = members(view, row, word) & (scores(view, first, row, columns_of(word)) > limit[:, None])
        tl.store(chosen + row.to(tl.int64) * view.words + word, packed(there), mask=row < view.rows)


@triton.jit
def collect_kernel(view, passed, most, splits, value, column):
    """value, column [rows,most]: the first `most` present entries; passed [rows,words]: those before each word."""
    row = tl.program_id(0) * view.height + tl.arange(0, view.height)
    first = first_rows(view, row)
    for word in range(tl.program_id(1), view.words, splits):
        score = scores(view, first, row, columns_of(word))
        there = members(view, row, word)
        at, kept = slots(there, row, word, view.rows, view.words, passed, most)
        tl.store(value + at, score, mask=kept)
        tl.store(column + at, tl.broadcast_to(columns_of(word).to(tl.int64)[None, :], at.shape), mask=kept)


@triton.jit
def list_kernel(bits, passed, most, rows, words, column, HEIGHT: tl.constexpr):
    """column [rows,most]: the first `most` bits of each row. One program a block of rows and word."""
    row = tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT)
    word = tl.program_id(1)
    there = spelt(tl.load(bits + row.to(tl.int64) * words + word, mask=row < rows, other=0))
    at, kept = slots(there, row, word, rows, words, passed, most)
    tl.store(column + at, tl.broadcast_to(columns_of(word).to(tl.int64)[None, :], at.shape), mask=kept)


@triton.jit
def slots(there, row, word, rows, words, passed, most):
    """Where in [rows,most] the entries of a word go, and which of them do."""
    before = tl.load(passed + row.to(tl.int64) * words + word, mask=row < rows, other=0)
    slot = before[:, None] + earlier(there)
    return row[:, None].to(tl.int64) * most + slot, there & (slot < most)


@triton.jit
def ones_kernel(bits, total, out, BLOCK: tl.constexpr):
    """out [total]: how many bits each word has."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, ones(tl.load(bits + at, mask=at < total, other=0)), mask=at < total)


@triton.jit
def hits_kernel(bits, rows, columns, words, out, HEIGHT: tl.constexpr):
    """out [columns]: how many rows have each bit. One program a word."""
    word = tl.program_id(0)
    total = tl.zeros((64,), tl.int64)
    for start in range(0, rows, HEIGHT):
        row = start + tl.arange(0, HEIGHT)
        held = tl.load(bits + row.to(tl.int64) * words + word, mask=row < rows, other=0)
        total += tl.sum(spelt(held).to(tl.int64), 0)
    column = columns_of(word)
    tl.store(out + column, total, mask=column < columns)


@triton.jit
def equal_kernel(mine, theirs, rows, columns, words, out, HEIGHT: tl.constexpr):
    """out [rows,words]: mine [rows] == theirs [columns], and not negative. One program a block of rows and word."""
    row = tl.program_id(0) * HEIGHT + tl.arange(0, HEIGHT)
    word = tl.program_id(1)
    column = columns_of(word)
    left = tl.load(mine + row, mask=row < rows, other=-1)
    right = tl.load(theirs + column, mask=column < columns, other=-1)
    same = (left[:, None] == right[None, :]) & (left >= 0)[:, None]
    tl.store(out + row.to(tl.int64) * words + word, packed(same), mask=row < rows)
