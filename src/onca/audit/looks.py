"""Looks: how to find query, positive and negatives in a call of someone else's loss or module.

A look is any function `look(module, inputs, output)`. One that needs to know how things stood before the call has a
method `before(module, inputs)` too.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

FITS = 0.01  # how far a loss may be from the module's own, as a share of it: autocast rounds


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a loss: what it contrasted.

    query [B,D]; positive [B,D] or [B,P,D]; negatives [N,D] or [B,N,D]. logits [B,1+N]: of the positive, then of the
    negatives. ids [B]: which image each query is of; negative_ids [N] or [B,N], -1 unknown. temperature: of the loss.
    """

    query: Tensor
    positive: Tensor
    negatives: Tensor
    logits: Tensor | None = None
    ids: Tensor | None = None
    negative_ids: Tensor | None = None
    temperature: float | None = None


class bank:
    """A look for `criterion(z0, z1)` losses that keep a memory bank [K,D] or [D,K] under a dotted name (lightly's
    NTXentLoss). z0 are queries, z1 keys; both are brought to length one, as the loss does.

    Which state of the bank was contrasted, that before the call or that after it, is settled by the loss that the
    module gave: the other one gives another number.
    """

    def __init__(self, name: str = "memory_bank.bank") -> None:
        self.name = name
        self._before: Tensor | None = None

    def before(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._before = _rows(module, self.name)

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Call:
        if len(inputs) < 2 or not all(isinstance(value, Tensor) and value.dim() == 2 for value in inputs[:2]):
            raise ValueError(f"{type(module).__name__}: bank looks at criterion(z0, z1), two tensors [B,D]")
        query, positive = (normalize(value.detach(), dim=1) for value in inputs[:2])
        loss = output if isinstance(output, Tensor) else output[0]
        return _settled(module, query, positive, [self._before, _rows(module, self.name)], loss)


class handed_back:
    """A look for modules whose output holds queries, keys and the loss, and which own a queue (stable-pretraining's
    MoCov2).

    Names: of the output's entries; queue: a dotted name of a tensor [K,D], or of a module with get() -> [n,D]. Which
    state of the queue was contrasted is settled by the loss, as in `bank`.
    """

    def __init__(
        self, query: str = "queries", positive: str = "keys", queue: str = "queue", loss: str = "loss"
    ) -> None:
        self.names = (query, positive, loss)
        self.queue = queue
        self._before: Tensor | None = None

    def before(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        self._before = _rows(module, self.queue)

    def __call__(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> Call | None:
        query, positive, loss = (_entry(module, output, name) for name in self.names)
        if query is None or positive is None or loss is None:
            return None  # the module was only asked to encode
        return _settled(module, query.detach(), positive.detach(), [self._before, _rows(module, self.queue)], loss)


def _entry(module: nn.Module, output: Any, name: str) -> Tensor | None:
    if isinstance(output, Mapping):
        return output.get(name)
    if not hasattr(output, name):
        raise ValueError(f"{type(module).__name__} gives {type(output).__name__}, which has no {name!r}")
    found: Tensor | None = getattr(output, name)
    return found


def _rows(module: nn.Module, name: str) -> Tensor:
    """A copy of the rows under a dotted name.

    Raises:
        ValueError: there is nothing of that name, or it is no memory.
    """
    found: Any = module
    for word in name.split("."):
        if not hasattr(found, word):
            raise ValueError(f"{type(module).__name__} has no {name!r}: name its memory when you make the look")
        found = getattr(found, word)
    get = None if isinstance(found, Tensor) else getattr(found, "get", None)
    rows = get() if callable(get) else found
    if not isinstance(rows, Tensor) or rows.dim() != 2:
        raise ValueError(f"{name} of {type(module).__name__} is no memory of rows [K,D]: is the memory switched off?")
    return rows.detach().clone()


def _settled(module: nn.Module, query: Tensor, positive: Tensor, states: list[Tensor | None], loss: Tensor) -> Call:
    """The call with that state of the memory which gives the module's own loss.

    Raises:
        ValueError: neither does.
    """
    temperature = float(getattr(module, "temperature", 1.0))
    given, misses = float(loss.detach()), []
    options = [state if state.shape[1] == query.shape[1] else state.T for state in states if state is not None]
    for rows in options:
        rows = rows.to(query.dtype)
        logits = torch.cat([(query * positive).sum(1, keepdim=True), query @ rows.T], 1) / temperature
        mine = cross_entropy(logits.float(), torch.zeros(len(query), dtype=torch.int64, device=query.device))
        misses.append(abs(float(mine) - given))
    best = min(range(len(options)), key=misses.__getitem__)
    if not misses[best] <= FITS * abs(given) + 1e-4:
        raise ValueError(
            f"{type(module).__name__} gave a loss of {given:.4g}; its memory before the call and after it gives none "
            "such, so it is not known what was contrasted: watch(module, look) with a look of your own"
        )
    return Call(query, positive, options[best], temperature=temperature)
