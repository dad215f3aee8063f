"""Views by the native engine: one call of the C function of `engine/c/views.h` for a whole batch."""

from __future__ import annotations

import ctypes
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from onca.engine import in_use

from .blur import check_taps
from .colour import JITTERS
from .crop import check_boxes

if TYPE_CHECKING:
    from .params import Params

STEPS = (*JITTERS, "grey", "blur")  # the place of an op is its code in views.h
PLACE, LONG = ctypes.c_void_p, ctypes.c_int64


class Job(ctypes.Structure):
    """`onca_view_job` of views.h."""

    _fields_ = (
        *((name, LONG) for name in ("count", "height", "width", "size")),
        *((name, PLACE) for name in ("bytes", "floats", "crop", "flip", "grey")),
        ("factor", PLACE * len(JITTERS)),
        ("blur", PLACE),
        *((name, LONG) for name in ("taps", "steps")),
        ("step", PLACE),
        ("threads", ctypes.c_int32),
        ("view", PLACE),
    )


def serves(params: Params, pixels: Tensor) -> bool:
    """Whether the native engine makes these views: it is in use, images are uint8 or float32 on the CPU, none turns."""
    on_cpu = pixels.device.type == params.crop.device.type == "cpu"
    known = pixels.dtype in (torch.uint8, torch.float32) and params.rotation is None
    return on_cpu and known and in_use("cpu").startswith("native")


def apply(params: Params, pixels: Tensor) -> Tensor:
    """What `onca.views.apply` makes, where the native engine `serves`. ValueError as there."""
    from onca.engine.native import library

    (count, _, height, width), jitter = pixels.shape, params.jitter
    check_boxes(params.crop, height, width)
    if params.blur is not None:
        check_taps(params.blur_taps, params.size)
    held: list[Tensor] = []  # what C reads lives until it has returned

    def at(tensor: Tensor | None, dtype: torch.dtype, *shape: int) -> int | None:
        if tensor is None:
            return None
        if tensor.shape != shape:
            raise ValueError(f"{count} views were given parameters of shape {list(tensor.shape)}, not {list(shape)}")
        held.append(tensor.detach().to("cpu", dtype).contiguous())
        return held[-1].data_ptr()

    steps = [STEPS.index(op) for op in _steps(params)]
    factors = [at(getattr(jitter, op) if jitter else None, torch.float32, count) for op in JITTERS]
    source = at(pixels, pixels.dtype, *pixels.shape)
    whole = pixels.dtype == torch.uint8
    view = torch.empty(count, 3, params.size, params.size)
    job = Job(
        *(count, height, width, params.size),
        *(source if whole else None, None if whole else source, at(params.crop, torch.int64, count, 4)),
        *(at(params.flip, torch.bool, count), at(params.grey, torch.bool, count)),
        (PLACE * len(JITTERS))(*factors),
        at(params.blur, torch.float32, count),
        *(params.blur_taps, len(steps), at(torch.tensor(steps, dtype=torch.int32), torch.int32, len(steps))),
        *(torch.get_num_threads(), view.data_ptr()),
    )
    if library().onca_views(ctypes.byref(job)):
        raise MemoryError("the native engine found no memory for making views")
    return view


def _steps(params: Params) -> list[str]:
    """The ops after the crop in the order in which they act, those of the jitter one by one; a flip is the crop's."""
    steps: list[str] = []
    for op in params.order:
        if op == "jitter" and params.jitter is not None:
            steps += params.jitter.order
        elif op in ("grey", "blur") and getattr(params, op) is not None:
            steps.append(op)
    return steps
