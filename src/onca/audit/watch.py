"""Watching someone else's loss or module: forward hooks that look on and change nothing.

Rows of a foreign memory have neither ids nor ages. They are known by their prints: a row that is equal to the bit to a
key of an earlier call is that key.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from onca.audit.audit import Audit
from onca.audit.check import graded, percent, report
from onca.audit.entries import prints
from onca.audit.finding import Finding
from onca.audit.looks import Call
from onca.pool import Pool, pool

Look = Callable[[nn.Module, tuple[Any, ...], Any], Call | tuple[Tensor, Tensor, Tensor] | None]


class Watch:
    """What `watch` gives: findings() at any time, close() takes the hooks off; a context manager that does so."""

    def __init__(self, module: nn.Module, look: Look, ids: Callable[[], Tensor] | None, every: int) -> None:
        self.module, self.look, self.ids = module, look, ids
        self.audit = Audit(every=every, source=type(module).__name__)
        self.calls = self.stranger = self.rows = 0
        self._keys: deque[tuple[Tensor, Tensor]] = deque()  # prints and ids of the keys of earlier calls
        self._place: tuple[str, bool] | None = None  # where the memory stands, and whether state_dict() holds it
        self._handles = [module.register_forward_hook(self._after)]
        if hasattr(look, "before"):
            self._handles.append(module.register_forward_pre_hook(self._before))

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Takes the hooks off the module."""
        for handle in self._handles:
            handle.remove()

    def findings(self) -> list[Finding]:
        """What was found in the calls so far."""
        found = [finding for finding in self.audit.findings() if finding.name not in ("cold rows", "unrestored memory")]
        return [*found, *self._memory()]

    @torch.no_grad()
    def _before(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self.look.before(module, inputs)  # type: ignore[attr-defined]  # hooked only where the look has one

    @torch.no_grad()
    def _after(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        found = self.look(module, inputs, output)
        if found is None:
            return
        call = found if isinstance(found, Call) else Call(*found)
        self.calls += 1
        ids = call.ids if self.ids is None else self.ids()
        self.audit.see(self._pool(call, ids))
        if self._place is None and call.negatives.dim() == 2 and len(call.negatives):
            self._place = _place(module, call)

    def _pool(self, call: Call, ids: Tensor | None) -> Pool:
        """Nothing is masked: the loss did not either, or its look gives the negatives of each query."""
        keys = prints(call.positive if call.positive.dim() == 2 else call.positive[:, 0])
        own = torch.full_like(keys, -1) if ids is None else ids.to(keys.device, torch.int64)
        if own.shape != keys.shape:
            raise ValueError(f"ids must name the image of each of {len(keys)} queries; got {list(own.shape)}")
        named = call.negative_ids
        if call.negatives.dim() == 2:
            traced = self._trace(prints(call.negatives), keys, own)
            named = traced if named is None else named
        temperature = call.temperature or _temperature(call)
        made = pool(call.query, call.positive, call.negatives, temperature, negative_index=named)
        return replace(made, index=None if ids is None else own, name=type(self.module).__name__)

    def _trace(self, rows: Tensor, keys: Tensor, own: Tensor) -> Tensor:
        """The image of each row of the memory [N], -1 where it is none of the keys that were seen."""
        self._keys.append((keys, own))
        while sum(len(block) for block, _ in self._keys) > 2 * len(rows) + len(keys):
            self._keys.popleft()
        known, images = (torch.cat(columns) for columns in zip(*self._keys, strict=True))
        known, order = known.sort(stable=True)
        place = torch.searchsorted(known, rows).clamp_max(len(known) - 1)
        seen = known[place] == rows
        self.rows, self.stranger = len(rows), int((~seen).sum())
        return torch.where(seen, images[order[place]], -1)

    def _memory(self) -> Iterator[Finding]:
        """Whether the memory would survive a checkpoint, and how many of its rows nobody has seen come in."""
        if self.rows:
            share = self.stranger / self.rows
            said = f"{percent(share)} of the memory's {self.rows} rows are none of the keys of {self.calls} calls"
            why = "they are from before the watch began, or random rows that never were keys, and easy negatives"
            remedy = "onca.Queue(size, dim): rows are absent until a key is there"
            yield report("cold rows", graded(False, share > 0), said, share, self.rows, "rows", why=why, remedy=remedy)
        if self._place is None:
            yield Finding("unsaved memory", "unknown", "no tensor of the module holds the negatives")
            return
        name, saved = self._place
        said = f"the negatives stand in {name}, which state_dict() {'holds' if saved else 'does not hold'}"
        why = "a run that is resumed contrasts with random or empty rows again: its memory is not in the checkpoint"
        remedy = "onca.Queue(size, dim), all of it in state_dict(); or register_buffer(..., persistent=True)"
        yield report("unsaved memory", graded(not saved, False), said, None, 1, "memories", why=why, remedy=remedy)


def watch(module: nn.Module, look: Look, ids: Callable[[], Tensor] | None = None, every: int = 1) -> Watch:
    """Looks on at every call of a loss or module, and never changes what it gives.

    Args:
        look: `look(module, inputs, output)` gives query, positive and negatives of a call: a `Call`, or those three;
            None for a call that is no loss. `onca.audit.bank()` and `onca.audit.handed_back()` are looks.
        ids: gives which image each query of this call is of, [B]; None: nobody knows. Without ids, a row that is equal
            to the bit to the query's own key is a self-hit.
        every: after the first calls, one in so many is looked at in full.

    Errors in a look are raised from the module's call.
    """
    return Watch(module, look, ids, every)


def _temperature(call: Call) -> float:
    """That of the logits, where there are any: by how much they differ for a difference in cosine; else 0.2."""
    if call.logits is None or call.negatives.dim() != 2 or not len(call.negatives):
        return 0.2
    score = nn.functional.normalize(call.query, dim=1) @ nn.functional.normalize(call.negatives, dim=1).T
    theirs = call.logits[:, 1:].to(score.dtype)
    slope = (theirs - theirs.mean()).square().mean().sqrt() / (score - score.mean()).square().mean().sqrt()
    return float(1 / slope) if bool(slope > 0) and bool(slope.isfinite()) else 0.2


def _place(module: nn.Module, call: Call) -> tuple[str, bool] | None:
    """The name of the tensor that holds most of the negatives, and whether it would be saved."""
    wanted = prints(call.negatives)
    wanted = wanted[~torch.isin(wanted, prints(call.positive))]
    saved = {value.data_ptr() for value in module.state_dict().values() if isinstance(value, Tensor)}
    best: tuple[float, str, bool] = (0.0, "", False)
    for name, tensor in _tensors(module):
        for rows in (tensor, tensor.T):
            if rows.shape[1] == call.negatives.shape[1] and len(wanted):
                share = float(torch.isin(wanted, prints(rows.to(call.negatives.dtype))).double().mean())
                best = max(best, (share, name, tensor.data_ptr() in saved))
    return (best[1], best[2]) if best[0] > 0.3 else None


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """All matrices that a module or one inside it keeps, as buffers or as plain attributes."""
    for prefix, inner in module.named_modules():
        for name, value in {**vars(inner), **dict(inner.named_buffers(recurse=False))}.items():
            if isinstance(value, Tensor) and value.dim() == 2 and value.is_floating_point():
                yield f"{prefix}.{name}".lstrip("."), value
