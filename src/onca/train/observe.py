"""Observers: what looks on while a run trains, and never changes it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from onca.objectives import Method
from onca.pool import Pool


class Observer(Protocol):
    """Looks on while a run trains (`train(run, observers=...)`); a run has the same bits with and without.

    A run that was cut off is gone on with from its last checkpoint: steps after it come again, from the first one on,
    and an observer forgets what it noted of them.
    """

    def see(self, pools: Sequence[Pool], method: Method, step: int, epoch: float) -> None:
        """The pools of a step, after its loss and before memories take its keys.

        step: from 1. epoch: as the pools have it, a float from 0 that counts what was over before this step. Nothing
        of the pools may be written to; `replace(pool, notes={})` is what a method may be put to once more.
        """

    def save(self, step: int) -> None:
        """A checkpoint of the state after `step` is about to be written."""


def show(
    observers: Sequence[Observer], pools: Sequence[Pool], method: Method, step: int, epoch: float, place: torch.device
) -> None:
    """Shows a step to all observers. What they draw at random, the run does not miss."""
    if not observers:
        return
    with torch.random.fork_rng(devices=[place] if place.type == "cuda" else []):
        for observer in observers:
            observer.see(pools, method, step, epoch)
