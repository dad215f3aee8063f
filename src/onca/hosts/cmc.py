"""CMC: two halves of an image, lightness and colour, each against a bank of the other (1906.05849)."""

from __future__ import annotations

from torch import nn

from onca.bank import Bank
from onca.hosts.banked import Banked, check_bank
from onca.schedule import Number


class CMC(Banked):
    """The encoder maps a view to [B,2D], the embedding of L and that of ab side by side (`encoders.ColourSplit`). L is
    scored against the bank of ab and ab against that of L, both with the same drawn rows; the loss is the sum of the
    two, and each bank takes its own half. Everything else is as in NPID.

    Z of `nce` is kept with the bank that is scored against: `second.normaliser` belongs to the queries of L. Support
    views stand in each pool as the half that the query is.
    """

    names = ("L -> ab", "ab -> L")

    def __init__(
        self,
        encoder: nn.Module,
        first: Bank,
        second: Bank,
        temperature: Number = 0.07,
        draws: int = 0,
        official: bool = False,
        *,
        support: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__(encoder, temperature, draws, official, support, seed)
        check_bank(first, "CMC")
        check_bank(second, "CMC")
        if first is second or (first.images, first.dim) != (second.images, second.dim):
            raise ValueError(
                f"CMC needs two banks of one shape, one for each half; got {list(first.keys.shape)} and "
                f"{list(second.keys.shape)}{', one and the same' if first is second else ''}"
            )
        self.first = first
        self.second = second

    @property
    def banks(self) -> tuple[Bank, ...]:
        return (self.first, self.second)
