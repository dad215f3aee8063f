"""Selection on a CUDA device, by CUDA events: `python -m benchmarks.gpu [--json FILE]`. Without one: a note, no table.

First the tests of the engine run on the device, and results at the measured sizes are compared with a stable sort;
then ours and theirs are timed in turn. Inputs go round among copies that together exceed the 50 MB of an H100's L2.
"""

from __future__ import annotations

import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks import data, table
from benchmarks.measure import MOST, PAIRS, Row, Table, Target, Unequal, quiet

TEMPERATURE = 0.2
SHARE = 0.05  # the hardest
ROWS = 64  # of each measured result that are compared with a sort
COPIES = 5
TESTS = Path(__file__).parent.parent / "tests" / "triton_cases.py"
CHECKED = (
    "Checked before timing: the engine's tests on this device; at each size the sets of 64 queries against a stable "
    "sort of the engine's own scores, their sums within 1e-5 and slopes within 1e-2 (weights are rounded to bf16) of "
    "float64. Theirs score in bf16, as their product leaves them. Ours includes select's wait for the device, except "
    "as a graph."
)

Step = Callable[[int], object]  # one forward pass with the gradient by queries, on the i-th copy of the inputs


@dataclass(frozen=True)
class Size:
    """targets: of ours in milliseconds, and of the ratios, by the name of the other side."""

    batch: int
    keys: int
    dim: int
    least: int
    milliseconds: float | None = None
    ratios: tuple[tuple[str, float], ...] = ()

    @property
    def hardest(self) -> int:
        return int(self.keys * SHARE + 0.5)


SIZES = (
    Size(256, 65536, 128, PAIRS, 0.08, (("topk", 8), ("sort", 80), ("no selection, compiled", 1))),
    Size(4096, 65536, 128, PAIRS, 0.5, (("topk", 10), ("sort", 80), ("no selection, compiled", 1))),
    Size(8192, 1 << 20, 256, 3),
)


def main() -> list[Row]:
    if not torch.cuda.is_available():
        print("== gpu: no CUDA device here: nothing is measured")
        return []
    table.main(make)
    return []


def make() -> Table:
    """All sizes."""
    tested = subprocess.run([sys.executable, "-m", "pytest", "-q", str(TESTS)], check=False).returncode == 0
    device = torch.cuda.get_device_properties(0)
    about = {"device": device.name, "memory": device.total_memory, "cuda": torch.version.cuda, "tests passed": tested}
    rows = [replace(row, more=row.more | about) for size in SIZES for row in measured(size)]
    if not tested:
        rows.insert(0, Row("the device", "tests/triton_cases.py", state="unequal", note="tests fail", more=about))
    return Table("gpu", f"The hardest 5 %, forward and gradient by queries, bf16, {device.name}", tuple(rows), CHECKED)


def measured(size: Size) -> list[Row]:
    group = data.shape(size.batch, size.keys, size.dim)
    torch.cuda.empty_cache()
    inputs = copies(size)
    try:
        differences = checked(size, *inputs[0])
    except Unequal as problem:
        return [Row(group, "ours", state="unequal", note=f"not timed, {problem}")]
    steps = {"ours": ours(size, inputs), "graph": captured(size, inputs)}
    memory = extra_memory(steps["ours"])
    seconds = turns(steps, size.least)
    share = memory / (4 * size.batch * size.keys)
    note = f"extra memory {memory / 1e6:.0f} MB, {100 * share:.1f} % of the scores in float32"
    rows = []
    for name in steps:
        target = Target(size.milliseconds, most=True) if size.milliseconds and name == "graph" else None
        found = 1e3 * statistics.median(seconds[name])
        rows.append(Row(group, name, found, "ms", target, seconds[name], note=note, differences=differences))
    if size.batch * size.keys < 1 << 30:
        rows += [against(group, name, ratio, steps["ours"], inputs, size) for name, ratio in size.ratios]
    return rows


def against(group: str, name: str, ratio: float, own: Step, inputs: list[tuple[Tensor, Tensor]], size: Size) -> Row:
    other = OTHERS[name](size, inputs)
    seconds = turns({"ours": own, "theirs": other}, size.least)
    found = statistics.median(b / a for a, b in zip(seconds["ours"], seconds["theirs"], strict=True))
    more = {"extra bytes of theirs": extra_memory(other)}
    return Row(group, name, found, "x", Target(ratio), seconds["ours"], seconds["theirs"], more=more)


def copies(size: Size) -> list[tuple[Tensor, Tensor]]:
    """(query, keys) in bf16, several times over where the keys are small."""
    count = COPIES if size.keys * size.dim * 2 < 50e6 else 1
    generator = torch.Generator("cuda").manual_seed(0)

    def unit(rows: int) -> Tensor:
        noise = torch.randn(rows, size.dim, device="cuda", generator=generator)
        return torch.nn.functional.normalize(noise).bfloat16()

    return [(unit(size.batch), unit(size.keys)) for _ in range(count)]


