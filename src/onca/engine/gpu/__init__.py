"""The Triton engine: CUDA tensors, and CPU tensors under the Triton interpreter (TRITON_INTERPRET=1).

    engine           Triton, as kernels.Kernels asks for one
    selection        the order of the kernels that select
    plan             shapes of tiles, splits, lists; tensors as kernels take them
    tiles            what a tile of scores is, for all kernels
    stream, rescue   selection: the fast path, and the one for rows where it failed
    sets             bits: made, counted, listed
    exponentials     sums and their slopes

This file can be imported where Triton is missing; `Triton`, taken from it, loads the rest.
"""

from __future__ import annotations

import importlib.util
import os
from typing import Any

import torch

from onca.engine.kernels import Absent


def interpreted() -> bool:
    """Would kernels imported now run on the CPU, one operation after the other?"""
    return os.environ.get("TRITON_INTERPRET") == "1"


def missing() -> str:
    """Why the engine cannot run in this process, in words; "" when it can."""
    if importlib.util.find_spec("triton") is None:
        return "Triton is not installed"
    if not interpreted() and not torch.cuda.is_available():
        return "there is no CUDA device"
    return ""


def __getattr__(name: str) -> Any:
    """`Triton`. Raises Absent, with the reason, where it cannot run."""
    if name != "Triton":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if why := missing():
        raise Absent(f"the Triton engine cannot run: {why}")
    from onca.engine.gpu.engine import Triton

    return Triton
