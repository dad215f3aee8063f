"""The protocol of a host: before_step, pools, loss, after_step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from onca.objectives import Method
from onca.part import Part
from onca.pool import Pool, check_temperature, unit
from onca.schedule import Number

REMEDIES = {
    "support": "support views of each image: give the host support=8 (--support 8)",
    "neighbours": "a neighbour graph: take a host with a bank that keeps one (--host npid)",
    "normaliser": "a bank that noise is drawn from: take --host npid or cmc with --draws 4096",
    "given": "a choice of entries that no host makes: use onca.contrast with given=",
    "duplicates": "groups of near-duplicates: give host.known (onca.data.near_duplicates finds them)",
    "depth": "a hierarchy of labels: give host.known, or take a set with levels",
    "external": "descriptors of the images: give host.known",
}


@dataclass(frozen=True, eq=False)
class Batch:
    """views: one tensor [B,...] a view, the host's own first, then the support views. index, label: [B] int64, -1
    unknown. epoch: float from 0. step: from 0.
    """

    views: tuple[Tensor, ...]
    index: Tensor | None = None
    label: Tensor | None = None
    epoch: float = 0.0
    step: int = 0


@dataclass(frozen=True, eq=False)
class Known:
    """What is known about the images of a set, whatever the batch. images: how many there are, I.

    duplicates [I]: group of each image. depth [C,C]: depth of the lowest common ancestor of two labels. external: name
    of a source -> unit rows [I,F].
    """

    images: int | None = None
    duplicates: Tensor | None = None
    depth: Tensor | None = None
    external: Mapping[str, Tensor] = field(default_factory=dict)


class Host(nn.Module):
    """One training step is before_step, pools, loss, backward, the optimiser's step, after_step.

    All that a host owns is in its state_dict. `notes` holds what the parts of the last loss reported, `known` what the
    data set knows. own_views: how many views of an image it asks for; `support` more follow them.
    """

    encoder: nn.Module
    history: Tensor
    losses: Tensor
    own_views = 2

    def __init__(self, encoder: nn.Module, temperature: Number, seed: int = 0, support: int = 0) -> None:
        super().__init__()
        if support < 0:
            raise ValueError(f"support is a number of extra views, 0 or more; got {support}")
        self.encoder = encoder
        self.temperature = temperature
        self.seed = seed
        self.support = support
        self.known = Known()
        self.notes: dict[str, Any] = {}
        self.register_buffer("history", torch.zeros(0, dtype=torch.float64))  # mean loss of each epoch that is over
        self.register_buffer("losses", torch.zeros(2, dtype=torch.float64))  # of this epoch: their sum, their number
        check_temperature(temperature)

    @property
    def gives(self) -> frozenset[str]:
        """What its pools hold of what a part may need."""
        known = {name for name in ("duplicates", "depth") if getattr(self.known, name) is not None}
        known |= {"external"} if self.known.external else set()
        return frozenset({"label", "index", "history", *known} | ({"support"} if self.support else set()))

    def check(self, method: Part, later: frozenset[str] = frozenset()) -> None:
        """Raises ValueError when a method (or a memory) needs what this host's pools do not hold, saying what to give.

        later: what `known` will hold once the data are there.
        """
        for need in sorted(method.needs - self.gives - later):
            raise ValueError(f"{method} needs {REMEDIES.get(need, f'pool.{need}')}; {type(self).__name__} has none")

    def before_step(self) -> None:
        """Momentum updates, from the weights as they are before this step's optimiser step."""

    def pools(self, batch: Batch) -> list[Pool]:
        """Encodes; changes no weight and no memory, and may be called again."""
        raise NotImplementedError  # abstract

    def loss(self, pools: Sequence[Pool], method: Method) -> Tensor:
        """The mean over queries, summed over pools."""
        losses = [method(pool).mean() for pool in pools]
        self.notes = {name: value for pool in pools for name, value in pool.notes.items()}
        return torch.stack(losses).sum()

    def after_step(self) -> None:
        """Memories take the keys of the last pools."""

    def remember(self, loss: float, last: bool) -> None:
        """Takes the loss of a step; with the last one of an epoch its mean joins the history."""
        self.losses += self.losses.new_tensor([loss, 1])
        if last:
            self.history = torch.cat([self.history, (self.losses[0] / self.losses[1])[None]])
            self.losses.zero_()

    def told(self, batch: Batch) -> dict[str, Any]:
        """The fields of a pool that every host fills alike."""
        return {
            "label": batch.label,
            "index": batch.index,
            "epoch": batch.epoch,
            "step": batch.step,
            "duplicates": self.known.duplicates,
            "depth": self.known.depth,
            "external": self.known.external,
            "population": self.known.images,
            "history": tuple(self.history.tolist()),
        }

    @torch.no_grad()
    def support_views(self, encode: Callable[[int], Tensor]) -> Tensor | None:
        """The support views, unit rows [B,S,D] without gradient; None where there are none.

        encode: number of a view -> unit rows [B,D].
        """
        if not self.support:
            return None
        return torch.stack([encode(view) for view in range(self.own_views, self.own_views + self.support)], 1)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *more: Any) -> None:
        if prefix + "history" in state:  # as long as the training that wrote it
            self.history = self.history.new_zeros(len(state[prefix + "history"]))
        super()._load_from_state_dict(state, prefix, *more)


def unit_rows(features: Tensor) -> Tensor:
    """Rows of length one, in float32 or better."""
    return unit(features.to(torch.promote_types(features.dtype, torch.float32)))


def drawn_from(seed: int, *more: int) -> int:
    """A seed made of several numbers, so that draws of different steps and pools do not repeat each other."""
    state = seed & (2**63 - 1)
    for number in more:
        state = (state * 6364136223846793005 + number + 1442695040888963407) & (2**63 - 1)
    return state


def check_views(batch: Batch, host: Host) -> None:
    """Raises ValueError when a batch holds fewer views than the host asks for."""
    count = host.own_views + host.support
    if len(batch.views) < count:
        kind = f" ({host.support} of them support)" if host.support else ""
        raise ValueError(
            f"{type(host).__name__} needs {count} views of each image{kind}; the batch holds {len(batch.views)}"
        )
