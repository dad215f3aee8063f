"""Random numbers as a function of (seed, image, stream, place): without state, an image is the same in any order.

A counter goes through the finaliser of SplitMix64 (Steele, Lea and Flood 2014, doi 10.1145/2660193.2660195): once for
what all numbers of an image share, once for the place of the number. n images.
"""

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

STEP = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio, made odd: consecutive counters land far apart
STREAMS = 16  # uses of randomness within one image that a seed keeps apart


class Dice:
    """Numbers for n images, one column at a time: the order of the calls decides which image gets which number."""

    def __init__(self, seed: int, ids: Tensor, stream: int, count: int) -> None:
        self.columns: Iterator[Tensor] = iter(uniform(seed, ids, stream, count).T[:, :, None])

    def between(self, low: float, high: float) -> Tensor:
        """float32 in [low, high), [n, 1]."""
        return next(self.columns) * (high - low) + low

    def chance(self, share: float) -> Tensor:
        """1 for this share of the images, else 0, [n, 1]."""
        return (next(self.columns) < share).float()


def uniform(seed: int, ids: Tensor, stream: int, count: int) -> Tensor:
    """float32 in [0, 1), [n, count]."""
    top = (bits(seed, ids, stream, count) >> np.uint64(40)).astype(np.float32)  # as many bits as float32 holds
    return torch.from_numpy(top) * 2.0**-24


def noise(seed: int, ids: Tensor, stream: int, count: int) -> Tensor:
    """float32 in [-1, 1), [n, 3, count]: three channels of 16 bits out of one draw, since most numbers are these."""
    words = bits(seed, ids, stream, count).view(np.uint16).reshape(len(ids), count, 4)
    return torch.from_numpy(words[:, :, :3].astype(np.float32)).permute(0, 2, 1) * 2.0**-15 - 1.0


def bits(seed: int, ids: Tensor, stream: int, count: int) -> NDArray[np.uint64]:
    """64 random bits a place, [n, count]."""
    start = _mix(np.array([seed * STREAMS + stream], dtype=np.uint64))
    image = _mix(start + ids.numpy().astype(np.uint64) * STEP)
    return _mix(image[:, None] + np.arange(1, count + 1, dtype=np.uint64) * STEP)


def _mix(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
