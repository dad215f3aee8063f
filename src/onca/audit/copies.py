"""Whether negatives are the same image several times, or near-duplicates of the query."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from onca.audit.check import Check, Column, between, by_band, graded, percent, report
from onca.audit.finding import Finding
from onca.audit.interval import ratio, wilson
from onca.audit.sight import Sight

VIEWS = 2.05  # times that an image stands there where both of its views are negatives
COPIES = 0.01  # share of rows without ids that may be equal to the bit
MANY = 0.05  # near-duplicates: share of the queries, or of the hardest negatives


class Repeats(Check):
    """The same image several times among a query's negatives; without ids, rows that are equal to the bit."""

    def __init__(self) -> None:
        self.counts = Column()  # entries, different images
        self.named = False

    def see(self, look: Sight) -> None:
        left = look.left
        named = bool((left.index >= 0).any())
        who = left.index if named else left.prints
        there = left.there & (left.index >= 0) if named else left.there
        self.named |= named
        rows = [row[mask] for row, mask in zip(who, there, strict=True)]
        self.counts.add(torch.tensor([[len(row), len(row.unique())] for row in rows]))

    def findings(self) -> Iterator[Finding]:
        rows = self.counts.rows
        if not len(rows) or not float(rows[:, 0].sum()):
            yield Finding("repeats", "unknown", "there were no negatives yet")
            return
        found = ratio(rows[:, 0] - rows[:, 1], rows[:, 0])
        times = float(rows[:, 0].sum() / rows[:, 1].sum())
        what = "image" if self.named else "row"
        said = f"each {what} stands {times:.3g} times among a query's negatives"
        why = "an image that stands there twice pushes twice, and the negatives are fewer than they seem"
        if not self.named and found.low > COPIES:
            said = f"{between(found)} of the negatives are copies, to the bit, of others of the same query"
            remedy = "put keys in once a step: onca.Queue(size, dim)"
            yield report("repeats", "alarm", said, found, len(rows), why=why, remedy=remedy)
            return
        remedy = "a shorter memory: --queue below the number of images; or --draws 0, the whole bank"
        yield report("repeats", graded(False, times > VIEWS), said, found, len(rows), why=why, remedy=remedy)


class NearDuplicates(Check):
    """Images of the same photograph as the query's, under another index, among its negatives."""

    def __init__(self) -> None:
        self.columns = Column()  # by query: entries in bands, near-duplicates in bands
        self.queries = self.grouped = 0
        self.sizes: Tensor | None = None

    def see(self, look: Sight) -> None:
        left = look.left
        found = look.duplicate(left)
        if found is None or look.duplicates is None:
            return
        if self.sizes is None:
            groups = look.duplicates.cpu()
            self.sizes = groups.bincount()[groups] if len(groups) else groups
        known = look.index[look.index >= 0].cpu()
        self.queries += len(known)
        self.grouped += int((self.sizes[known] > 1).sum())
        number = by_band(left.score, left.there, left.there)
        self.columns.add(torch.cat([number, by_band(left.score, left.there, found & left.there)], 1))

    def findings(self) -> Iterator[Finding]:
        if not self.queries:
            said = "no groups are known: onca data duplicates shows those of a source"
            yield Finding("near-duplicates", "unknown", said)
            return
        rows = self.columns.rows
        images, met = wilson(self.grouped, self.queries), wilson(int((rows[:, 3:].sum(1) > 0).sum()), len(rows))
        hardest = ratio(rows[:, 3], rows[:, 0])
        said = (
            f"{percent(hardest.number)} of the hardest 0.1 % of negatives are near-duplicates of the query; "
            f"{between(images)} of the queries have one in the set, and {percent(met.number)} meet one"
        )
        yield report(
            "near-duplicates",
            graded(images.low > MANY or hardest.low > MANY, met.number > 0),
            said,
            images,
            self.queries,
            why="the same photograph is pushed away from itself; it is the hardest of negatives, and no label tells",
            remedy="chain(drop(near_duplicate), infonce)",
            details={"hardest 0.1 %": hardest, "in the set": images, "met": met},
        )
