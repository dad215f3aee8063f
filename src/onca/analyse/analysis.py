"""Section 4 of 2010.06682 for any space: every figure's numbers, beside those of raw pixels. N negatives, C classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from onca.analyse.agreement import Agreement
from onca.analyse.classes import ClassPairs
from onca.analyse.consistency import HardFrequency
from onca.analyse.difficulty import Contrast, Histogram
from onca.analyse.space import Space
from onca.analyse.statistics import Interval

CUTS = (0.1, 1.0, 5.0, 10.0, 50.0)  # percent
Preset = Literal["all", "paper"]
Watch = Callable[[int, int], None]  # queries done, of how many


@dataclass(frozen=True)
class Analysis:
    """What `analyse` finds: plain numbers; None where something is not defined (no labels, no hierarchy).

    Lists by bin go from the easiest to the hardest bin; `intervals` holds low and high of each by its name.

    data, feature, epoch  what was looked at: images, space
    queries, negatives    how they were chosen; n_queries, n_negatives
    hierarchy             its source; `covered`: share of the classes of the labelled images that it holds
    percentiles           the same curves in 100 percentiles, None where there are fewer than 100 negatives
    contrasts             ends against the rest, at each cut
    hardest5_vs_rest      means of the hardest 5 percent and of the rest
    fraction_negative_similarity, min_similarity, max_similarity   of all pairs
    same_class_similarity, other_class_similarity                   mean dot products
    uniformity            log of the mean of exp(-2 d^2) over all pairs (2005.10242; lower is more uniform)
    alignment             mean d^2 of two views of an image (2005.10242), None where there are no views
    effective_rank        exp of the entropy of the singular values (2210.02885)
    floor                 the same for raw pixels, None where there are no images; with_floor: agreement with it
    """

    data: str
    feature: str
    epoch: float | None
    queries: str
    negatives: str
    n_queries: int
    n_negatives: int
    n_classes: int
    dimensions: int
    bins: int
    hierarchy: str | None
    covered: float | None
    mean_similarity: tuple[float, ...]
    same_class_share: tuple[float | None, ...] | None
    lca_depth_max_all: tuple[float | None, ...] | None
    lca_depth_min_all: tuple[float | None, ...] | None
    lca_depth_max_other_class: tuple[float | None, ...] | None
    lca_depth_min_other_class: tuple[float | None, ...] | None
    intervals: Mapping[str, tuple[tuple[float | None, ...], tuple[float | None, ...]]]
    percentiles: Mapping[str, tuple[float | None, ...]] | None
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
    floor: Analysis | None = None
    with_floor: Agreement | None = None

    def json(self) -> dict[str, Any]:
        """Everything as dictionaries, lists, numbers and text; the keys are the names above."""
        raise NotImplementedError


def analyse(
    space: Space,
    *,
    queries: Tensor | int | None = None,
    negatives: Tensor | int | None = None,
    bins: int = 20,
    preset: Preset = "all",
    cuts: tuple[float, ...] = CUTS,
    seed: int = 0,
    floor: bool = True,
    watch: Watch | None = None,
) -> Analysis:
    """Section 4 of 2010.06682 for a space, exactly, on all pairs of queries and negatives but those of one image.

    No N x N array is held: queries come in slices. Labels serve only to evaluate.

    Args:
        queries, negatives: rows of the space; or a number, then the first images of each class in their order become
            queries, and the next ones negatives; None: all.
        bins: of difficulty, equal shares of each query's negatives.
        preset: all; or paper: 2,000 queries and 2,000 negatives at random from `seed`.
        cuts: percent, where the hardest and the easiest are cut off (5 is always among them).
        seed: of what is drawn: samples, resampling, the shuffle.
        floor: analyse the raw pixels of `space.images` as well.
        watch: hears how many queries are done.

    Raises:
        ValueError: fewer negatives than bins, labels of one class only, rows out of range, a cut outside 0 to 50.
    """
    raise NotImplementedError


def read_analysis(record: Mapping[str, Any]) -> Analysis:
    """The `Analysis` whose `json()` this is."""
    raise NotImplementedError
