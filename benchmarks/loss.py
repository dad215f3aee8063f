"""The price of choosing negatives: time and memory of methods against the plain loss of a queue.

Both sides compute forward and backward for the queries, interleaved in one process; the unselected ones are checked
to give the same loss and gradient. Memory: the highest resident set of a fresh process, less what it held before.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

import onca

TEMPERATURE, REPEATS = 0.2, 9
METHODS = (
    "infonce",
    "chain(keep(hardest(5)), infonce)",
    "chain(keep(window(90, 95)), infonce)",
    "chain(drop(hardest(0.1)), infonce)",
    "chain(drop(hardest(0.1), refill=True), infonce)",
)
SHAPES = ((256, 4096, 128), (256, 65536, 128))


def inputs(batch: int, size: int, dim: int) -> tuple[Tensor, Tensor, Tensor]:
    """query [B,D] with gradient, positive [B,D], keys [N,D]: unit rows."""
    draw = torch.Generator().manual_seed(0)
    query, positive, keys = (functional.normalize(torch.randn(n, dim, generator=draw)) for n in (batch, batch, size))
    return query.requires_grad_(), positive, keys


def official(query: Tensor, positive: Tensor, keys: Tensor) -> Tensor:
    """The usual code: logits of positive and queue side by side, cross entropy."""
    logits = torch.cat([(query * positive).sum(1, keepdim=True), query @ keys.T], 1) / TEMPERATURE
    return functional.cross_entropy(logits, torch.zeros(len(query), dtype=torch.long))


def masked(query: Tensor, positive: Tensor, keys: Tensor, rank: int) -> Tensor:
    """A window the plain way: a mask over B x N, then logsumexp with autograd."""
    scores = query @ keys.T
    threshold = scores.detach().topk(rank, 1).values[:, -1:]
    inside = (scores / TEMPERATURE).masked_fill(scores < threshold, -torch.inf).logsumexp(1)
    own = (query * positive).sum(1) / TEMPERATURE
    return (torch.logaddexp(own, inside) - own).mean()


def ours(method: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    def loss(query: Tensor, positive: Tensor, keys: Tensor) -> Tensor:
        reserve = len(keys) // 16 if "refill" in method else 0
        return onca.contrast(query, positive, keys, method, TEMPERATURE, reserve=reserve, normalize=False)

    return loss


def step(loss: Callable[..., Tensor], values: tuple[Tensor, Tensor, Tensor]) -> float:
    values[0].grad = None
    start = time.perf_counter()
    loss(*values).backward()  # type: ignore[no-untyped-call]
    return 1000 * (time.perf_counter() - start)


def agree(values: tuple[Tensor, Tensor, Tensor]) -> None:
    """Both sides of the comparison compute the same, or it means nothing."""
    results = []
    for loss in (official, ours("infonce")):
        value = loss(*values)
        results.append((value.detach(), torch.autograd.grad(value, values[0])[0]))
    (plain, plain_slope), (found, slope) = results
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(slope, plain_slope, rtol=1e-4, atol=1e-7)


def rise(name: str, shape: tuple[int, int, int]) -> float:
    """Megabytes by which one forward and backward of `name` lifts the highest resident set of a fresh process."""
    program = f"from benchmarks.loss import peak; print(peak({name!r}, {shape!r}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return float(done.stdout)


def peak(name: str, shape: tuple[int, int, int]) -> float:
    torch.set_num_threads(1)
    values, small = inputs(*shape), inputs(4, 64, shape[2])
    rank = shape[1] // 20
    loss: Callable[..., Tensor] = (lambda *v: masked(*v, min(rank, len(v[2])))) if name == "masked" else ours(name)
    step(loss, small)  # what is loaded on first use is not the loss's own
    Path("/proc/self/clear_refs").write_text("5")  # the highest resident set starts anew (Linux)
    before = highest()
    step(loss, values)
    return highest() - before


def highest() -> float:
    """Megabytes of the highest resident set since it was last cleared."""
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024


def main() -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    rows = []
    for shape in SHAPES:
        values = inputs(*shape)
        agree(values)
        rank = shape[1] // 20
        sides: dict[str, Callable[..., Tensor]] = {
            "logits and cross entropy, nothing chosen": official,
            "mask over B x N, hardest 5 %": lambda *v, rank=rank: masked(*v, rank),
        } | {method: ours(method) for method in METHODS}
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(REPEATS):
            for name, loss in sides.items():
                times[name].append(step(loss, values))
        base = statistics.median(times["logits and cross entropy, nothing chosen"])
        for name, spent in times.items():
            middle = statistics.median(spent)
            rows.append(
                {"name": f"{shape[0]} x {shape[1]} x {shape[2]}: {name}", "median ms": middle, "min ms": min(spent),
                 "to nothing chosen": middle / base}
            )  # fmt: skip
    shape = SHAPES[-1]
    base = rise("masked", shape)
    for method in ("masked", "infonce", "chain(keep(hardest(5)), infonce)"):
        megabytes = base if method == "masked" else rise(method, shape)
        name = "mask over B x N, hardest 5 %" if method == "masked" else method
        rows.append({"name": f"peak memory: {name}", "MB": megabytes, "share of the mask's": megabytes / base})
    return rows


if __name__ == "__main__":
    for row in main():
        print(row)
