"""The Triton engine: what `kernels.Kernels` asks for, on CUDA tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from onca.engine import kernels
from onca.engine.gpu import plan, selection
from onca.engine.gpu.exponentials import back_kernel, merge_kernel, sums_kernel
from onca.engine.gpu.plan import Operands, Partial
from onca.engine.gpu.sets import above_kernel, collect_kernel, equal_kernel, hits_kernel, list_kernel, ones_kernel
from onca.engine.gpu.stream import score_kernel
from onca.engine.kernels import Hinged, NotFinite, Selected, Spread, Sums, View

MOST = 1024  # dimensions
HEIGHT = 64  # rows of bits that one program handles


@dataclass(frozen=True)
class Triton:
    """Kernels for CUDA. sample: keys that bracket a rank; deviations: half the bracket's width;
    room: slots of a list. Whatever they are, results are the same: a failing bracket only costs time."""

    sample: int | None = None
    deviations: float = 5.0
    room: int | None = None

    name: ClassVar[str] = "triton"

    def __str__(self) -> str:
        return f"{self.name} (interpreted)" if plan.INTERPRETED else self.name

    def serves(self, query: Tensor, keys: Tensor) -> str:
        types = (torch.float32, *plan.HALF)
        if query.device != keys.device:
            return "queries and keys are on different devices"
        if query.device.type != ("cpu" if plan.INTERPRETED else "cuda"):
            return f"tensors are on {query.device.type}"
        if query.is_cuda and query.device.index != torch.cuda.current_device():
            return f"tensors are on {query.device}, which is not the current device"
        if query.dtype not in types or keys.dtype not in types:
            return f"queries are {query.dtype} and keys {keys.dtype}: float32, bfloat16 and float16 are served"
        if keys.shape[-1] > MOST:
            return f"{keys.shape[-1]} dimensions: up to {MOST} are served"
        if 0 in query.shape or 0 in keys.shape or len(keys) >= 1 << 31:
            return "no queries, no keys, or 2^31 of them"
        return ""

    def scores(self, view: View) -> Tensor:
        given = plan.operands(view)
        score = torch.empty(view.shape, device=view.query.device)
        score_kernel[given.blocks, given.words](given, score, **given.options)
        return score

    def lengths(self, rows: Tensor) -> Tensor:
        length: Tensor = torch.linalg.vector_norm(rows, dim=1, dtype=torch.float32)
        return length

    def select(self, view: View, rank: Tensor) -> Selected:
        """Waits for the device once, for `tied` and to refuse what is not finite; not while a CUDA graph is captured:
        then `tied` is True, which is always safe, and what is not finite shows in the loss."""
        given = plan.operands(view)
        number = self._present(given)
        chosen, found = self._chosen(given, number, rank)
        score, place = found.score.t().contiguous(), found.place.t().contiguous()
        if rank.is_cuda and torch.cuda.is_current_stream_capturing():
            return Selected(score, place, chosen, True)
        tied, finite = torch.stack([found.tied.any(), _finite(view)]).tolist()
        if not finite:
            raise NotFinite("a score is not a number: queries or keys hold nan or inf")
        return Selected(score, place, chosen, tied)

    def above(self, view: View, bound: Tensor) -> Tensor:
        given = plan.operands(view)
        bits = torch.empty(given.rows, given.words, dtype=torch.int64, device=bound.device)
        splits = plan.splits(given)
        above_kernel[given.blocks, splits](given, bound.float().contiguous(), bits, splits, **given.options)
        return bits

    def nearest(self, view: View, k: int) -> tuple[Tensor, Tensor]:
        """The set of the k hardest, then their scores by a second look with the same tiles, then a sort of k."""
        given = plan.operands(view)
        number = self._present(given)
        chosen, _ = self._chosen(given, number, number.new_full((given.rows, 1), k))
        score = torch.full((given.rows, k), -torch.inf, device=number.device)
        column = torch.full((given.rows, k), -1, dtype=torch.int64, device=number.device)
        given, splits = given._replace(present=chosen[0]), plan.splits(given)
        passed = _passed(_ones(chosen[0]))
        collect_kernel[given.blocks, splits](given, passed, k, splits, score, column, **given.options)
        if given.place is not None:
            place = torch.where(column < 0, torch.iinfo(torch.int64).max, given.place[column])
            order = place.argsort(1)
            score, column = score.gather(1, order), column.gather(1, order)
        score, order = score.sort(dim=1, descending=True, stable=True)
        return score, column.gather(1, order)

    def sums(self, view: View, scales: Sequence[float], slopes: int) -> Sums:
        """One scale after the other."""
        found = [self._sums(view, scale, place < slopes) for place, scale in enumerate(scales)]
        lse, toward, mean = zip(*found, strict=True)
        return Sums(torch.stack(lse), _stacked(toward[:slopes]), _stacked(mean[:slopes]))

    def _sums(self, view: View, scale: float, slopes: bool) -> tuple[Tensor, Tensor | None, Tensor | None]:
        given = plan.operands(view)
        splits, width, dim = plan.splits(given), plan.width(given), given.dim.value
        top = torch.empty(splits, given.rows, device=view.query.device)
        lse = torch.empty(given.rows, device=view.query.device)
        mean, slope = (torch.empty_like(lse), lse.new_empty(given.rows, dim)) if slopes else (None, None)
        partial = Partial(top, torch.empty_like(top), None, None)
        if slopes:
            partial = partial._replace(mean=torch.empty_like(top), slope=top.new_empty(splits, given.rows, dim))
        twos = scale / math.log(2)
        chunks = math.ceil(dim / width) if slopes else 1
        sums_kernel[given.blocks, splits, chunks](
            given, twos, partial, splits, WIDTH=width, SLOPES=slopes, **given.options
        )
        whole = plan.power_of_two(dim)
        merge_kernel[(given.rows,)](given, twos, partial, splits, lse, slope, mean, WIDTH=whole, SLOPES=slopes)
        return lse, slope, mean

    def spread(self, view: View, scale: float, lse: Tensor, weight: Tensor, toward: bool, back: bool) -> Spread:
        own = mean = slope = by_factor = None
        if toward:
            _, own, mean = self._sums(view, scale, True)
            assert own is not None and mean is not None
            own, mean = own * weight[:, None], mean * weight
        if back:
            given = plan.operands(view)
            width, dim = plan.width(given), given.dim.value
            slope = torch.empty(given.columns, dim, device=weight.device)
            by_factor = torch.empty(given.columns, device=weight.device)
            back_kernel[given.words, math.ceil(dim / width)](
                *(given, scale / math.log(2), lse.float() / math.log(2), weight.float() * scale),
                *(slope, by_factor),
                WIDTH=width,
                **given.options | {"num_stages": 2},  # three do not fit the shared memory
            )
        return Spread(own, mean, slope, by_factor)

    def mutual_sums(self, view: View, scale: float) -> Tensor:
        return self._sums(view, scale, False)[0]

    def mutual(self, view: View, scale: float, lse: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        return kernels.both_ways(self, view, scale, lse, weight)

    def hinge(self, view: View, offset: Tensor, slopes: bool) -> Hinged:
        """Some rows against all keys at a time, with torch's own products for the slopes."""
        parts = [self._hinge(_rows(view, part), offset[part], slopes) for part in _parts(*view.shape)]
        total, active, toward, mass = (None if x[0] is None else torch.cat(x) for x in zip(*parts, strict=True))
        assert total is not None and active is not None
        return Hinged(total, active, toward, mass)

    def _hinge(self, view: View, offset: Tensor, slopes: bool) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        score = self.scores(view)
        above = score + offset[:, None] > 0
        if view.present is not None:
            above &= kernels.unpack(view.present, view.shape[1])
        share = above.to(score.dtype)
        total = ((score + offset[:, None]) * share).sum(1)
        if not slopes:
            return total, above.sum(1), None, None
        weight = share if view.key_factor is None else share * view.key_factor
        toward = weight @ view.keys.float()
        toward = toward if view.query_factor is None else toward * view.query_factor[:, None]
        return total, above.sum(1), toward, (score * share).sum(1)

    def equal(self, mine: Tensor, theirs: Tensor) -> Tensor:
        rows, columns = len(mine), len(theirs)
        bits = mine.new_empty(rows, kernels.words(columns))
        grid = (math.ceil(rows / HEIGHT), bits.shape[1])
        equal_kernel[grid](mine.contiguous(), theirs.contiguous(), rows, columns, bits.shape[1], bits, HEIGHT=HEIGHT)
        return bits

    def count(self, bits: Tensor, keys: int) -> Tensor:
        return _ones(bits).sum(1)

    def hits(self, bits: Tensor, keys: int) -> Tensor:
        number = bits.new_empty(keys)
        hits_kernel[(bits.shape[1],)](bits.contiguous(), len(bits), keys, bits.shape[1], number, HEIGHT=HEIGHT)
        return number

    def listed(self, bits: Tensor, keys: int, most: int) -> Tensor:
        rows, words = bits.shape
        column = bits.new_full((rows, most), -1)
        grid = (math.ceil(rows / HEIGHT), words)
        list_kernel[grid](bits.contiguous(), _passed(_ones(bits)), most, rows, words, column, HEIGHT=HEIGHT)
        return column

    def _present(self, given: Operands) -> Tensor:
        """How many entries each row has [B]."""
        if given.present is None:
            return torch.full((given.rows,), given.columns, device=given.query.device)
        return _ones(given.present).sum(1)

    def _chosen(self, given: Operands, number: Tensor, rank: Tensor) -> tuple[Tensor, plan.Found]:
        within = rank.clamp_min(0).minimum(number[:, None]).t().contiguous()
        sample = self.sample or plan.drawn(given.columns)
        return selection.chosen(given, number, within, sample, self.deviations, self.room)


