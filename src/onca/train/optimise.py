"""How weights move: SGD or LARS, and a learning rate for every step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from onca.train.run import Run

SGD_MOMENTUM = 0.9
TRUST = 0.001  # LARS: a step changes a layer by about this share of its length, times the learning rate
RISE = 0.3  # one_cycle: share of all steps on the way up
START = 25.0  # one_cycle: the first step's learning rate is the peak divided by this


def optimiser(run: Run, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser that `run` asks for, over the parameters that require a gradient."""
    trained = [weight for weight in parameters if weight.requires_grad]
    if run.optimiser == "lars":
        return LARS(trained, lr=run.lr, weight_decay=run.weight_decay)
    return torch.optim.SGD(trained, lr=run.lr, momentum=SGD_MOMENTUM, weight_decay=run.weight_decay)


def learning_rate(run: Run, step: int, per_epoch: int) -> float:
    """The learning rate of step `step` (from 0) of a run with `per_epoch` steps an epoch.

    one_cycle: half a cosine from lr/25 up to lr over the first 30 % of the steps, then half a cosine down to 0.
    cosine: a straight line up over `warmup` epochs, then half a cosine down to 0.
    """
    total = per_epoch * run.epochs
    if run.schedule == "one_cycle":
        rise, low = RISE * total, run.lr / START
        if step < rise:
            return low + (run.lr - low) * (1 - math.cos(math.pi * step / rise)) / 2
    else:
        rise = run.warmup * per_epoch
        if step < rise:
            return run.lr * (step + 1) / rise
    return run.lr * (1 + math.cos(math.pi * (step - rise) / max(total - rise, 1))) / 2


class LARS(torch.optim.Optimizer):
    """SGD with momentum whose step is scaled layer by layer (1708.03888), as SimCLR uses it (2002.05709).

    A weight of two or more dimensions moves by lr * trust * |w| / |g + decay w| times its direction g + decay w. Biases
    and batch-norm weights are neither decayed nor scaled.
    """

    def __init__(self, parameters: Iterable[torch.nn.Parameter], lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        loss = closure() if closure is not None else None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._move(weight, weight.grad, group["lr"], group["weight_decay"])
        return loss

    def _move(self, weight: Tensor, gradient: Tensor, lr: float, decay: float) -> None:
        if weight.ndim > 1:
            gradient = gradient + decay * weight
            length, slope = weight.norm(), gradient.norm()
            # a layer that is still zero, or has no gradient, has no scale of its own
            gradient = gradient * torch.where((length > 0) & (slope > 0), TRUST * length / slope, 1.0)
        state = self.state[weight]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(weight)
        state["momentum_buffer"].mul_(SGD_MOMENTUM).add_(gradient)
        weight.sub_(state["momentum_buffer"], alpha=lr)
