"""Runs side by side: processes of one torch thread each, kept alive from run to run.

A worker is `python -m onca.study.worker`: jobs go to it as lines of JSON on its standard input, news come as lines of
JSON from its standard output, whatever else it prints goes to a log. One thread each, because two torch threads each on
two cores slowed runs down fifteen-fold, and because results then do not depend on the number of cores.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from onca.train import Run

STOP_SECONDS = 60.0  # in which a worker that was told to stop writes its checkpoint
ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")


@dataclass(frozen=True)
class News:
    """What happened to a run: kind "tick" (step, steps, images_per_second, loss), "done" or "failed" (error)."""

    run: Run
    kind: str
    facts: Mapping[str, Any]


def work_through(
    runs: Sequence[Run], workers: int, logs: Path, edges: tuple[float, ...] = (), inside: Run | None = None
) -> Iterator[News]:
    """Trains all runs, at most `workers` at a time, and yields what happens. One that fails does not stop the others.

    edges: percentiles at which the share of the loss is cut in runs of plain InfoNCE; none, and it is not measured.
    inside: the run among them that is looked into.

    When the caller stops listening (Ctrl-C), workers are told to stop; each leaves a checkpoint first.
    """
    waiting = list(reversed(runs))
    arrived: queue.Queue[tuple[Worker, dict[str, Any] | None]] = queue.Queue()
    with ExitStack() as stack:
        team = [
            stack.enter_context(Worker(logs / f"worker-{n}.log", arrived, edges, inside))
            for n in range(min(workers, len(runs)))
        ]
        for worker in team:
            worker.give(waiting.pop())
        while any(worker.run for worker in team):
            worker, facts = arrived.get()
            run = worker.run
            if run is None:
                continue  # a worker that had nothing to do has ended
            if facts is None:
                yield News(run, "failed", {"error": worker.last_words()})
                worker.start()
            else:
                yield News(run, facts["kind"], facts)
                if facts["kind"] == "tick":
                    continue
            worker.run = None
            if waiting:
                worker.give(waiting.pop())


class Worker:
    """One process and a thread that listens to it. `arrived` gets (worker, news), and (worker, None) at its end."""

    def __init__(
        self,
        log: Path,
        arrived: queue.Queue[tuple[Worker, dict[str, Any] | None]],
        edges: tuple[float, ...],
        inside: Run | None,
    ) -> None:
        self.log, self.arrived, self.edges, self.inside = log, arrived, edges, inside
        self.run: Run | None = None
        self.start()

    def start(self) -> None:
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "onca.study.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=os.environ | ONE_THREAD,
                start_new_session=True,  # Ctrl-C in the terminal reaches the study alone, which then stops its workers
            )
        threading.Thread(target=self._listen, args=(self.process,), daemon=True).start()

    def give(self, run: Run) -> None:
        self.run = run
        assert self.process.stdin is not None
        try:
            edges = self.edges if run.method == "infonce" else ()  # of the baseline: where does its loss come from?
            job = {"run": asdict(run), "edges": edges, "inside": run == self.inside}
            self.process.stdin.write(json.dumps(job) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass  # it has ended: the listening thread reports that, and the run as failed

    def last_words(self) -> str:
        lines = self.log.read_text(errors="replace").strip().splitlines()
        return f"the worker ended with code {self.process.wait()}" + (f": {lines[-1]}" if lines else "")

    def _listen(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self.arrived.put((self, json.loads(line)))
        self.arrived.put((self, None))

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *error: object) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        if self.run is not None:
            self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
