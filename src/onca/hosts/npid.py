"""NPID: each image against a bank of all images (1805.01978)."""

from __future__ import annotations

from torch import nn

from onca.bank import Bank
from onca.hosts.banked import Banked, check_bank
from onca.schedule import Number


class NPID(Banked):
    """One view a step. The positive is the image's own row, an average of earlier views; negatives are the other rows
    of the bank, all of them (draws=0) or `draws` rows drawn for each query, uniform with replacement.

    Its objectives are `nce`, as in the paper, or `infonce`, the softmax over the bank or the drawn rows. Own rows are
    masked among the negatives, so that of the drawn ones some may be missing; official=True masks nothing, as the
    official codes. The first batch fixes Z of `nce`. After the optimiser's step the rows of the batch move towards its
    queries. A bank with neighbours renews those of the batch from its queries against the bank as the loss saw it
    (InvP, 2010.11694); `pool.neighbours` is the graph before that.

    Support views go through the encoder without gradient. A batch without index is a ValueError.
    """

    names = ("view -> bank",)

    def __init__(
        self,
        encoder: nn.Module,
        bank: Bank,
        temperature: Number = 0.07,
        draws: int = 0,
        official: bool = False,
        *,
        support: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, temperature, draws, official, support, seed)
        check_bank(bank, "NPID")
        self.memory = bank

    @property
    def banks(self) -> tuple[Bank, ...]:
        return (self.memory,)
