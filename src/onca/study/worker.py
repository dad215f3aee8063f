"""A program that trains one run after the other: jobs come as lines of JSON on standard input, news go to its output.

A job is {"run": fields of a `Run`, "edges": where to cut its share of the loss, or none, "inside": whether it is to be
looked into}. News are of kind "tick", "done" (with the result) or "failed" (with the error). It ends when its standard
input does.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import torch

from onca.study.inside import followed
from onca.train import Interrupted, Run, Tick, begun, load_data, plain, train
from onca.train.loss_share import write_loss_share

TICK_SECONDS = 0.3  # between two ticks of one run


_data = lru_cache(maxsize=4)(load_data)


def work() -> None:
    """Reads runs and tells what happens to them, as lines of JSON."""
    torch.set_num_threads(1)
    news = os.fdopen(os.dup(1), "w", buffering=1)  # lines of JSON; prints of libraries go to the log
    os.dup2(2, 1)

    def tell(kind: str, **facts: Any) -> None:
        print(json.dumps({"kind": kind, **facts}), file=news)

    for line in sys.stdin:
        job, told = json.loads(line), 0.0
        run = Run(**job["run"])

        def watch(tick: Tick) -> None:
            nonlocal told
            if time.monotonic() - told >= TICK_SECONDS or tick.step == tick.steps:
                told = time.monotonic()
                tell("tick", **asdict(tick))

        try:
            data = _data(plain(run))
            resume = begun(run)
            if job["inside"]:
                result = followed(run, data, resume, watch)
            else:
                result = train(run, resume=resume, watch=watch, data=data)
            if job["edges"]:
                write_loss_share(run, data, job["edges"])
        except Interrupted:
            return
        except BrokenPipeError:
            raise  # nobody listens any more
        except Exception as problem:  # noqa: BLE001 - any failure of one run is reported, and the study goes on
            traceback.print_exc()
            tell("failed", error=traceback.format_exception_only(problem)[-1].strip())
        else:
            tell("done", result=result)


if __name__ == "__main__":
    work()
