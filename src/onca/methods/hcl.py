"""HCL: harder negatives by importance weights (2010.04592), and its annealing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from onca.method import chain
from onca.objectives import Method, debiased
from onca.part import Shorthand, spell
from onca.rules import harden
from onca.schedule import Number, Schedule, check_number


@dataclass(frozen=True, eq=False, repr=False)
class hcl(Shorthand, Method, name="hcl"):
    """`chain(harden(beta, attached), debiased(tau_plus))` (2010.04592).

    beta multiplies cosine / temperature, as in the official code (the paper's temperature is inside its cosine); 0 is
    `debiased(tau_plus)`. attached=True sends gradient through the weights as that code does; False takes them as
    constants: the same value, and never a pull towards a negative.
    """

    beta: Number = 1
    tau_plus: Number = 0.1
    attached: bool = True

    def meaning(self) -> Method:
        return chain(harden(self.beta, self.attached), debiased(self.tau_plus))


LEVELS = 9


@dataclass(frozen=True, eq=False, repr=False)
class anneal_down(Schedule, name="anneal_down"):
    """Nine even levels from `start` to 0, for a run of `epochs`: `--anneal down` of the official code.

    A level lasts epochs // 9 whole epochs and the first one twice as long, so that 0 is only seen in the epochs that
    nine do not divide. Where that code stops (fewer than nine epochs, or so many that a tenth level begins) a level
    lasts one epoch at least and 0 stays.
    """

    start: float
    epochs: int

    def __post_init__(self) -> None:
        check_number(self, self.start, "start")
        if isinstance(self.start, Schedule):
            raise ValueError(f"{self}: start must be a plain number")
        if isinstance(self.epochs, bool) or not isinstance(self.epochs, int) or self.epochs < 1:
            raise ValueError(f"{self}: epochs must be a whole number from 1; got {spell(self.epochs)}")

    def __call__(self, epoch: float, history: Sequence[float] = ()) -> float:
        done = math.floor(epoch / max(1, self.epochs // LEVELS)) - 1
        return self.start * (1 - min(max(done, 0), LEVELS - 1) / (LEVELS - 1))
