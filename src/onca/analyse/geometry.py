"""How a space is filled: effective rank and alignment. N rows, D dimensions, M images."""

from __future__ import annotations

import torch
from torch import Tensor

from onca.analyse.statistics import Interval, mean_interval


def effective_rank(rows: Tensor) -> float:
    """exp of the entropy of the singular values of the rows [N,D], as shares of their sum (RankMe, 2210.02885)."""
    double = rows.double()
    gram = double.T @ double if len(rows) >= rows.shape[1] else double @ double.T
    squares = torch.linalg.eigvalsh(gram).clamp_min(0)
    values = squares[squares > squares.max() * 1e-12].sqrt()
    share = values / values.sum()
    return float((-share * share.log()).sum().exp())


def alignment(first: Tensor, second: Tensor, seed: int = 0) -> Interval:
    """Mean squared distance of two views of an image, unit rows [M,D] each (2005.10242, eq. 1); resamples images."""
    return mean_interval((first.double() - second.double()).square().sum(1).numpy(), seed)
