"""The ledger of a run: an observer that writes down, of some steps, what some queries were compared with."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from onca.ledger import sample
from onca.ledger.look import Columns, Look
from onca.ledger.parts import before, empty, extended, facts_of, number_of, parts, path_of, read_part, write_part
from onca.objectives import Method
from onca.pool import Pool

EVERY = 16  # steps, one of which is looked at
QUERIES = 4  # of a step
ROWS = 1_000_000  # of a whole ledger
PART = 20_000  # rows from which on a part is full


class Ledger:
    """Writes what was contrasted with what into `folder`; an observer of `onca.train.train`, or of a loop of one's own:

        ledger = onca.ledger.Ledger("ledger")
        ledger.see([pool], method, step, epoch)  # in every step, before the memory takes its keys
        ledger.save(step)  # now and then, and at the end

    Which steps, queries and entries are drawn follows from the seed alone, so a replay gives the same ledger. A run
    that goes on from a checkpoint cuts the ledger back to it and goes on as if never interrupted.

    Args:
        folder: receives part-000000.parquet and so on; a full part is never touched again.
        seed: of what is drawn. A run gives its own.
        epochs: length of the run. With it, a run so long that `rows` would not suffice looks at fewer steps, evenly.
        every: steps, one of which is looked at. queries: so many of a step, divided among its pools.
        rows: the most that are written; without `epochs` the ledger ends there, and says so.
        duplicates: group of each image [I] (`onca.data.near_duplicates`), where pools do not hold it.

    Raises:
        ValueError: no pyarrow; the folder holds a ledger that was made with other settings, or a damaged one.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        seed: int = 0,
        epochs: int | None = None,
        every: int = EVERY,
        queries: int = QUERIES,
        rows: int = ROWS,
        duplicates: Tensor | None = None,
    ) -> None:
        for name, value in (("every", every), ("queries", queries), ("rows", rows)):
            if value < 1:
                raise ValueError(f"a ledger's {name} is a number of 1 or more; got {value}")
        if rows < queries * sample.MOST:
            raise ValueError(f"rows={rows} are fewer than one look at {queries} queries may take: {sample.MOST} each")
        self.folder, self.seed, self.epochs = Path(folder), seed, epochs
        self.every, self.queries, self.rows, self.duplicates = every, queries, rows, duplicates
        self.facts = {"seed": str(seed), "every": str(every), "queries": str(queries), "rows": str(rows)}
        self._check()
        self._part, self._closed, self._table = 0, 0, empty(self.facts)  # the open part, the rows before it, its rows
        self._begun = self._ended = False

    def see(self, pools: Sequence[Pool], method: Method, step: int, epoch: float) -> None:
        """Takes the pools of a step (from 1), before memories take its keys; epoch: passes that are over, a float."""
        if not self._begun:
            self._begin(step)
        spacing = self._spacing(step, epoch)
        if step != sample.step_of(self.seed, (step - 1) // spacing, spacing) or self._full():
            return
        share, rest = divmod(self.queries, len(pools))
        rows: list[Columns] = []
        for place, pool in enumerate(pools):
            chosen = sample.queries(pool, self.seed, step, place, share + (place < rest))
            look = Look(pool, method, self.seed, step, epoch, self.duplicates) if len(chosen) else None
            for number, query in enumerate(chosen.tolist()):
                assert look is not None
                rows += look.rows(query, (place << 16) + number)
        self._table = extended(self._table, rows)
        if len(self._table) >= PART:
            self.save(step)
        self._next()

    def save(self, step: int) -> None:
        """Writes the part that is open, as far as it is filled."""
        if len(self._table):
            write_part(path_of(self.folder, self._part), self._table)

    def _spacing(self, step: int, epoch: float) -> int:
        """Steps, one of which is looked at: more of them where the run is too long for the rows."""
        if self.epochs is None or epoch <= 0:
            return self.every
        steps = self.epochs * round((step - 1) / epoch)
        looks = max(1, self.rows // (self.queries * sample.MOST))
        return max(self.every, math.ceil(steps / looks))

    def _full(self) -> bool:
        if self._closed + len(self._table) + self.queries * sample.MOST <= self.rows:
            return False
        if not self._ended:
            warnings.warn(f"{self.folder} has its {self.rows:,} rows: what follows is not recorded", stacklevel=3)
        self._ended = True
        return True

    # Parts.

    def _check(self) -> None:
        """Raises ValueError where the folder holds a ledger that cannot be gone on with."""
        for path in parts(self.folder):
            facts = facts_of(path)
            different = [
                f"{name}: {facts.get(name)} there, {value} here"
                for name, value in self.facts.items()
                if facts.get(name) != value
            ]
            if different:
                why = "; ".join(different)
                raise ValueError(f"{self.folder} holds a ledger made otherwise ({why}): remove it, or choose another")

    def _begin(self, step: int) -> None:
        """Cuts what is there back to the steps before `step`; the last part, if it is not full, is the open one."""
        self._begun = True
        for path in parts(self.folder):
            whole = read_part(path)
            self._part, self._table = number_of(path), before(whole, step)
            if len(self._table) < len(whole):
                for later in parts(self.folder):
                    if number_of(later) >= self._part + bool(len(self._table)):
                        later.unlink()
                self.save(step)
                return
            self._next()

    def _next(self) -> None:
        """Behind a full part the next one is opened."""
        if len(self._table) >= PART:
            self._part, self._closed, self._table = self._part + 1, self._closed + len(self._table), empty(self.facts)
