"""The collector: it sees pools, step by step, and then says who the negatives were."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from onca.audit.finding import Finding
from onca.objectives import Method
from onca.pool import Pool


class Audit:
    """Sees the pools of some steps and never changes them; an observer of `onca.train.train` as it stands.

    Of each step that is looked at, about `queries` queries of every pool are laid open. What needs every step (whether
    keys reach the memory) is followed cheaply in all of them.

    Args:
        queries: of a pool that are looked at in a step.
        every: looks at the first steps, and then at one in so many.
        duplicates: group of each image [I], as `onca.data.near_duplicates` finds them, where pools do not hold it.
        file: where `save` writes audit.json; None: nowhere.
        source: what is looked at, in words.
    """

    def __init__(
        self,
        *,
        queries: int = 64,
        every: int = 20,
        duplicates: Tensor | None = None,
        file: str | Path | None = None,
        source: str = "",
    ) -> None:
        raise NotImplementedError

    def see(
        self,
        pools: Pool | Sequence[Pool],
        method: Method | str | None = None,
        step: int | None = None,
        epoch: float | None = None,
    ) -> None:
        """The pools of a step, before memories take its keys. method: infonce where not given; step: from 1, the next
        one where not given; epoch: as the pools have it where not given."""
        raise NotImplementedError

    def findings(self) -> list[Finding]:
        """What all checks have found so far."""
        raise NotImplementedError

    def save(self, step: int) -> None:
        """Writes audit.json, where a file was given."""
        raise NotImplementedError
