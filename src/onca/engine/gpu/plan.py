"""Shapes of tiles, splits and lists, chosen from sizes and types alone; tensors as kernels take them."""

# mypy: disable-error-code="import-untyped, import-not-found"

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from onca.engine.gpu import interpreted
from onca.engine.kernels import View, words

HALF = (torch.bfloat16, torch.float16)
INTERPRETED = interpreted()  # as the kernels are, from their import on
SCRATCH = 1 << 26  # bytes that lists and samples of one block of queries may take
constexpr = triton.language.constexpr


class Operands(NamedTuple):
    """A view for kernels. query [rows * views, dim], key [columns, dim]; factors float32; present [rows, words];
    place [columns] with span, the smallest and largest of them. The rest are constants of the compiled kernel:
    a tile is height x 64 scores, made of products over `step` dimensions; wide: in float32 (tiles.product)."""

    query: Tensor
    query_stride: int
    query_factor: Tensor | None
    key: Tensor
    key_stride: int
    key_factor: Tensor | None
    present: Tensor | None
    place: Tensor | None
    span: Tensor | None
    rows: int
    columns: int
    words: int
    dim: Any
    views: Any
    step: Any
    height: Any
    wide: Any

    def part(self, rows: slice) -> Operands:
        """Some of the queries."""
        views = self.views.value
        inner = slice(rows.start * views, rows.stop * views)
        factor = None if self.query_factor is None else self.query_factor[inner]
        present = None if self.present is None else self.present[rows]
        return self._replace(query=self.query[inner], query_factor=factor, present=present, rows=rows.stop - rows.start)

    @property
    def blocks(self) -> int:
        return -(-self.rows // int(self.height.value))

    @property
    def options(self) -> dict[str, int]:
        """How a kernel that scores is launched. The same for all, so that all make the same bits."""
        return {"num_warps": self.height.value // 16, "num_stages": 2 if self.wide.value else 3}


class Lists(NamedTuple):
    """What streaming leaves for finishing. chosen int64 [E,rows,words] with `stride` from edge to edge; value, column
    [E,rows,splits,capacity]: the candidates; filled int32 [E,rows,splits]: how many there were."""

    chosen: Tensor
    stride: int
    value: Tensor
    column: Tensor
    filled: Tensor
    splits: int
    capacity: int


class Found(NamedTuple):
    """The rank-th entries [E,rows]: score, place; failed: no rank found in the list; tied: others score the same."""

    score: Tensor
    place: Tensor
    failed: Tensor
    tied: Tensor


class Partial(NamedTuple):
    """Sums of splits (exponentials.sums_kernel)."""

    top: Tensor
    total: Tensor
    mean: Tensor | None
    slope: Tensor | None


def operands(view: View) -> Operands:
    query, keys = _plain(view.query), _plain(view.keys)
    (rows, columns), dim, views = view.shape, keys.shape[1], query.shape[1] if query.dim() == 3 else 1
    query = query.reshape(-1, dim)
    wide = INTERPRETED or query.dtype != keys.dtype or keys.dtype not in HALF
    height = 16 if INTERPRETED else 128 if rows >= 1024 and dim <= 128 and not wide else 64
    place = None if view.place is None else view.place.contiguous()
    return Operands(
        *(query, query.stride(0), _factor(view.query_factor)),
        *(keys, keys.stride(0), _factor(view.key_factor)),
        None if view.present is None else view.present.contiguous(),
        *(place, None if place is None else torch.stack(torch.aminmax(place))),
        *(rows, columns, words(columns)),
        *(constexpr(dim), constexpr(views)),
        constexpr(min(16 if wide else 128, max(16, power_of_two(dim)))),
        *(constexpr(height), constexpr(wide)),
    )


def splits(operands: Operands) -> int:
    """Parts that the keys are cut into, so that every processor of the device has two programs."""
    device = operands.query.device
    processors = torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 4
    return max(1, min(operands.words, math.ceil(2 * processors / operands.blocks)))


def drawn(columns: int) -> int:
    """How many keys are sampled: what makes a candidate's cost that of a few sampled ones."""
    return min(columns, max(1024, 1 << round(math.log2(4 * columns) * 2 / 3)))


def capacity(columns: int, sample: int, deviations: float, parts: int) -> int:
    """Slots of a split's list: for the rank with the widest bracket, the middle one, and chance on top."""
    half = deviations * 0.5 * math.sqrt(sample * (1 - sample / columns)) + 1
    mean = 2 * half / sample * columns / parts
    return min(round_up(math.ceil(1.25 * mean + 6 * math.sqrt(mean)) + 32, 16), 64 * math.ceil(words(columns) / parts))


def width(operands: Operands) -> int:
    """Dimensions of a slope that one program keeps."""
    most = 256 if operands.height.value == 64 and not operands.wide.value else 128
    return min(most, max(16, power_of_two(operands.dim.value)))


def power_of_two(number: int) -> int:
    return 1 << max(0, number - 1).bit_length()


def round_up(number: int, step: int) -> int:
    return -(-number // step) * step


def _plain(rows: Tensor) -> Tensor:
    return rows if rows.stride(-1) == 1 and (rows.dim() == 2 or rows.is_contiguous()) else rows.contiguous()


def _factor(factor: Tensor | None) -> Tensor | None:
    return None if factor is None else factor.float().contiguous()
