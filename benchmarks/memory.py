"""Extra memory of a loss and its gradient, as a share of the queries x keys matrix in float32: `python -m
benchmarks.memory [--json FILE]`. Linux only.

Each figure is the rise of the highest resident set of a fresh process over what it held with the rows in place, after
a small call has loaded what is loaded on first use; the median of three processes.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import data
from benchmarks.measure import Row, Table, Target, slope
from benchmarks.table import main
from benchmarks.window import Loss, by_topk, logits, ours

PROCESSES = 3
DENSE: dict[str, Loss] = {"torch.topk, hardest 5 %": by_topk, "MoCo logits, nothing chosen": logits}
WINDOWS = (
    "chain(keep(hardest(5)), infonce)", "chain(keep(hardest(1)), infonce)", "chain(keep(window(90, 95)), infonce)",
)  # fmt: skip
OTHERS = ("infonce", "chain(drop(hardest(0.1)), infonce)", "chain(keep(hardest(50)), infonce)")
MOST = 15
CLEAR, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
CHECKED = (
    "Shares are of 4 B N bytes. That these methods give the right results is checked in `window` and `methods`. The "
    "gradient of the queries is part of the extra memory; rows are not."
)


def peak(name: str, size: tuple[int, int, int], dtype: str) -> float:
    """Megabytes by which a loss and its gradient lift the highest resident set of this process."""
    torch.set_num_threads(1)
    loss = DENSE.get(name) or ours(name)

    def given(batch: int, keys: int) -> tuple[Tensor, ...]:
        return tuple(rows.to(getattr(torch, dtype)) for rows in data.triple(batch, keys, size[2]))

    slope(loss, *given(4, 4096))()
    call = slope(loss, *given(*size[:2]))
    CLEAR.write_text("5")  # the highest resident set starts anew
    before = highest()
    call()
    return highest() - before


def highest() -> float:
    """Megabytes of the highest resident set since it was last cleared."""
    line = next(line for line in STATUS.read_text(encoding="utf-8").splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def measured(name: str, size: tuple[int, int, int], dtype: str, most: float | None) -> Row:
    group, target = f"{data.shape(*size)}, {dtype}", Target(most, most=True) if most else None
    if not CLEAR.exists():
        return Row(group, name, target=target, note="needs /proc of Linux", state="not here")
    program = f"from benchmarks.memory import peak; print(peak({name!r}, {size!r}, {dtype!r}))"
    root, found = Path(__file__).parents[1], []
    for _ in range(PROCESSES):
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
        found.append(float(done.stdout))
    megabytes = statistics.median(found)
    share = 100 * megabytes * 2**20 / (4 * size[0] * size[1])
    return Row(
        f"{group}: share of 4 B N bytes",
        name,
        share,
        "%",
        target,
        more={"megabytes": found},
        note=f"{megabytes:.1f} MB",
    )


def table(size: tuple[int, int, int] = (256, 65_536, 128)) -> Table:
    """Extra memory against the queries x keys matrix."""
    rows = [measured(name, size, dtype, MOST) for dtype in ("float32", "bfloat16") for name in WINDOWS]
    rows += [measured(name, size, "float32", None) for name in (*OTHERS, *DENSE)]
    rows.sort(key=lambda row: row.group, reverse=True)
    return Table("memory", "extra memory of a loss and its gradient", tuple(rows), CHECKED)


if __name__ == "__main__":
    main(table)
