"""The hardest 5 % of a memory, exact, forward and backward, against the ways in which people choose them, and against
losses that choose nothing: `python -m benchmarks.window [--json FILE]`.

Theirs compute in float32; where ours gets rows of bf16, theirs get the same rounded rows, widened before the clock
starts: products rounded to bf16 would tie by the thousand, and choose other entries.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

import onca
from benchmarks import data
from benchmarks.measure import Computes, Row, Side, Table, Target, absent, agree, clock, compare, peer, slope
from benchmarks.table import main

TEMPERATURE = 0.2
HARDEST = "chain(keep(hardest(5)), infonce)"
SHARE = 0.05
WIDTH = 2048  # keys in one tile of the limit's products: their scores stay in the cache
TOLERANCE = {torch.float32: (1e-5, 1e-3), torch.bfloat16: (1e-5, 4e-3)}
CHECKED = (
    "Checked before timing: losses within 1e-5 (one entry too few in a window of 65,536 keys moves them by 4e-5), "
    "gradients within 1e-3 of their length in float32 (entries that tie within rounding may change places at the "
    "edge), 4e-3 in bf16 (its rounding alone is 2^-9). Losses without selection are checked against our loss "
    "without selection. Ties go to the key that stands first; theirs leave them open. `the limit` is two products "
    "in torch, in tiles that stay in the cache."
)

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def infonce(query: Tensor, positive: Tensor, chosen: Tensor) -> Tensor:
    """Mean InfoNCE of scores chosen [B,n]."""
    own = (query * positive).sum(1) / TEMPERATURE
    return (torch.logaddexp(own, (chosen / TEMPERATURE).logsumexp(1)) - own).mean()


def number(keys: Tensor) -> int:
    return int(len(keys) * SHARE + 0.5)


def by_topk(query: Tensor, positive: Tensor, keys: Tensor) -> Tensor:
    return infonce(query, positive, (query @ keys.T).topk(number(keys), sorted=False).values)


def by_sort(query: Tensor, positive: Tensor, keys: Tensor) -> Tensor:
    return infonce(query, positive, (query @ keys.T).sort(descending=True).values[:, : number(keys)])


def by_partition(query: Tensor, positive: Tensor, keys: Tensor) -> Tensor:
    """numpy finds the places; torch takes the scores there."""
    scores = query @ keys.T
    rest = len(keys) - number(keys)
    places = np.argpartition(scores.detach().numpy(), rest, axis=1)[:, rest:]
    return infonce(query, positive, scores.gather(1, torch.from_numpy(places)))


def logits(query: Tensor, positive: Tensor, keys: Tensor) -> Tensor:
    """MoCo's: positive and queue side by side, nothing chosen."""
    both = torch.cat([(query * positive).sum(1, keepdim=True), query @ keys.T], 1) / TEMPERATURE
    return functional.cross_entropy(both, torch.zeros(len(query), dtype=torch.long))


def ours(method: str, normalize: bool = False) -> Loss:
    def loss(query: Tensor, positive: Tensor, keys: Tensor) -> Tensor:
        return onca.contrast(query, positive, keys, method, TEMPERATURE, normalize=normalize)

    return loss


