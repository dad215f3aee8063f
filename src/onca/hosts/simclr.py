"""SimCLR: both views of a batch against each other (2002.05709, algorithm 1)."""

from __future__ import annotations

from dataclasses import replace

import torch

from onca.hosts.host import Batch, Host, check_views, drawn_from, unit_rows
from onca.pool import Pool, pool


class SimCLR(Host):
    """One pool of 2B queries, view 0 first; the positive of each is its other view, its negatives are the rows of the
    other images, with gradient. The loss is the mean over the 2B queries (google-research/simclr returns twice that).
    Support views go through the encoder without gradient.
    """

    def pools(self, batch: Batch) -> list[Pool]:
        check_views(batch, self)
        first, second = self.encoder(batch.views[0]), self.encoder(batch.views[1])
        rows = torch.cat([first, second])
        index = torch.arange(len(first), device=rows.device) if batch.index is None else batch.index
        index, label = index.repeat(2), None if batch.label is None else batch.label.repeat(2)
        more = self.support_views(lambda view: unit_rows(self.encoder(batch.views[view])))
        made = pool(
            rows,
            torch.cat([second, first]),
            rows,
            self.temperature,
            label=label,
            negative_label=label,
            index=index,
            negative_index=index,
            support=None if more is None else more.repeat(2, 1, 1),
            epoch=batch.epoch,
            seed=drawn_from(self.seed, batch.step),
        )
        return [replace(made, **(self.told(batch) | {"label": label, "index": index}))]
