"""Whether a query meets itself among its negatives, and whether its positive is its own."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor

from onca.audit.check import Check, between, graded, report
from onca.audit.entries import prints
from onca.audit.finding import Finding
from onca.audit.interval import wilson
from onca.audit.sight import Sight
from onca.pool import unit

OLDER = 0.01  # share of queries that may meet an older key of their image before it is an alarm
MOST = 512  # queries of a batch that are compared with each other's positives
CHANCE = 1e-6  # how unlikely an offset must be


class SelfHits(Check):
    """A query's own positive key, or older keys of its image, among the negatives that the loss is made of."""

    def __init__(self) -> None:
        self.queries = self.own = self.older = self.known = 0

    def see(self, look: Sight) -> None:
        left, positive = look.left, look.positives
        same = torch.zeros_like(left.there)
        for column in range(min(positive.prints.shape[1], 8)):
            same |= (left.prints == positive.prints[:, column, None]) & positive.there[:, column, None]
        same &= left.there & ~left.beside
        older = left.same("index", look.index) & left.there & ~left.beside
        self.queries += len(look.rows)
        self.own += int(same.any(1).sum())
        self.older += int((older & ~same).any(1).sum())
        self.known += int((look.index >= 0).sum()) if bool((left.index >= 0).any()) else 0

    def findings(self) -> Iterator[Finding]:
        if not self.queries:
            return
        own, older = wilson(self.own, self.queries), wilson(self.older, max(self.known, 1))
        remedy = (
            "onca.contrast(query, key, negatives, index=i, negative_index=j) leaves own keys out; "
            "onca.Contrast(method, memory=onca.Queue(size, dim)) takes keys in after the loss, and masks older ones"
        )
        why = "the query is pushed away from what it is pulled to, and the hardest negatives are no negatives"
        if self.own:
            said = f"{self.own} of {self.queries} queries find their own positive key among the negatives"
            yield report("self-hits", "alarm", said, own, self.queries, why=why, remedy=remedy)
        elif self.older:
            said = f"{between(older)} of the queries meet older keys of their own image among the negatives"
            outcome = graded(older.low > OLDER, True)
            yield report("self-hits", outcome, said, older, self.known, why=why, remedy=remedy)
        else:
            blind = "" if self.known else "; without ids, older keys of the same image cannot be told from others"
            said = f"none of {self.queries} queries finds its own key among the negatives{blind}"
            yield report("self-hits", "fine", said, own, self.queries)


class WrongPositives(Check):
    """Whether the positive is the query's own: by index where both are known, else by who is nearest in the batch."""

    def __init__(self) -> None:
        self.known = self.wrong = self.queries = self.size = 0
        self.offsets: Counter[int] = Counter()

    def see(self, look: Sight) -> None:
        at = look.positives
        if not at.score.shape[1]:
            return
        named = (at.index >= 0) & (look.index >= 0)[:, None] & at.there
        self.known += int(named.any(1).sum())
        self.wrong += int((named & (at.index != look.index[:, None])).any(1).sum())
        link = look.pool.positives.links[0]
        cold = link.age is not None and bool((link.age < 0).any())
        if link.per_query and link.rows is None and link.length and not cold:
            self._compare(look.pool.negatives.query.detach()[:MOST], link.vectors.detach()[:MOST, 0])

    def _compare(self, query: Tensor, key: Tensor) -> None:
        """Counts how many places further on the nearest of all positives of the batch stands [B,D], [B,D]."""
        size = len(query)
        self.size = self.size or size
        if size != self.size or size < 8:
            return  # the last, shorter batch of an epoch
        score = unit(query.float()) @ unit(key.float()).T
        score[prints(query)[:, None] == prints(key)] = -torch.inf  # where queries are keys, a query is not its own key
        place = torch.arange(size, device=query.device)
        self.offsets.update(((score.argmax(1) - place) % size).tolist())
        self.queries += size

    def findings(self) -> Iterator[Finding]:
        if not (self.known or self.queries):
            yield Finding("wrong positives", "unknown", "there are no positives that could be told apart")
            return
        why = "the loss pulls each query to another image: nothing is learned, and nothing fails"
        remedy = "the positive of query i is key i: on several processes, labels start at rank * batch"
        if self.wrong:
            found = wilson(self.wrong, self.known)
            said = f"{between(found)} of the queries have a positive that is of another image, by index"
            yield report("wrong positives", "alarm", said, found, self.known, why=why, remedy=remedy)
            return
        if not self.queries:
            said = f"all {self.known} positives are of their query's image, by index"
            yield report("wrong positives", "fine", said, wilson(0, self.known), self.known)
            return
        own = wilson(self.offsets[0], self.queries)
        offset, count = max(((o, c) for o, c in self.offsets.items() if o), key=lambda pair: pair[1], default=(0, 0))
        if count > 2 * self.offsets[0] and _tail(count, self.queries / self.size) * self.size < CHANCE:
            found = wilson(count, self.queries)
            said = (
                f"the key {offset} places after a query's own is its nearest for {between(found)} of the queries, and "
                f"its own for {between(own)}: positives are taken from the wrong place"
            )
            yield report("wrong positives", "alarm", said, found, self.queries, why=why, remedy=remedy)
            return
        said = f"its own positive is the nearest of the batch's {self.size} for {between(own)} of the queries"
        chance = own.high < 1.5 / self.size
        said += ", no more than by chance" if chance else ""
        yield report("wrong positives", graded(False, chance), said, own, self.queries, why=why, remedy=remedy)


def _tail(count: int, rate: float) -> float:
    """Chance that a Poisson number of this rate is `count` or more (an upper bound, by Chernoff)."""
    return 1.0 if count <= rate else math.exp(count - rate - count * math.log(count / rate))
