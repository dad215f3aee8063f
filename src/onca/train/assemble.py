"""From the text of a `Run` to the things it names: images, network, host, method."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from onca import views
from onca.bank import Bank
from onca.data import ImageSet
from onca.data.descriptors import external_table
from onca.data.duplicates import near_duplicates
from onca.data.levels import depth_table
from onca.difficulty import external
from onca.encoders import ColourSplit, Encoder, Spaces, make, split_batch_norm
from onca.hosts import CMC, NPID, Host, LooC, MoCo, SimCLR
from onca.hosts.host import Known
from onca.memory import Queue
from onca.method import as_method, refills
from onca.methods.invp import invp
from onca.objectives import Method
from onca.part import Part
from onca.schedule import Number
from onca.train.network import Network, device, precision
from onca.train.run import Run, as_memory, as_schedule
from onca.views import Boxes, as_crop

KNOWN = frozenset({"duplicates", "depth", "external"})  # what is found in the data, once they are there


def check(run: Run) -> None:
    """Refuses what a run names and does not exist, before any data are read.

    Raises:
        ValueError: no such device, views, crop or encoder; a method that this host cannot serve.
    """
    place = device(run.device)
    precision(run.precision, place)
    recipe(run, run.size or 32)
    as_crop(run.crop).check(run.epochs)
    with torch.random.fork_rng(), torch.device("meta"):
        encoder = network(run, torch.zeros(3), torch.ones(3), torch.device("meta"))
        host(run, encoder, as_method(run.method), images=1, place=torch.device("meta"))


def recipe(run: Run, size: int) -> views.Recipe:
    """The augmentation of a run, for views of `size` pixels."""
    made = views.recipe(run.views, size)
    low, high = made.crop_scale
    scale = (low if run.crop_low is None else run.crop_low, high)
    turns = run.rotation or (run.host == "looc" and "rotation" in run.kept)
    return replace(made, crop_scale=scale, rotation_chance=0.5 if turns else 0.0)


def network(run: Run, mean: Tensor, std: Tensor, place: torch.device) -> Network:
    """The encoder of `run`, with fresh weights from torch's global generator."""
    encoder = _encoder(run)
    if isinstance(encoder, ColourSplit):
        mean, std = torch.zeros_like(mean), torch.ones_like(std)  # it takes colours as they are
    if run.splits > 1:
        split_batch_norm(encoder, run.splits)
    return Network(encoder, mean, std, precision(run.precision, place)).to(place)


def _encoder(run: Run) -> Encoder:
    if run.host == "looc":
        return Spaces(run.encoder, run.head, run.dim, len(run.kept) + 1)
    if run.host == "cmc":
        return ColourSplit(run.encoder, run.head, run.dim, run.colours)
    return make(run.encoder, run.head, run.dim)


def host(run: Run, encoder: Network, method: Method, images: int, place: torch.device) -> Host:
    """What turns batches into pools, for a set of so many images; its weights start as those of `encoder`.

    Raises:
        ValueError: the method needs what this host's pools do not hold.
    """
    made = HOSTS[run.host](run, encoder, method, images)
    if as_crop(run.crop).located:
        made.boxes = Boxes(images)  # the host's, so that it travels in its state_dict
    for part in asked(run, method):
        made.check(part, later=KNOWN)
    return made.to(place)


def asked(run: Run, method: Method) -> tuple[Part, ...]:
    """What looks at pools in a run: its method, and the memory, which may choose what it keeps by any selector."""
    return method, as_memory(run.memory)


def _moco(run: Run, encoder: Network, method: Method, images: int) -> Host:
    more: dict[str, Any] = {"symmetric": run.symmetric, "support": run.support, "seed": run.seed}
    return MoCo(encoder, _memory(run, method), run.momentum, _temperature(run), **more)


def _simclr(run: Run, encoder: Network, method: Method, images: int) -> Host:
    return SimCLR(encoder, _temperature(run), run.seed, run.support)


def _memory(run: Run, method: Method) -> Queue:
    return as_memory(run.memory)(run.queue, run.dim, reserve=run.queue if refills(method) else 0)


def _temperature(run: Run) -> Number:
    return as_schedule(run.temperature) if isinstance(run.temperature, str) else run.temperature


def _bank(run: Run, method: Method, images: int) -> Bank:
    if run.draws and any(isinstance(part, invp) for part in method.parts()):
        raise ValueError(f"{method} looks at the whole bank: leave --draws at 0")
    return Bank(images, run.dim, run.bank_momentum, neighbours=graph_degree(method))


def _npid(run: Run, encoder: Network, method: Method, images: int) -> Host:
    bank = _bank(run, method, images)
    return NPID(encoder, bank, _temperature(run), run.draws, support=run.support, seed=run.seed)


def _cmc(run: Run, encoder: Network, method: Method, images: int) -> Host:
    banks = (_bank(run, method, images), _bank(run, method, images))
    return CMC(encoder, *banks, _temperature(run), run.draws, support=run.support, seed=run.seed)


def _looc(run: Run, encoder: Network, method: Method, images: int) -> Host:
    names = run.kept
    queues = [_memory(run, method) for _ in range(len(names) + 1)]
    more: dict[str, Any] = {"names": names, "support": run.support, "seed": run.seed}
    return LooC(encoder, queues, run.momentum, _temperature(run), **more)


HOSTS: dict[str, Callable[[Run, Network, Method, int], Host]] = {
    "moco": _moco,
    "simclr": _simclr,
    "npid": _npid,
    "cmc": _cmc,
    "looc": _looc,
}


def graph_degree(method: Method) -> int:
    """How many neighbours of each image a bank has to keep for a method: those that it names, 4 where it names none."""
    named = [int(part.k) for part in method.parts() if isinstance(part, invp)]
    return max(named, default=4 if "neighbours" in method.needs else 0)


def known(run: Run, method: Method, images: ImageSet, place: torch.device) -> Known:
    """What method and memory need to know of the images beside the batch; rows are those of the training set.

    Raises:
        ValueError: a file of embeddings that does not fit, labels without a hierarchy, no labels where a rule asks.
    """
    both = asked(run, method)
    for part in both:
        if "label" in part.needs and not bool((images.label >= 0).any()):
            raise ValueError(f"{part} needs labels, and {images.source} has none: take a set that has, or another rule")
    needs = frozenset().union(*(part.needs for part in both))
    sources = {inner.source for part in both for inner in part.parts() if isinstance(inner, external)}
    tables = {source: external_table(source, images)[images.index].to(place) for source in sorted(sources)}
    return Known(
        images=len(images),
        duplicates=near_duplicates(images)[images.index].to(place) if "duplicates" in needs else None,
        depth=depth_table(images).to(place) if "depth" in needs else None,
        external=tables,
    )


def warn_of_long_queue(run: Run, images: int) -> None:
    """A queue longer than the data set holds older keys of the query's own image: masked, and said.

    With x = queue / images, and epochs in independent orders, that concerns x^2/2 of the queries up to x = 1, then
    1 - (2-x)^2/2, and all from x = 2 on.
    """
    if run.host in ("moco", "looc") and run.queue > images - run.batch:
        x = run.queue / images
        share = x * x / 2 if x <= 1 else 1 - max(0.0, 2 - x) ** 2 / 2
        warnings.warn(
            f"a queue of {run.queue} keys over {images} images holds, for about {share:.0%} of the queries, older keys "
            "of the query's own image; they are masked. A shorter --queue avoids it",
            stacklevel=2,
        )
