"""Watching someone else's loss or module: forward hooks that look on and change nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from onca.audit.finding import Finding
from onca.audit.looks import Call

Look = Callable[[nn.Module, tuple[Any, ...], Any], Call | tuple[Tensor, Tensor, Tensor]]


class Watch:
    """What `watch` gives: findings() at any time, close() takes the hooks off; a context manager that does so."""

    def findings(self) -> list[Finding]:
        """What was found in the calls so far."""
        raise NotImplementedError

    def close(self) -> None:
        """Takes the hooks off the module."""
        raise NotImplementedError


def watch(module: nn.Module, look: Look, ids: Callable[[], Tensor] | None = None, every: int = 1) -> Watch:
    """Looks on at every call of a loss or module.

    Args:
        look: `look(module, inputs, output)` gives query, positive and negatives of a call: a `Call`, or those three.
        ids: which image each query of this call is of, [B]; None: nobody knows.
        every: one call in so many is looked at in full.
    """
    raise NotImplementedError
