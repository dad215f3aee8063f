"""The collector: it sees pools, step by step, and then says who the negatives were."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from onca.audit.check import Check
from onca.audit.collapse import Collapse
from onca.audit.copies import NearDuplicates, Repeats
from onca.audit.finding import Finding, write_audit
from onca.audit.labels import SameLabel, TooHard
from onca.audit.mass import Floor, Mass
from onca.audit.memory import memory_findings
from onca.audit.rows import Memory
from onca.audit.selves import SelfHits, WrongPositives
from onca.audit.sight import sight
from onca.method import as_method
from onca.objectives import Method
from onca.pool import Pool

FIRST = 4  # steps at the beginning that are all looked at


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
        every: int = 50,
        duplicates: Tensor | None = None,
        file: str | Path | None = None,
        source: str = "",
    ) -> None:
        if queries < 1 or every < 1:
            raise ValueError(
                f"an audit looks at 1 query or more, of 1 step or more; got queries={queries}, every={every}"
            )
        self.queries, self.every, self.duplicates = queries, every, duplicates
        self.file, self.source = file, source
        self.step = self.seen = self.looks = 0
        self.memories: defaultdict[str, Memory] = defaultdict(Memory)
        self.checks: list[Check] = [
            *(SelfHits(), WrongPositives(), Repeats(), NearDuplicates(), SameLabel(), TooHard(), Mass(), Floor()),
            Collapse(),
        ]

    def see(
        self,
        pools: Pool | Sequence[Pool],
        method: Method | str | None = None,
        step: int | None = None,
        epoch: float | None = None,
    ) -> None:
        """The pools of a step, before memories take its keys.

        method: infonce where not given. step: from 1; the next one where not given. epoch: the pools' where not given.
        """
        several = [pools] if isinstance(pools, Pool) else list(pools)
        self.step = self.step + 1 if step is None else step
        self.seen += 1
        with torch.no_grad():
            for place, pool in enumerate(several):
                now = pool.epoch if epoch is None else epoch
                self.memories[pool.name or str(place)].follow(pool, self.step, now)
        if self.seen <= FIRST or self.seen % self.every == 0:
            self._look(several, as_method("infonce" if method is None else method), epoch)

    def _look(self, pools: list[Pool], method: Method, epoch: float | None) -> None:
        self.looks += 1
        for pool in pools:
            if not len(pool):
                continue
            look = sight(pool, method, self.step, epoch, self.queries, self.duplicates)
            for check in self.checks:
                check.see(look)

    def findings(self) -> list[Finding]:
        """What all checks have found so far."""
        found = [finding for check in self.checks for finding in check.findings()]
        return [*found, *memory_findings(list(self.memories.values()))]

    @property
    def extent(self) -> dict[str, Any]:
        """How much was seen, for audit.json."""
        return {"steps": self.seen, "looked at": self.looks, "last step": self.step, "queries": self.queries}

    def save(self, step: int) -> None:
        """Writes audit.json, where a file was given."""
        if self.file is not None:
            write_audit(self.file, self.findings(), self.source, self.extent)
