"""Whether a query meets itself among its negatives, and whether its positive is its own."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from onca.audit.check import Check, Column, between, graded, percent, report
from onca.audit.entries import prints
from onca.audit.finding import Finding
from onca.audit.interval import mean, wilson
from onca.audit.sight import Sight
from onca.pool import unit

OLDER = 0.01  # share of queries that may meet an older key of their image before it is an alarm
MOST = 512  # queries of a batch that are compared with each other's positives
SURE = 6  # standard errors by which the key at an offset must be nearer


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
    """Whether the positive is the query's own: by index where both are known, else by who is nearer in the batch."""

    def __init__(self) -> None:
        self.known = self.wrong = self.size = 0
        self.own = Column()  # by query: share of the batch's other keys that are less similar than its own
        self.shifted: Tensor | None = None  # by offset: the sum of that share for the key so many places further on

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
        """Ranks all positives of the batch [B,D] by how near they are to each query [B,D], and lines them up."""
        size = len(query)
        self.size = self.size or size
        if size != self.size or size < 8:
            return  # the last, shorter batch of an epoch
        score = unit(query.float()) @ unit(key.float()).T
        other = (prints(query)[:, None] != prints(key)).float()  # where queries are keys, a query is not its own key
        near_all = (score * other).sum(0) / other.sum(0).clamp_min(1)  # keys that are near to everyone tell nothing
        score = torch.where(other > 0, score - near_all, -torch.inf)
        share = score.argsort(1).argsort(1).double() / (size - 1)
        place = torch.arange(size, device=query.device)
        lined = share.gather(1, (place[:, None] + place) % size).cpu()  # [B, offset]
        self.own.add(lined[:, 0])
        self.shifted = lined.sum(0) if self.shifted is None else self.shifted + lined.sum(0)

    def findings(self) -> Iterator[Finding]:
        why = "the loss pulls each query to another image: nothing is learned, and nothing fails"
        remedy = "the positive of query i is key i: on several processes, labels start at rank * batch"
        if self.wrong:
            found = wilson(self.wrong, self.known)
            said = f"{between(found)} of the queries have a positive that is of another image, by index"
            yield report("wrong positives", "alarm", said, found, self.known, why=why, remedy=remedy)
        elif self.shifted is not None:
            yield self._by_rank(self.shifted / len(self.own), why, remedy)
        elif self.known:
            said = f"all {self.known} positives are of their query's image, by index"
            yield report("wrong positives", "fine", said, wilson(0, self.known), self.known)
        else:
            yield Finding("wrong positives", "unknown", "there are no positives that could be told apart")

    def _by_rank(self, nearer: Tensor, why: str, remedy: str) -> Finding:
        """nearer: by offset, the mean share of keys that are less similar; of a wrong key it is a half."""
        own, count = mean(self.own.rows), len(self.own)
        best = int(nearer[1:].argmax()) + 1
        error = math.sqrt(1 / 12 / count)  # of the mean of a number that is anywhere in 0..1
        if nearer[best] > 0.5 + SURE * error and nearer[best] > own.number + SURE * error:
            said = (
                f"the key {best} places after a query's own is more similar to it than {percent(float(nearer[best]))} "
                f"of the batch's keys, its own than {between(own)}: positives are taken from the wrong place"
            )
            return report("wrong positives", "alarm", said, own, count, why=why, remedy=remedy)
        said = f"a query's positive is more similar to it than {between(own)} of the batch's other keys"
        chance = own.low < 0.5
        said += ", as chance would have it" if chance else ""
        return report("wrong positives", graded(False, chance), said, own, count, why=why, remedy=remedy)
