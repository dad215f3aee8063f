"""Images decoded before they are asked for, by threads, while the step before them is computed."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType

import torch
from torch import Tensor

from onca.data.pictures import Undecoded

TAKES = 2  # batches that are decoded, or being decoded, beyond the one asked for: what bounds the memory
PIECE = 8  # images that a thread decodes at a time, so that all threads work on the batch that comes next


class Ahead:
    """While entered, threads decode the takes of `coming` in their order: int64 [n] of rows each.

    `take` gives what `undecoded.take` gives, to the bit, and raises what it raises, when the image at fault is asked
    for and not earlier. Rows that do not come next in `coming` are decoded when asked for. Pillow decodes and resizes
    without Python's lock, so threads do; `threads` None is one for each core that this process may use.
    """

    def __init__(self, undecoded: Undecoded, coming: Iterable[Tensor], threads: int | None = None) -> None:
        self.undecoded = undecoded
        self.coming = iter(coming)
        self.begun: deque[tuple[Tensor, list[Future[Tensor]]]] = deque()
        self.pool = ThreadPoolExecutor(threads or cores(), thread_name_prefix="onca decodes")

    def __enter__(self) -> Ahead:
        self._look_ahead()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.pool.shutdown(cancel_futures=True)  # waits for the few pieces that are being decoded

    def take(self, rows: Tensor) -> Tensor:
        """The images in these rows, uint8 [n,3,H,W]. Errors: as `decode`."""
        if self.begun and torch.equal(self.begun[0][0], rows):
            pieces = self.begun.popleft()[1]
            self._look_ahead()
        else:
            pieces = self._begin(rows)
        return torch.cat([piece.result() for piece in pieces])

    def _look_ahead(self) -> None:
        while len(self.begun) < TAKES and (rows := next(self.coming, None)) is not None:
            self.begun.append((rows, self._begin(rows)))

    def _begin(self, rows: Tensor) -> list[Future[Tensor]]:
        return [self.pool.submit(self.undecoded.take, piece) for piece in torch.split(rows, PIECE)]


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
