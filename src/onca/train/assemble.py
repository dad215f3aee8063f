"""From the text of a `Run` to the things it names: images, network, host, method."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from onca import views
from onca.data import ImageSet
from onca.encoders import make, split_batch_norm
from onca.hosts import Host, MoCo, SimCLR
from onca.memory import Queue
from onca.method import refills
from onca.objectives import Method
from onca.train.network import Network, device, precision
from onca.train.run import Run, as_schedule

SAMPLE = 10_000  # images that pixel statistics are taken from where images are decoded anew each time
CHUNK = 1024  # images looked at together


class Pixels:
    """The images of a set, on the device where they fit in memory: `take(rows)` gives uint8 [n,3,H,W]."""

    def __init__(self, images: ImageSet, device: torch.device) -> None:
        self.images, self.device = images, device
        self.held = images.pixels.to(device) if isinstance(images.pixels, Tensor) else None

    def __len__(self) -> int:
        return len(self.images)

    def take(self, rows: Tensor) -> Tensor:
        if self.held is not None:
            return self.held[rows.to(self.device)]
        return self.images.take(rows).to(self.device)

    def statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation [3] of each channel over 0..1, from counts of grey levels (exact)."""
        step = 1 if self.held is not None else -(-len(self) // SAMPLE)
        counts = torch.zeros(3, 256, dtype=torch.int64)
        for rows in torch.split(torch.arange(0, len(self), step), CHUNK):
            for channel, levels in enumerate(self.take(rows).transpose(0, 1)):
                counts[channel] += torch.bincount(levels.flatten(), minlength=256).cpu()
        share = counts.double() / counts.sum(1, keepdim=True)
        level = torch.arange(256, dtype=torch.float64) / 255
        mean = share @ level
        deviation = ((share * (level - mean[:, None]) ** 2).sum(1)).sqrt()
        return mean.float(), deviation.clamp_min(1 / 255).float()


def check(run: Run) -> None:
    """Refuses what a run names and does not exist, before any data are read.

    Raises:
        ValueError: no such device, views or encoder.
    """
    place = device(run.device)
    precision(run.precision, place)
    views.recipe(run.views, run.size or 32)
    with torch.random.fork_rng(), torch.device("meta"):
        make(run.encoder, run.head, run.dim)


def network(run: Run, mean: Tensor, std: Tensor, place: torch.device) -> Network:
    """The encoder of `run`, with fresh weights from torch's global generator."""
    encoder = make(run.encoder, run.head, run.dim)
    if run.splits > 1:
        split_batch_norm(encoder, run.splits)
    return Network(encoder, mean, std, precision(run.precision, place)).to(place)


def host(run: Run, encoder: Network, method: Method, place: torch.device) -> Host:
    """What turns batches into pools; its weights start as those of `encoder`."""
    temperature = as_schedule(run.temperature) if isinstance(run.temperature, str) else run.temperature
    if run.host == "simclr":
        return SimCLR(encoder, temperature, run.seed).to(place)
    queue = Queue(run.queue, run.dim, reserve=run.queue if refills(method) else 0)
    return MoCo(encoder, queue, run.momentum, temperature, symmetric=run.symmetric, seed=run.seed).to(place)


def warn_of_long_queue(run: Run, images: int) -> None:
    """A queue longer than the data set holds older keys of the query's own image: masked, and said.

    With x = queue / images, and epochs in independent orders, that concerns x^2/2 of the queries up to x = 1, then
    1 - (2-x)^2/2, and all from x = 2 on.
    """
    if run.host == "moco" and run.queue > images - run.batch:
        x = run.queue / images
        share = x * x / 2 if x <= 1 else 1 - max(0.0, 2 - x) ** 2 / 2
        warnings.warn(
            f"a queue of {run.queue} keys over {images} images holds, for about {share:.0%} of the queries, older keys "
            "of the query's own image; they are masked. A shorter --queue avoids it",
            stacklevel=2,
        )