class Sides:
    """The same rows for both: as given for ours, widened for theirs."""

    def __init__(self, size: tuple[int, int, int], kind: str, dtype: torch.dtype) -> None:
        self.dtype = dtype
        query, positive, keys = (rows.to(dtype) for rows in data.triple(*size, kind))
        self.given = (query, positive, keys)
        self.wide = (query.float(), positive.float(), keys.float())
        kind = "" if kind == "spread" else f", {kind} rows"
        self.group = f"{data.shape(*size)}, {'float32' if dtype == torch.float32 else 'bf16'}{kind}"
        self.ours = slope(ours(HARDEST), *self.given)

    def against(self, name: str, loss: Loss, least: float | None = None, same: str = HARDEST) -> Row:
        """same: the method of ours whose results are theirs, where that is not the one that is timed."""
        theirs = slope(loss, *self.wide)
        check = agree(slope(ours(same), *self.given), theirs, *TOLERANCE[self.dtype])
        return compare(self.group, name, self.ours, theirs, Target(least) if least else None, check=check)

    def against_lightly(self, least: float | None = None) -> Row:
        """Ours is `Contrast` with a `Queue`: both sides put the keys into their memory."""
        name, target = "lightly's bank, nothing chosen", Target(least) if least else None
        lightly = peer("lightly.loss")
        if lightly is None:
            return absent(self.group, name, target)
        query, positive, keys = self.wide

        def theirs() -> Computes:
            loss = lightly.NTXentLoss(TEMPERATURE, memory_bank_size=tuple(keys.shape))
            loss.memory_bank.bank.copy_(keys)
            return slope(loss, query, positive)

        def mine(method: str) -> Computes:
            memory = onca.Queue(*keys.shape, start="random", dtype=self.dtype)
            memory.keys.copy_(keys)
            return slope(onca.Contrast(method, TEMPERATURE, memory), *self.given[:2])

        check = agree(mine("infonce"), theirs(), *TOLERANCE[self.dtype])
        return compare(self.group, name, mine(HARDEST), theirs(), target, check=check)

    def normalised(self, most: float | None = None) -> Row:
        target = Target(most, most=True) if most else None
        normal = slope(ours(HARDEST, normalize=True), *self.given)
        # a row that was rounded is no unit row any more: bf16 moves its length by 1e-3
        check = agree(normal, self.ours, 1e-5 if self.dtype == torch.float32 else 1e-2, 1)
        return compare(
            self.group, "normalize=True / normalize=False", normal, self.ours, target, over=True, check=check
        )

    def limit(self, most: float | None = None) -> Row:
        """Ours against two products, in whichever type this processor is quicker."""
        sides = {str(t).removeprefix("torch."): products(*(self.given[i].to(t) for i in (0, 2))) for t in TOLERANCE}
        spent = {name: min(clock(side)[0] for _ in range(4)) for name, side in sides.items()}
        name = min(spent, key=spent.__getitem__)
        target = Target(most, most=True) if most else None
        return compare(self.group, f"ours / limit: 2 {name} products", self.ours, sides[name], target, over=True)


def products(query: Tensor, keys: Tensor) -> Side:
    """query @ keys.T and its product with keys, tile by tile: the arithmetic of a loss and its gradient."""
    tile, toward = query.new_empty(len(query), WIDTH), torch.zeros_like(query)

    def call() -> list[Tensor]:
        toward.zero_()
        for part in torch.split(keys, WIDTH):
            scores = tile if len(part) == WIDTH else tile[:, : len(part)].clone()
            toward.addmm_(torch.mm(query, part.T, out=scores), part)
        return [toward]

    return call


def bf16(size: tuple[int, int, int]) -> list[Row]:
    sides = Sides(size, "spread", torch.bfloat16)
    return [
        sides.against("torch.topk", by_topk, 15),
        sides.against("numpy argpartition", by_partition, 12),
        sides.against("torch.sort", by_sort, 90),
        sides.against("MoCo logits, nothing chosen", logits, 15, same="infonce"),
        sides.against_lightly(17),
        sides.limit(3),
        sides.normalised(1.15),
    ]


def float32(size: tuple[int, int, int]) -> list[Row]:
    sides = Sides(size, "spread", torch.float32)
    return [
        sides.against("torch.topk", by_topk, 5),
        sides.against("numpy argpartition", by_partition, 4),
        sides.against("torch.sort", by_sort),
        sides.against("MoCo logits, nothing chosen", logits, same="infonce"),
        sides.against_lightly(),
        sides.limit(),
        sides.normalised(),
    ]


def small(size: tuple[int, int, int]) -> list[Row]:
    half, full = (Sides(size, "spread", dtype) for dtype in (torch.bfloat16, torch.float32))
    return [
        half.against("torch.topk", by_topk, 10),
        half.against("torch.sort", by_sort, 40),
        full.against("torch.topk", by_topk),
        full.against("torch.sort", by_sort),
    ]


def other_rows(size: tuple[int, int, int]) -> list[Row]:
    """The time of a selection depends on how scores lie around its edge."""
    return [Sides(size, kind, torch.float32).against("torch.topk", by_topk) for kind in data.KINDS[1:]]


def table(large: tuple[int, int, int] = (256, 65_536, 128), little: tuple[int, int, int] = (256, 4_096, 128)) -> Table:
    """The hardest 5 % of a memory, forward and backward."""
    rows = [*bf16(large), *float32(large), *small(little), *other_rows(large)]
    return Table("window", "the hardest 5 % of the negatives, forward and backward", tuple(rows), CHECKED)


if __name__ == "__main__":
    main(table)
