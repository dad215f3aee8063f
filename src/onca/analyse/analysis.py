"""Section 4 of 2010.06682 for any space, as plain numbers. C classes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from onca.analyse.agreement import Agreement
from onca.analyse.classes import ClassPairs
from onca.analyse.consistency import HardFrequency
from onca.analyse.difficulty import Contrast, Values
from onca.analyse.dots import Histogram
from onca.analyse.statistics import Interval


@dataclass(frozen=True)
class Analysis:
    """What `analyse` finds; None where something is not defined (no labels, no hierarchy, no images).

    Lists by bin go from the easiest to the hardest bin; `intervals` holds low and high of each by its name.

    data, feature, epoch  what was looked at: images, space
    queries, negatives    how they were chosen, n_queries and n_negatives of them
    similarity, note      what is compared how, in words
    hierarchy             its source; covered: share of the classes among these images that it holds; pairs_covered:
                          share of the pairs
    labelled              share of the pairs whose two labels are known
    percentiles           the same curves in 100 percentiles, None where there are fewer than 100 negatives
    contrasts             ends against the rest, at each cut
    beyond_floor          for each of them, the difference less that of raw pixels on the same pairs
    hardest5_vs_rest      means of the hardest 5 percent and of the rest
    fraction_negative_similarity, min_similarity, max_similarity  of all pairs
    same_class_similarity, other_class_similarity                 mean dot products
    uniformity            log of the mean of exp(-2 d^2) over all pairs (2005.10242; lower is more uniform)
    alignment             mean d^2 of two views of an image (2005.10242), None where there are no views
    effective_rank        exp of the entropy of the singular values (2210.02885)
    floor                 the same analysis of raw pixels; with_floor: agreement with it
    """

    data: str
    feature: str
    epoch: float | None
    queries: str
    negatives: str
    similarity: str
    note: str
    n_queries: int
    n_negatives: int
    n_pairs: int
    n_classes: int
    dimensions: int
    bins: int
    hierarchy: str | None
    covered: float | None
    pairs_covered: float | None
    labelled: float
    mean_similarity: Values
    same_class_share: Values | None
    lca_depth_max_all: Values | None
    lca_depth_min_all: Values | None
    lca_depth_max_other_class: Values | None
    lca_depth_min_other_class: Values | None
    intervals: Mapping[str, tuple[Values, Values]]
    percentiles: Mapping[str, Values] | None
    contrasts: tuple[Contrast, ...]
    hardest5_vs_rest: Mapping[str, tuple[float | None, float | None]]
    fraction_negative_similarity: float
    min_similarity: float
    max_similarity: float
    same_class_similarity: float | None
    other_class_similarity: float | None
    histogram: Histogram
    class_pairs: ClassPairs | None
    hard_frequency: HardFrequency
    uniformity: float
    alignment: Interval | None
    effective_rank: float
    beyond_floor: tuple[Interval, ...] | None = None
    floor: Analysis | None = None
    with_floor: Agreement | None = None

    def json(self) -> dict[str, Any]:
        """Everything as dictionaries, lists, numbers and text; the keys are the names above."""
        return asdict(self)

    def contrast(self, measure: str, side: str = "hardest", cut: float = 5) -> Contrast | None:
        """One of the contrasts, None where it is not defined."""
        named = (measure, side, float(cut))
        return next((c for c in self.contrasts if (c.measure, c.side, c.cut) == named), None)


T = TypeVar("T")


def read_analysis(record: Mapping[str, Any]) -> Analysis:
    """The `Analysis` whose `json()` this is, after writing and reading or before.

    Raises:
        ValueError: something is missing: the file is of another version.
    """
    return _read(Analysis, record)


def _read(kind: type[T], record: Mapping[str, Any]) -> T:
    hints = get_type_hints(kind)
    named = {field.name for field in fields(kind)}  # type: ignore[arg-type]  # value_of calls for dataclasses only
    missing = named - record.keys()
    if missing:
        raise ValueError(f"this analysis was written by another version (no {min(missing)}): run onca analyse again")
    return kind(**{name: value_of(hints[name], record[name]) for name in named})


def value_of(hint: Any, value: Any) -> Any:
    """Lists become tuples, dictionaries the dataclasses that the hint names."""
    if value is None:
        return None
    if get_origin(hint) is UnionType:
        (hint,) = (part for part in get_args(hint) if part is not NoneType) if NoneType in get_args(hint) else (hint,)
    if is_dataclass(hint) and isinstance(hint, type):
        return _read(hint, value)
    if get_origin(hint) is tuple:
        inner = get_args(hint)
        kinds = [inner[0]] * len(value) if inner[1:] == (...,) else inner
        return tuple(value_of(kind, one) for kind, one in zip(kinds, value, strict=True))
    if isinstance(value, Mapping):
        return {name: value_of(get_args(hint)[1], one) for name, one in value.items()}
    return value
