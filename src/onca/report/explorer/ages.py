"""How old negatives were in training, as a ledger recorded it. N images, K shown."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from onca.analyse import Space
from onca.report.explorer.entries import Entries

SPAN = 1 << 31  # more than any index: a pair is one number


@dataclass(frozen=True, eq=False)
class Ages:
    """Steps since a negative came into the memory, up to the epoch of a checkpoint.

    pair     int64 [N,K], of the last record of this query with this negative; -1 none
    image    float32 [N], the mean over all records of the image as a negative; nan none
    records  int64 [N], how many those are
    """

    pair: Tensor
    image: Tensor
    records: Tensor


@dataclass(frozen=True, eq=False)
class Record:
    """The negatives with a known age that a ledger holds, in the order of steps; images by index, all [R]."""

    query: Tensor
    negative: Tensor
    epoch: Tensor
    age: Tensor

    def up_to(self, epoch: float | None) -> Record:
        kept = torch.ones_like(self.query).bool() if epoch is None else self.epoch <= epoch
        return Record(self.query[kept], self.negative[kept], self.epoch[kept], self.age[kept])


def read_record(folder: Path, index: Tensor | None = None) -> Record:
    """A run's ledger, which calls an image by its row in the training set; index [I]: of the images there, None: the
    rows themselves.

    Raises:
        ValueError: no ledger there, no pyarrow, images that the index does not have.
    """
    from onca.ledger import read  # here: it needs a package that the page alone does not

    table = read(folder, ["query", "negative", "epoch", "age", "role"])
    columns = {name: table[name].to_numpy() for name in ("query", "negative", "epoch", "age")}
    known = ~np.isnan(np.stack([column.astype(np.float64) for column in columns.values()])).any(0)
    known &= table["role"].to_numpy() != "positive"
    query, negative, epoch, age = (torch.from_numpy(column[known].astype(np.float64)) for column in columns.values())
    rows = query.long(), negative.long()
    if index is not None:
        most = max(int(row.max()) for row in rows) if len(query) else -1
        if most >= len(index):
            raise ValueError(
                f"{folder} names image {most}, and the training set has {len(index)}: another run's ledger?"
            )
        rows = index[rows[0]], index[rows[1]]
    return Record(*rows, epoch, age.long())


def pairs_of(record: Record, space: Space) -> Tensor:
    """Rows of query and negative of each record up to the space's epoch whose images the space has, int64 [P,2]."""
    seen = record.up_to(space.epoch)
    size = 1 + max(int(part.max()) for part in (space.index, seen.query, seen.negative) if len(part))
    row = torch.full((size,), -1)
    row[space.index] = torch.arange(len(space))
    pairs = torch.stack([row[seen.query], row[seen.negative]], 1)
    return pairs[(pairs >= 0).all(1)]


def ages(record: Record, space: Space, entries: Entries) -> Ages:
    """What the record says of the negatives shown, up to the space's epoch."""
    seen = record.up_to(space.epoch)
    return Ages(_of_pairs(seen, space, entries), *_of_images(seen, space))


def _of_pairs(seen: Record, space: Space, entries: Entries) -> Tensor:
    asked = space.index[:, None] * SPAN + space.index[entries.row]
    if not len(seen.age):
        return torch.full_like(asked, -1)
    key, order = (seen.query * SPAN + seen.negative).sort(stable=True)
    last = torch.searchsorted(key, asked.contiguous(), right=True) - 1  # the last of equal keys is the latest record
    place = last.clamp_min(0)
    found = (last >= 0) & (key[place] == asked) & entries.known
    return torch.where(found, seen.age[order][place], -1)


def _of_images(seen: Record, space: Space) -> tuple[Tensor, Tensor]:
    size = 1 + max(int(space.index.max()), int(seen.negative.max()) if len(seen.negative) else 0)
    records = torch.bincount(seen.negative, minlength=size)[space.index]
    total = torch.bincount(seen.negative, weights=seen.age.double(), minlength=size)[space.index]
    return torch.where(records > 0, total / records, torch.nan).float(), records
