"""SimCLR: both views of a batch against each other (2002.05709, algorithm 1)."""

from __future__ import annotations

import torch

from onca.hosts.host import Batch, Host, check_views, drawn_from
from onca.pool import Pool, pool


class SimCLR(Host):
    """One pool of 2B queries, view 0 first; the positive of each is its other view, its negatives are the rows of the
    other images, with gradient. The loss is the mean over the 2B queries (google-research/simclr returns twice that).
    """

    def pools(self, batch: Batch) -> list[Pool]:
        check_views(batch, self, 2)
        first, second = self.encoder(batch.views[0]), self.encoder(batch.views[1])
        rows = torch.cat([first, second])
        index = torch.arange(len(first), device=rows.device) if batch.index is None else batch.index
        index, label = index.repeat(2), None if batch.label is None else batch.label.repeat(2)
        made = pool(
            rows,
            torch.cat([second, first]),
            rows,
            self.temperature,
            label=label,
            negative_label=label,
            index=index,
            negative_index=index,
            epoch=batch.epoch,
            seed=drawn_from(self.seed, batch.step),
        )
        return [made]
