"""Pools: positives and negatives of a batch of queries, and all that is known about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from onca.bag import Bag
from onca.link import Link
from onca.neighbours import Nearby
from onca.part import nearest
from onca.schedule import Number, Schedule, check_number, number_at
from onca.search import lengths

Negatives = Tensor | Sequence[Tensor]
Known = Tensor | Sequence[Tensor | None] | None

TABLES = ("neighbours", "duplicates", "depth", "external", "normaliser", "population", "history")


@dataclass(frozen=True, eq=False)
class Pool:
    """What a method is applied to.

    positives, negatives: bags of the same queries. reserve: older entries that only `refill` lets in, newest first in
    their places. added: entries that a rule put in and that no later rule sees. temperature: a plain number.
    label, index [B], -1 unknown. support [B,S,D]: more views of the query's image. given [B,N] bool. neighbours [I,k]:
    rows of the k nearest images of each image, -1 unknown; nearby: the search for those of the queries.
    duplicates [I]: group of each image. depth [C,C]: depth of the lowest common ancestor of two labels. external: name
    of a source -> unit rows [I,F], one for each image. normaliser: the constant Z of noise-contrastive estimation.
    population: number of images in the set. epoch: float from 0. history: mean losses of the epochs that are over.
    seed: of what is drawn in this step.
    short [B]: the queries for which the reserve did not suffice.
    """

    positives: Bag
    negatives: Bag
    temperature: float
    reserve: Bag | None = None
    added: tuple[Bag, ...] = ()
    name: str = ""
    label: Tensor | None = None
    index: Tensor | None = None
    support: Tensor | None = None
    given: Tensor | None = None
    neighbours: Tensor | None = None
    nearby: Nearby | None = None
    duplicates: Tensor | None = None
    depth: Tensor | None = None
    external: Mapping[str, Tensor] = field(default_factory=dict)
    normaliser: Tensor | None = None
    population: int | None = None
    epoch: float | None = None
    history: tuple[float, ...] = ()
    step: int = 0
    seed: int = 0
    short: Tensor | None = None
    notes: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """One height for all bags: a test prepared on one of them may be put to another (refill, attract)."""
        bags = [bag for bag in (self.positives, self.negatives, self.reserve) if bag is not None]
        least = min(bag.height for bag in bags)
        for name in ("positives", "negatives", "reserve"):
            bag = getattr(self, name)
            if bag is not None and bag.height != least:
                object.__setattr__(self, name, replace(bag, height=least))

    @property
    def scale(self) -> float:
        return 1 / self.temperature

    def __len__(self) -> int:
        return len(self.negatives.query)

    def number(self, value: Number, owner: Any) -> int | float:
        """A number of an expression, or what its schedule gives now. Raises ValueError: a schedule and no epoch."""
        return number_at(value, self.epoch, owner, self.history)

    def note(self, name: str, value: Any) -> None:
        """Reports a number of this step; it reaches `notes`, and metrics.jsonl in a run."""
        self.notes[name] = value


def check_temperature(temperature: Number) -> None:
    """Raises ValueError unless it is a number above 0 or a schedule."""
    check_number("temperature", temperature, "temperature")
    if not isinstance(temperature, Schedule):
        temperature_at(temperature, None)


def temperature_at(temperature: Number, epoch: float | None) -> float:
    """Raises ValueError when it is not above 0."""
    check_number("temperature", temperature, "temperature")
    value = float(number_at(temperature, epoch, "temperature"))
    if value <= 0:
        raise ValueError(f"temperature must be more than 0; got {temperature}")
    return value


def pool(
    query: Tensor,
    positive: Tensor | None,
    negatives: Negatives,
    temperature: Number = 0.2,
    *,
    label: Tensor | None = None,
    negative_label: Known = None,
    index: Tensor | None = None,
    negative_index: Known = None,
    support: Tensor | None = None,
    given: Tensor | None = None,
    reserve: int = 0,
    epoch: float | None = None,
    seed: int = 0,
    normalize: bool = True,
    **tables: Any,
) -> Pool:
    """A pool of tensors that a loop of one's own has at hand.

    Args:
        query: [B,D]. positive: [B,D], [B,P,D] (P may be 0) or None.
        negatives: [N,D] for all queries, [B,N,D] for each, or a list of those, linked in that order.
        temperature: a number above 0 or a schedule.
        label, index: [B] int; negative_label, negative_index: [N] or [B,N] (a list for a list). -1 is unknown and
            equals nothing. An entry whose negative_index is its query's index is absent.
        support: [B,S,D]. given: [B,N] bool, what the selector `given` chooses.
        reserve: the last `reserve` rows of shared negatives, newest first, are older entries that only refill lets in.
        epoch: needed when an expression holds a schedule. seed: of what is drawn.
        normalize: divide each row by its length (a zero row stays zero), as a factor on scores; never a copy of keys.
        tables: what is known beside the batch, as fields of `Pool`: neighbours, duplicates, depth, external,
            normaliser, population, history.

    Raises:
        ValueError: shapes that do not fit, with the shapes.
    """
    _expect("query", query, ("B", "D"), None)
    size, dim = query.shape
    several = negatives if isinstance(negatives, list | tuple) else [negatives]
    labels, indices = _listed(negative_label, negatives, "label"), _listed(negative_index, negatives, "index")
    for name, value in (("label", label), ("index", index)):
        if value is not None:
            _expect(name, value, (size,), query)
    factor = _factor(query) if normalize else None
    links, place = [], 0
    for keys, its_label, its_index in zip(several, labels, indices, strict=True):
        _expect("negatives", keys, ("N", dim) if keys.dim() != 3 else (size, "N", dim), query)
        for name, value in (("negative_label", its_label), ("negative_index", its_index)):
            if value is not None:
                _expect(name, value, tuple(keys.shape[-2:-1]) if value.dim() == 1 else (size, keys.shape[-2]), query)
        links.append(Link(keys, factor=_lengths(keys, query, factor), label=its_label, index=its_index, place=place))
        place += keys.shape[-2]
    if given is not None:
        _expect("given", given, (size, place), query)
    if support is not None:
        _expect("support", support, (size, "S", dim), query)
    shown, older = _split(links, reserve)
    own = query.new_zeros(size, 0, dim) if positive is None else positive[:, None] if positive.dim() == 2 else positive
    _expect("positive", own, (size, "P", dim), query, shown=positive)

    def bag(*parts: Link) -> Bag:
        return Bag(query, parts, factor=factor, query_index=index)

    return Pool(
        positives=bag(Link(own, factor=_factor(own) if normalize else None, role="same image")),
        negatives=bag(*shown),
        reserve=bag(older) if older is not None else None,
        temperature=temperature_at(temperature, epoch),
        label=label,
        index=index,
        support=unit(support.to(torch.promote_types(support.dtype, torch.float32)))
        if support is not None and normalize
        else support,
        given=given,
        epoch=epoch,
        seed=seed,
        **check_tables(tables),
    )


def check_tables(tables: dict[str, Any]) -> dict[str, Any]:
    """The tables themselves. Raises ValueError for a name that is none."""
    for name in tables:
        if name not in TABLES:
            raise ValueError(f"{name}= is not known; {nearest(name, TABLES)}")
    return tables


def unit(rows: Tensor) -> Tensor:
    """Rows divided by their lengths; a zero row stays zero."""
    return rows * _factor(rows)[..., None].to(rows.dtype)


def _factor(rows: Tensor) -> Tensor:
    """1 / length of each row, in float32 or better; 0 for a zero row, whose gradient is 0 as well."""
    length = lengths(rows)
    return length.masked_fill(length == 0, torch.inf).reciprocal()


def _lengths(keys: Tensor, query: Tensor, factor: Tensor | None) -> Tensor | None:
    """1 / length of keys, where lengths count: the queries' own where those are the keys (SimCLR)."""
    return factor if keys is query or factor is None else _factor(keys)