def ours(size: Size, inputs: list[tuple[Tensor, Tensor]]) -> Step:
    from onca.engine import gpu
    from onca.engine.kernels import View

    engine = gpu.Triton()
    rank = torch.full((size.batch, 1), size.hardest, device="cuda")

    def step(turn: int) -> tuple[Tensor | None, ...]:
        query, keys = inputs[turn % len(inputs)]
        selected = engine.select(View(query, keys), rank)
        sums: tuple[Tensor | None, ...] = engine.sums(
            View(query, keys, present=selected.chosen[0]), [1 / TEMPERATURE], 1
        )
        return sums

    return step


def captured(size: Size, inputs: list[tuple[Tensor, Tensor]]) -> Step:
    """Ours as a CUDA graph for each copy of the inputs."""
    step = ours(size, inputs)
    graphs = []
    for turn in range(len(inputs)):
        step(turn)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            step(turn)
        graphs.append(graph)
    return lambda turn: graphs[turn % len(graphs)].replay()


def by(choose: Callable[[Tensor, int], Tensor]) -> Callable[[Size, list[tuple[Tensor, Tensor]]], Step]:
    """A step in torch that chooses among all scores [B,N], and autograd."""

    def make(size: Size, inputs: list[tuple[Tensor, Tensor]]) -> Step:
        def step(turn: int) -> Tensor:
            query, keys = inputs[turn % len(inputs)]
            query = query.detach().requires_grad_()
            loss = (choose(query @ keys.T, size.hardest).float() / TEMPERATURE).logsumexp(1).sum()
            return torch.autograd.grad(loss, query)[0]

        return step

    return make


def compiled(size: Size, inputs: list[tuple[Tensor, Tensor]]) -> Step:
    """Plain InfoNCE's denominator over all keys, fused as torch.compile does it."""

    @torch.compile
    def loss(query: Tensor, keys: Tensor) -> Tensor:
        return ((query @ keys.T).float() / TEMPERATURE).logsumexp(1).sum()

    def step(turn: int) -> Tensor:
        query, keys = inputs[turn % len(inputs)]
        query = query.detach().requires_grad_()
        return torch.autograd.grad(loss(query, keys), query)[0]

    return step


OTHERS: dict[str, Callable[[Size, list[tuple[Tensor, Tensor]]], Step]] = {
    "topk": by(lambda scores, count: scores.topk(count, sorted=False).values),
    "sort": by(lambda scores, count: scores.sort(descending=True).values[:, :count]),
    "no selection, compiled": compiled,
}


def checked(size: Size, query: Tensor, keys: Tensor) -> dict[str, float]:
    """Some rows of the result at full size: sets exactly, sums and slopes against float64."""
    from onca.engine import gpu
    from onca.engine.kernels import View, unpack

    engine, some = gpu.Triton(), slice(0, size.batch, math.ceil(size.batch / ROWS))
    chosen = engine.select(View(query, keys), torch.full((size.batch, 1), size.hardest, device="cuda")).chosen[0]
    (lse,), slopes, _ = engine.sums(View(query, keys, present=chosen), [1 / TEMPERATURE], 1)
    order = engine.scores(View(query, keys))[some] if size.batch * size.keys < 1 << 30 else None
    if order is None:
        order = engine.scores(View(query[some].contiguous(), keys))
    hardest = order.sort(dim=1, descending=True, stable=True).indices[:, : size.hardest]
    there = unpack(chosen[some].contiguous(), size.keys)
    wrong = int((~there.gather(1, hardest)).sum()) + abs(int(there.sum()) - hardest.numel())
    if wrong:
        raise Unequal(f"{wrong} entries of {hardest.numel()} are chosen otherwise than by a stable sort")
    exact_query = query[some].double().requires_grad_()
    logits = (exact_query @ keys.double().T / TEMPERATURE).masked_fill(~there, -torch.inf).logsumexp(1)
    exact = torch.autograd.grad(logits.sum(), exact_query)[0]
    assert slopes is not None
    away = {
        "sums": float((lse[some] - logits).abs().max()),
        "slopes": float((slopes[0, some] - exact).norm() / exact.norm()),
    }
    if away["sums"] > 1e-5 or away["slopes"] > 1e-2:
        raise Unequal(f"sums differ by {away['sums']:.1e}, slopes by {away['slopes']:.1e}")
    return away


def turns(steps: dict[str, Step], least: int) -> dict[str, tuple[float, ...]]:
    """Seconds of each step on the device, each in turn first."""
    for step in steps.values():
        for turn in range(3):
            step(turn)
    torch.cuda.synchronize()
    events: dict[str, list[tuple[Any, Any]]] = {name: [] for name in steps}
    with quiet():
        for turn in range(min(MOST, least * 3)):
            names = list(steps)
            for name in names if turn % 2 == 0 else reversed(names):
                begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
                begin.record()
                steps[name](turn)
                end.record()
                events[name].append((begin, end))
                torch.cuda.synchronize()
    return {name: tuple(begin.elapsed_time(end) / 1e3 for begin, end in took) for name, took in events.items()}


def extra_memory(step: Step) -> int:
    """Bytes at the peak of one step beyond what is held before it."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    step(0)
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


if __name__ == "__main__":
    main()