def _stacked(values: Sequence[Tensor | None]) -> Tensor | None:
    there = [value for value in values if value is not None]
    return torch.stack(there) if there else None


def _parts(rows: int, columns: int) -> list[slice]:
    height = max(1, (1 << 24) // columns)  # 64 MB of scores
    return [slice(start, start + height) for start in range(0, rows, height)]


def _rows(view: View, part: slice) -> View:
    factor, present = view.query_factor, view.present
    cut = [None if x is None else x[part] for x in (factor, present)]
    return View(view.query[part], view.keys, cut[0], view.key_factor, cut[1], view.place)


def _ones(bits: Tensor) -> Tensor:
    """How many bits each word has: int32, the shape of bits."""
    bits = bits.contiguous()
    number = torch.empty_like(bits, dtype=torch.int32)
    ones_kernel[(math.ceil(bits.numel() / 1024),)](bits, bits.numel(), number, BLOCK=1024)
    return number


def _passed(number: Tensor) -> Tensor:
    """How many bits stand in earlier words of the row."""
    return (number.cumsum(1) - number).to(torch.int32)


def _finite(view: View) -> Tensor:
    """Is everything finite? In float64 no sum of finite numbers of the types served overflows."""
    given = (view.query, view.keys, view.query_factor, view.key_factor)
    return torch.stack([x.sum(dtype=torch.float64) for x in given if x is not None]).isfinite().all()
