"""Exact selection: a sample brackets the score at each rank, one look at all scores keeps what lies in the bracket, the
rank is found in that short list. Rows for which that fails are done over on the device, so that the host never waits.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from onca.engine.gpu import plan
from onca.engine.gpu.plan import Found, Lists, Operands
from onca.engine.gpu.rescue import rescue_kernel
from onca.engine.gpu.stream import bracket_kernel, finish_kernel, sample_kernel, stream_kernel

PAIR = 2  # edges that are looked for at once


def chosen(
    view: Operands, number: Tensor, rank: Tensor, sample: int, deviations: float, room: int | None
) -> tuple[Tensor, Found]:
    """Words [E,B,W] of the rank hardest, and the edges [E,B]; number [B]: present entries; rank [E,B], at most that."""
    edges, rows = rank.shape
    drawn = min(sample, view.columns)
    result = rank.new_empty(edges, rows, view.words)
    found = Found(
        rank.new_empty(edges, rows, dtype=torch.float32),
        torch.empty_like(rank),
        *(rank.new_empty(edges, rows, dtype=torch.int32) for _ in range(2)),
    )
    for part in _parts(view, drawn, deviations, room):
        some = view.part(part)
        lower, upper = _brackets(some, number[part], rank[:, part].contiguous(), drawn, deviations)
        for first in range(0, edges, PAIR):
            pair = slice(first, min(first + PAIR, edges))
            lists = _lists(some, result[pair, part], drawn, deviations, room)
            bracket = lower[pair], upper[pair]
            stream_kernel[some.blocks, lists.splits](some, lists, *bracket, EDGES=len(lists.chosen), **some.options)
            done = _finish(some, lists, rank[pair, part].contiguous(), *bracket)
            for whole, piece in zip(found, done, strict=True):
                whole[pair, part] = piece
    return result, found


def _parts(view: Operands, drawn: int, deviations: float, room: int | None) -> list[slice]:
    """Blocks of queries whose samples and lists fit the scratch memory."""
    splits = plan.splits(view)
    slots = splits * (room or plan.capacity(view.columns, drawn, deviations, splits))
    height = view.height.value
    step = max(height, plan.SCRATCH // (8 * PAIR * slots + 4 * drawn) // height * height)
    return [slice(start, min(start + step, view.rows)) for start in range(0, view.rows, step)]


def _brackets(view: Operands, number: Tensor, rank: Tensor, drawn: int, deviations: float) -> tuple[Tensor, Tensor]:
    """Scores [E,b] that the score at each rank lies between, almost surely."""
    sample = torch.empty(view.rows, drawn, device=rank.device)
    sample_kernel[view.blocks, math.ceil(drawn / 64)](view, drawn, sample, **view.options)
    lower, upper = torch.empty_like(rank, dtype=torch.float32), torch.empty_like(rank, dtype=torch.float32)
    bracket_kernel[view.rows, len(rank)](
        view, sample, drawn, number, rank, float(deviations), lower, upper, BLOCK=plan.power_of_two(drawn), num_warps=4
    )
    return lower, upper


def _lists(view: Operands, words: Tensor, drawn: int, deviations: float, room: int | None) -> Lists:
    splits = plan.splits(view)
    capacity = room or plan.capacity(view.columns, drawn, deviations, splits)
    shape = (len(words), view.rows, splits)
    value = torch.empty(*shape, capacity, device=words.device)
    column, filled = torch.empty_like(value, dtype=torch.int32), value.new_empty(shape, dtype=torch.int32)
    return Lists(words, words.stride(0), value, column, filled, splits, capacity)


def _finish(view: Operands, lists: Lists, rank: Tensor, lower: Tensor, upper: Tensor) -> Found:
    score, failed = torch.empty_like(rank, dtype=torch.float32), torch.empty_like(rank, dtype=torch.int32)
    found = Found(score, torch.empty_like(rank), failed, torch.empty_like(failed))
    block = min(4096, plan.power_of_two(lists.splits * lists.capacity))
    finish_kernel[view.rows, len(rank)](
        view, lists, rank, lower, upper, found, BLOCK=block, SPLITS=plan.power_of_two(lists.splits), num_warps=4
    )
    rescue_kernel[view.blocks, len(rank)](view, lists, rank, found, **view.options)
    return found
