"""What a person sees of a long walk: a bar in a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from onca.analyse.agreement import Watch

PLAIN_SECONDS = 15.0  # between two plain lines


@contextmanager
def progress(title: str, unit: str) -> Iterator[Watch]:
    """What is told how many units are done, of how many, and shows it on standard error with the time that is left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield _plain(title, unit)
        return
    done = TextColumn("{task.completed:.0f}/{task.total:.0f} " + unit)
    columns = (TextColumn("{task.description}"), BarColumn(), done, TimeRemainingColumn(compact=True))
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=1)
        yield lambda done, of: bar.update(task, completed=done, total=of)


def _plain(title: str, unit: str) -> Watch:
    begun = said = time.monotonic()

    def tell(done: int, of: int) -> None:
        nonlocal said
        now = time.monotonic()
        if now - said >= PLAIN_SECONDS:
            said = now
            left = (now - begun) / max(done, 1) * (of - done)
            print(f"{title}: {done:,} of {of:,} {unit}, about {left:.0f} s left", file=sys.stderr, flush=True)

    return tell
