"""Losses whose keys are the batch itself and want gradients too, against autograd: `python -m benchmarks.batch
[--json FILE]`.

SimCLR's loss (NT-Xent): z [B,D] holds both views of B/2 images, each row's positive is the other view of its image,
and all other rows are its negatives. CLIP's: rows of one tower against those of the other, both ways, and the mean.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

import onca
from benchmarks import data, machine
from benchmarks.measure import Computes, Row, Table, Target, absent, agree, compare, peer, slope
from benchmarks.table import main

TEMPERATURE = 0.2
NO_COMPILER = "torch.compile needs a C++ compiler: install g++, or name one in CXX"
FLOAT32 = (1e-5, 1e-3)
BF16 = (1e-5, 4e-3)
NONE = (None, None)
HALF_LOGITS = (2e-3, 4e-2)
CHECKED = (
    "Checked before timing: losses within 1e-5, gradients (of both towers for CLIP's loss) within 1e-3 of their "
    "length in float32 and 4e-3 in bf16 (rounding a gradient to bf16 is 2^-9). `under autocast` rounds its logits "
    "to 8 bits: loss 2e-3, gradient 4e-2; all other rows of theirs get bf16 rows widened to float32 before the "
    "clock starts. Compiling is not timed."
)


class SimCLR:
    def __init__(self, size: int) -> None:
        self.index = torch.arange(size // 2).repeat(2)
        self.partner = torch.arange(size).roll(size // 2)
        self.own = torch.eye(size, dtype=torch.bool)

    def ours(self, z: Tensor) -> Tensor:
        index = {"index": self.index, "negative_index": self.index}
        return onca.contrast(z, z[self.partner], z, "infonce", TEMPERATURE, normalize=False, **index)

    def dense(self, z: Tensor) -> Tensor:
        logits = (z @ z.T / TEMPERATURE).masked_fill(self.own, -torch.inf)
        return functional.cross_entropy(logits, self.partner)


class CLIP:
    def __init__(self, size: int) -> None:
        self.index = torch.arange(size)

    def ours(self, one: Tensor, other: Tensor) -> Tensor:
        return (self._way(one, other) + self._way(other, one)) / 2

    def _way(self, query: Tensor, keys: Tensor) -> Tensor:
        index = {"index": self.index, "negative_index": self.index}
        return onca.contrast(query, keys, keys, "infonce", TEMPERATURE, normalize=False, **index)

    def dense(self, one: Tensor, other: Tensor) -> Tensor:
        logits = one @ other.T / TEMPERATURE
        return (functional.cross_entropy(logits, self.index) + functional.cross_entropy(logits.T, self.index)) / 2


def compiled(group: str, loss: Callable[..., Tensor], ours: Computes, rows: list[Tensor], allowed: tuple[float, ...],
             target: Target | None) -> Row:  # fmt: skip
    name = "torch.compile of it"
    if machine.compiler() is None:
        return Row(group, name, target=target, note=NO_COMPILER, state="not here")
    torch.compiler.reset()
    theirs = slope(torch.compile(loss, dynamic=False), *rows, keys=True)
    return compare(group, name, ours, theirs, target, check=agree(ours, theirs, *allowed))


def under_autocast(group: str, loss: Callable[..., Tensor], ours: Computes, rows: list[Tensor]) -> Row:
    def cast(*values: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return loss(*values)

    theirs = slope(cast, *rows, keys=True)
    return compare(group, "autograd, under autocast to bf16", ours, theirs, check=agree(ours, theirs, *HALF_LOGITS))


def lightly_loss(group: str, ours: Computes, rows: list[Tensor]) -> Row:
    name, lightly = "lightly NTXentLoss", peer("lightly.loss")
    if lightly is None:
        return absent(group, name)
    loss = lightly.NTXentLoss(TEMPERATURE)
    theirs = slope(lambda z: loss(*z.chunk(2)), *rows, keys=True)
    # it brings rows to unit length, so its gradient has no part along them: losses alone are compared
    return compare(group, name, ours, theirs, check=agree(ours, theirs, 1e-5, torch.inf))


def metric_learning(group: str, ours: Computes, rows: list[Tensor], index: Tensor) -> Row:
    name, losses = "pytorch-metric-learning SupConLoss", peer("pytorch_metric_learning.losses")
    if losses is None:
        return absent(group, name)
    loss = losses.SupConLoss(TEMPERATURE)
    theirs = slope(lambda z: loss(z, index), *rows, keys=True)
    return compare(group, name, ours, theirs, check=agree(ours, theirs, 1e-5, torch.inf))


def views(size: int, dim: int) -> Tensor:
    """Unit rows [size,dim]: the second half are views of the images of the first."""
    query, positive, _ = data.triple(size // 2, 1, dim)
    return torch.cat([query, positive])


def against(
    loss: SimCLR | CLIP, title: str, rows: list[Tensor], dtype: torch.dtype, least: tuple[float | None, ...]
) -> list[Row]:
    """Autograd and torch.compile; least: targets of the two."""
    group = f"{title}, {len(rows[0]):,} x {rows[0].shape[1]}, {'float32' if dtype == torch.float32 else 'bf16'}"
    targets = [Target(value) if value else None for value in least]
    given = [part.to(dtype) for part in rows]
    wide, allowed = [part.float() for part in given], FLOAT32 if dtype == torch.float32 else BF16
    ours, theirs = slope(loss.ours, *given, keys=True), slope(loss.dense, *wide, keys=True)
    check = agree(ours, theirs, *allowed)
    found = [compare(group, "autograd cross-entropy", ours, theirs, targets[0], check=check)]
    found.append(compiled(group, loss.dense, ours, wide, allowed, targets[1]))
    if dtype == torch.bfloat16:
        found.append(under_autocast(group, loss.dense, ours, wide))
    elif isinstance(loss, SimCLR):
        found += [lightly_loss(group, ours, wide), metric_learning(group, ours, wide, loss.index)]
    return found


def table(size: int = 4096, dim: int = 128) -> Table:
    """In-batch losses against autograd."""
    z, (one, other, _) = views(size, dim), data.triple(size, 1, dim)
    rows = [
        *against(SimCLR(size), "SimCLR's loss", [z], torch.float32, (4, 2)),
        *against(SimCLR(size), "SimCLR's loss", [z], torch.bfloat16, (6, 3)),
        *against(CLIP(size), "CLIP's loss", [one, other], torch.float32, NONE),
        *against(CLIP(size), "CLIP's loss", [one, other], torch.bfloat16, NONE),
    ]
    return Table("batch", "in-batch losses, forward and backward, keys with gradients", tuple(rows), CHECKED)


if __name__ == "__main__":
    main(table)
