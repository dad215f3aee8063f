"""Methods against their dense torch forms with autograd, forward and backward: `python -m benchmarks.methods
[--json FILE]`.

A dense form holds the queries x keys matrix and does what the formula says, as the official codes do. As in `window`,
theirs get bf16 rows widened to float32 before the clock starts.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import onca
from benchmarks import data
from benchmarks.measure import Row, Table, Target, agree, compare, slope
from benchmarks.table import main
from benchmarks.window import TEMPERATURE, infonce

TAU, BETA, CLASSES = 0.1, 1.0, 100
LEAST = 10
TOLERANCE = {torch.float32: (1e-5, 1e-3), torch.bfloat16: (1e-5, 2e-2)}
CHECKED = (
    "Checked before timing: losses within 1e-5, gradients within 1e-3 of their length in float32, for the reasons "
    "that `window` gives, and 2e-2 in bf16: the parts of HCL's and the debiased gradient are each rounded to bf16 "
    "and partly cancel. The targets are those of bf16 rows; float32 is shown beside them."
)


@dataclass(frozen=True)
class Known:
    """label [B] and negative_label [N]; shown: keys before the reserve, which is newest first."""

    label: Tensor
    negative_label: Tensor
    shown: int


Dense = Callable[[Tensor, Tensor, Tensor, Known], Tensor]


def ranks(percent: float, keys: int) -> int:
    return int(keys * percent / 100 + 0.5)


def drop(query: Tensor, positive: Tensor, keys: Tensor, known: Known) -> Tensor:
    scores = query @ keys.T
    hardest = scores.topk(ranks(0.1, len(keys)), sorted=False).indices
    return infonce(query, positive, scores.scatter(1, hardest, -torch.inf))


def window(query: Tensor, positive: Tensor, keys: Tensor, known: Known) -> Tensor:
    scores = (query @ keys.T).topk(ranks(10, len(keys))).values
    return infonce(query, positive, scores[:, ranks(5, len(keys)) :])


def estimated(own: Tensor, tilted: Tensor, keys: int) -> Tensor:
    """The loss with the debiased estimate: own [B] = exp(s+ / t), tilted [B] = weighted mean of exp(s- / t)."""
    floor = math.exp(-1 / TEMPERATURE)
    others = keys * ((tilted - TAU * own) / (1 - TAU)).clamp_min(floor)
    return -(own / (own + others)).log().mean()


def debiased(query: Tensor, positive: Tensor, keys: Tensor, known: Known) -> Tensor:
    negative = (query @ keys.T / TEMPERATURE).exp()
    return estimated(((query * positive).sum(1) / TEMPERATURE).exp(), negative.mean(1), len(keys))


def hcl(query: Tensor, positive: Tensor, keys: Tensor, known: Known) -> Tensor:
    negative = (query @ keys.T / TEMPERATURE).exp()
    weight = (BETA * negative.log()).exp()
    tilted = (weight * negative).sum(1) / weight.mean(1) / len(keys)
    return estimated(((query * positive).sum(1) / TEMPERATURE).exp(), tilted, len(keys))


def same_class(query: Tensor, positive: Tensor, keys: Tensor, known: Known) -> Tensor:
    same = known.label[:, None] == known.negative_label
    return infonce(query, positive, (query @ keys.T).masked_fill(same, -torch.inf))


def refill(query: Tensor, positive: Tensor, keys: Tensor, known: Known) -> Tensor:
    """What goes out of the shown keys comes in from the reserve: its newest entries that are no harder than those."""
    shown, older = (query @ keys.T).split([known.shown, len(keys) - known.shown], 1)
    out = ranks(0.1, known.shown)
    hardest = shown.topk(out)
    able = older <= hardest.values[:, -1:]
    comes = able & (able.cumsum(1) <= out)
    left = shown.scatter(1, hardest.indices, -torch.inf)
    return infonce(query, positive, torch.cat([left, older.masked_fill(~comes, -torch.inf)], 1))


METHODS: dict[str, Dense] = {
    "chain(drop(hardest(0.1)), infonce)": drop,
    "chain(keep(window(90, 95)), infonce)": window,
    "hcl(beta=1, tau_plus=0.1)": hcl,
    "debiased(tau_plus=0.1)": debiased,
    "chain(drop(same_class), infonce)": same_class,
    "chain(drop(hardest(0.1), refill=True), infonce)": refill,
}


def measured(method: str, dense: Dense, size: tuple[int, int, int], dtype: torch.dtype) -> Row:
    batch, keys, dim = size
    reserve = keys // 16 if dense is refill else 0  # behind the keys that all methods see
    draw = torch.Generator().manual_seed(3)
    label = torch.randint(CLASSES, (batch,), generator=draw)
    known = Known(label, torch.randint(CLASSES, (keys + reserve,), generator=draw), keys)
    rows = [part.to(dtype) for part in data.triple(batch, keys + reserve, dim)]
    more: dict[str, Any] = {"reserve": reserve} if reserve else {}
    more |= {"label": label, "negative_label": known.negative_label} if dense is same_class else {}

    def loss(query: Tensor, positive: Tensor, negatives: Tensor) -> Tensor:
        return onca.contrast(query, positive, negatives, method, TEMPERATURE, normalize=False, **more)

    ours, theirs = slope(loss, *rows), slope(lambda *wide: dense(*wide, known), *(part.float() for part in rows))
    target = Target(LEAST) if dtype == torch.bfloat16 else None
    group = f"{data.shape(*size)}, {'bf16' if target else 'float32'}"
    return compare(group, method, ours, theirs, target, check=agree(ours, theirs, *TOLERANCE[dtype]))


def table(size: tuple[int, int, int] = (256, 65_536, 128)) -> Table:
    """Methods against their dense torch forms."""
    rows = [measured(*each, size, dtype) for dtype in (torch.bfloat16, torch.float32) for each in METHODS.items()]
    return Table("methods", "methods against their dense torch form, forward and backward", tuple(rows), CHECKED)


if __name__ == "__main__":
    main(table)
