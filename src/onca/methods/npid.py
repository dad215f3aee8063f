"""NPID (1805.01978): noise-contrastive estimation against rows drawn from a bank, one binary question a row."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import softplus

from onca.link import Slice
from onca.objectives import Objective, need_positives
from onca.part import bare
from onca.pool import Pool

EPSILON = 1e-7  # of the official code, inside both logarithms


class _NCE(Objective):
    """-[log P0 / (P0 + c) + sum over negatives k of log (K/N) / (Pk + c)], P = exp(score / temperature) / Z,
    c = K/N + 1e-7, K negatives drawn from N images (1805.01978, section 3.2, with the official code's 1e-7).

    Z is `pool.normaliser`, a constant, and N `pool.population`: hosts with a bank give both. K counts the negatives
    that are present. Each probability enters as softplus(log P - log c), so that float32 is finite at temperature 0.05.
    With several positives, the mean over them; a query without negatives has loss 0.
    """

    own_needs = frozenset({"normaliser"})

    def __call__(self, pool: Pool) -> Tensor:
        need_positives(self, pool)
        if pool.normaliser is None or pool.population is None:
            raise ValueError(f"{self} needs pool.normaliser and pool.population: take a host with a bank (npid, cmc)")
        bags = (pool.negatives, *pool.added)
        if any(bag.tilt or bag.shift is not None for bag in bags):
            raise ValueError(f"{self} counts each negative once: harden has no place before it; take infonce")
        numbers = [bag.count() for bag in bags]
        number = torch.stack(numbers).sum(0)
        pool.note("empty", int((number == 0).sum()))
        noise = number.clamp_min(1).double() / pool.population  # K / N [B]
        edge = (noise + EPSILON).log() + pool.normaliser.double().log()  # P = c where score / temperature = edge
        edge = edge.to(pool.negatives.dtype)

        def is_noise(piece: Slice, edge: Tensor) -> Tensor:
            return softplus(piece.score * pool.scale - edge)

        def is_data(piece: Slice, edge: Tensor) -> Tensor:
            return softplus(edge - piece.score * pool.scale)

        loss = pool.positives.mean(is_data, edge) + (number * torch.log1p(EPSILON / noise)).to(edge.dtype)
        for bag, its in zip(bags, numbers, strict=True):
            loss = loss + its * bag.mean(is_noise, edge)
        return torch.where(number > 0, loss, 0)


nce = bare(_NCE(), "nce")
