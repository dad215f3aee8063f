"""Positives in time: another frame of the same sequence. n rows asked for. New: in no paper of those built here."""

from __future__ import annotations

import torch
from torch import Tensor

from onca.data.imageset import ImageSet


def neighbour_frames(images: ImageSet, rows: Tensor, gap: int, draws: Tensor) -> Tensor:
    """For each row (int64 [n]) a row of the same sequence at most `gap` frames away, int64 [n].

    draws: uniform in 0..1, float [n]; the same draws choose the same frames. The row itself is never chosen while there
    is another to choose; a row without a sequence, alone in it, or with a gap of 0 stays. Frames count by their number,
    so that those which are left out of the set leave a gap.

    Raises:
        ValueError: gap below 0, a set without sequences, or not one draw a row.
    """
    if gap < 0:
        raise ValueError(f"gap={gap}: frames are 0 or more apart")
    if images.sequence is None or images.frame is None:
        raise ValueError(
            f"{images.source} has no sequences: positives in time need a set with sequence and frame, "
            "world(frames=8) or a pack with those arrays"
        )
    if draws.shape != rows.shape:
        raise ValueError(f"draws must be one number a row, {list(rows.shape)}; they are {list(draws.shape)}")
    if gap == 0:
        return rows
    gap = min(gap, int(images.frame.max()))  # no two frames lie further apart
    key, order, place = images.timeline
    low = torch.searchsorted(key, key[place[rows]] - gap)
    others = torch.searchsorted(key, key[place[rows]] + gap, right=True) - low - 1
    chosen = low + (draws.double() * others).long().clamp_max((others - 1).clamp_min(0))
    chosen += chosen >= place[rows]  # not itself
    stays = (others == 0) | (images.sequence[rows] < 0)
    return torch.where(stays, rows, order[chosen.clamp_max(len(order) - 1)])
