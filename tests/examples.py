"""Runs examples of the docs, each page in a process of its own that has loaded nothing but onca."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path

# Loading torch takes longer than most examples do: one process has done so, and a fork of it runs each page. Of onca it
# has loaded what `import onca` does and no more, so that an example that forgets an import fails.
LOADED = ["onca", "scipy.stats", "torchvision"]
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(LOADED)


def run_examples(blocks: Sequence[str], place: Path) -> tuple[int, str]:
    """The exit code, and all that was printed, of blocks of Python that run in a folder, each with names of its own."""
    printed = place / "printed.txt"
    process = FORKS.Process(target=_run, args=(blocks, place, printed))
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode, printed.read_text(encoding="utf-8")


def _run(blocks: Sequence[str], place: Path, printed: Path) -> None:
    with printed.open("w", encoding="utf-8") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)
    os.chdir(place)
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"example {number}", "exec"), {})
