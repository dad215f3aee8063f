"""Which images stand in which step, and where its randomness comes from.

Nothing here has a state: everything follows from the seed and the place in the run, so a resumed run draws what the
uninterrupted one would have drawn, and two runs of one seed see the same images through the same views.
"""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor


def generator(*place: int) -> torch.Generator:
    """A generator (CPU) of its own for a place in a run, e.g. (seed, epoch, step, view)."""
    digest = hashlib.blake2b(repr(place).encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "big") >> 1)


def sizes(count: int, batch: int, splits: int = 1) -> list[int]:
    """How many images each step of an epoch takes. The last, shorter batch is kept.

    Batch norm cannot see one image alone: a last batch with a single image in each of its `splits` parts joins the one
    before. What `splits` does not divide (fewer than `splits` images) sits out; the next epoch leaves out others.

    Raises:
        ValueError: not enough images for one batch of two.
    """
    used = count - count % splits
    if used < 2 * splits:
        raise ValueError(f"{count} training images are too few: {2 * splits} are needed to fill one batch")
    full, rest = divmod(used, batch)
    steps = [batch] * full + ([rest] if rest else [])
    if len(steps) > 1 and steps[-1] < 2 * splits:
        last = steps.pop()
        steps[-1] += last
    return steps


def batches(count: int, batch: int, splits: int, seed: int, epoch: int) -> list[Tensor]:
    """The rows of every step of one epoch: a fresh order of all images, cut as `sizes` says."""
    steps = sizes(count, batch, splits)
    order = torch.randperm(count, generator=generator(seed, epoch))
    return list(torch.split(order[: sum(steps)], steps))
