"""Ctrl-C (and the polite kill of a cluster) between two steps instead of inside one."""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(KeyboardInterrupt):
    """The run was stopped and left a checkpoint; the message says how to go on."""


class Interrupt:
    """While entered, the first Ctrl-C or SIGTERM only sets `asked`; a second one acts at once.

    Outside the main thread signals are not ours to take, and `asked` stays False.
    """

    def __init__(self) -> None:
        self.asked = False
        self.old: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            self.old = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        self._restore()

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self.old.items():
            signal.signal(number, handler)
        self.old = {}
