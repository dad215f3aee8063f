"""The margin loss with a fixed boundary (1706.07567). The triplet loss itself is an objective of the algebra."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from onca.link import Slice
from onca.objectives import Triplets
from onca.pool import Pool
from onca.schedule import Number, check_number


@dataclass(frozen=True, eq=False, repr=False)
class margin(Triplets, name="margin"):
    """max(0, d+ - boundary + alpha) + max(0, boundary - d- + alpha), d = sqrt(2 - 2 cos) (1706.07567).

    boundary and alpha are distances between unit rows, 0 to 2, with the paper's values: 1.2 is a cosine of 0.28. The
    mean over the negatives includes zeros; the paper divides by the number of terms that are not 0.
    """

    boundary: Number = 1.2
    alpha: Number = 0.2

    def __post_init__(self) -> None:
        check_number(self, self.boundary, "boundary")
        check_number(self, self.alpha, "alpha")

    def against(self, pool: Pool) -> Callable[[Slice, Tensor], Tensor]:
        boundary, alpha = pool.number(self.boundary, self), pool.number(self.alpha, self)

        def loss(negatives: Slice, positive: Tensor) -> Tensor:
            near = torch.relu(distance(positive) - boundary + alpha)
            return near + torch.relu(boundary - distance(negatives.score) + alpha)

        return loss


def distance(cosine: Tensor) -> Tensor:
    """Between unit rows. Its slope has no end at 0, so that rows closer than 0.001 count as 0.001 apart."""
    return (2 - 2 * cosine).clamp_min(1e-6).sqrt()