def _listed(value: Known, negatives: Negatives, what: str) -> Sequence[Tensor | None]:
    if not isinstance(negatives, list | tuple):
        if isinstance(value, list | tuple):
            raise ValueError(f"negative_{what} is a list, negatives are one tensor: give one tensor of [N] or [B,N]")
        return [value]  # type: ignore[list-item]  # a tensor or None: of sequences, lists and tuples are taken
    if value is None:
        return [None] * len(negatives)
    if not isinstance(value, list | tuple) or len(value) != len(negatives):
        raise ValueError(f"negatives is a list of {len(negatives)}: negative_{what} must be a list of as many")
    return value


def _split(links: list[Link], reserve: int) -> tuple[list[Link], Link | None]:
    if not reserve:
        return links, None
    last = links[-1]
    if last.per_query or not 0 <= reserve <= last.length:
        shape = list(last.vectors.shape)
        raise ValueError(
            f"reserve={reserve} takes the last rows of shared negatives [N,D]; the last negatives are {shape}"
        )
    cut = last.length - reserve
    return [*links[:-1], last.part(0, cut)], last.part(cut, last.length)


def _expect(
    name: str, value: Tensor, shape: tuple[int | str, ...], query: Tensor | None, shown: Tensor | None = None
) -> None:
    """Raises ValueError unless the shape fits; letters fit any length."""
    fits = len(shape) == value.dim() and all(
        isinstance(want, str) or want == have for want, have in zip(shape, value.shape, strict=True)
    )
    if not fits:
        have = list((value if shown is None else shown).shape)
        want = "[" + ",".join(str(length) for length in shape) + "]"
        beside = "" if query is None else f" with query {list(query.shape)}"
        raise ValueError(f"{name} must be {want}{beside}; got {have}")
