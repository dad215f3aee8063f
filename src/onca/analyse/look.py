"""From a space to its `Analysis`: one walk over all pairs, at which everything looks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import get_args

import torch
from torch import Tensor

from onca.analyse.agreement import Watch, agreement_on
from onca.analyse.analysis import Analysis
from onca.analyse.classes import class_pairs
from onca.analyse.consistency import HARD, Frequencies
from onca.analyse.difficulty import Contrast, Difficulty, Measure, Side, Values, bounds, values
from onca.analyse.dots import Dots
from onca.analyse.geometry import alignment, effective_rank
from onca.analyse.pairs import Pairs, Preset, choose, ranked
from onca.analyse.pixels import pixels
from onca.analyse.segments import Labels, Segments, grid
from onca.analyse.space import Space
from onca.analyse.statistics import Floats, interval, plain, resample

CUTS = (0.1, 1.0, 5.0, 10.0, 50.0)  # percent
CURVES = {
    "similarity": "mean_similarity",
    "same_class": "same_class_share",
    "lca_max": "lca_depth_max_all",
    "lca_min": "lca_depth_min_all",
    "lca_max_other": "lca_depth_max_other_class",
    "lca_min_other": "lca_depth_min_other_class",
}
SIMILARITY = (
    "dot product of unit rows; ranks per query; bins and lists by bin go from the easiest to the hardest; "
    "pairs of an image with itself are left out"
)
NOTE = (
    "LCA: depth of the deepest common ancestor of two classes, the root at 0; depth_max takes longest paths, depth_min "
    "shortest ones. Intervals: 95 %, resampling queries. Labels serve only to evaluate"
)


def analyse(
    space: Space,
    *,
    queries: Tensor | int | None = None,
    negatives: Tensor | int | None = None,
    bins: int = 20,
    preset: Preset = "all",
    cuts: Sequence[float] = CUTS,
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
        seed: of what is drawn: samples and resampling.
        floor: analyse the raw pixels of `space.images` as well.
        watch: hears how many queries are done, of how many.

    Raises:
        ValueError: fewer negatives than bins, labels of one class only, rows out of range, a cut outside 0 to 50.
    """
    pairs = choose(space, queries, negatives, preset, seed)
    check(pairs, bins, cuts)
    cuts = tuple(sorted({float(HARD), *(float(cut) for cut in cuts)}))
    below = _below(space) if floor else None
    steps = len(pairs.query) * (1 if below is None else 3)
    walked = Progress(watch, steps)
    found, drawn = _look(pairs, bins, cuts, seed, walked)
    if below is None:
        return found
    plain, plain_drawn = _look(pairs.among(below), bins, cuts, seed, walked)
    (agreed,) = agreement_on(pairs, (space, below), seed, walked.rest())
    beyond = tuple(
        interval(
            (own.difference.value if own.difference.value is not None else torch.nan)
            - (under.difference.value if under.difference.value is not None else torch.nan),
            a - b,
        )
        for own, under, a, b in zip(found.contrasts, plain.contrasts, drawn, plain_drawn, strict=True)
    )
    return replace(found, beyond_floor=beyond, floor=plain, with_floor=agreed)


def _below(space: Space) -> Space | None:
    """The raw pixels of the same rows, with the same labels."""
    if space.images is None:
        return None
    raw = pixels(space.images)
    return replace(space, rows=raw.rows, source=raw.source, epoch=None, views=None)


class Progress:
    """Counts the queries of several walks as one."""

    def __init__(self, watch: Watch | None, steps: int) -> None:
        self.watch, self.steps, self.done = watch, steps, 0

    def add(self, queries: int) -> None:
        self.done += queries
        if self.watch:
            self.watch(self.done, self.steps)

    def rest(self) -> Watch:
        """What a walk tells that counts by itself."""
        before = self.done
        return lambda done, _: self.add(before + done - self.done)


def check(pairs: Pairs, bins: int, cuts: Sequence[float]) -> None:
    """Refuses what cannot be analysed."""
    space, fewest = pairs.space, int(pairs.present.min())
    if not all(0 < cut <= 50 for cut in cuts):
        raise ValueError(f"cuts={tuple(cuts)}: each is a percentage above 0 and at most 50")
    if not 1 <= bins <= fewest:
        raise ValueError(
            f"{bins} bins, and a query has {fewest} negatives: take 1 to {max(fewest, 1)} bins (--bins), or more images"
        )
    label = space.label[torch.cat([pairs.query, pairs.negative])]
    present = torch.unique(label[label >= 0])
    if len(present) == 1:
        raise ValueError(
            f"all labelled images are of one class ({space.names[int(present[0])]!r}), so that nothing is of another: "
            "give labels of two classes or more, or leave labels out"
        )
    if space.hierarchy is not None and len(space.hierarchy.depth_max) != len(space.names):
        raise ValueError(f"a hierarchy of {len(space.hierarchy.depth_max)} classes for {len(space.names)} names")


def _look(pairs: Pairs, bins: int, cuts: Sequence[float], seed: int, walked: Progress) -> tuple[Analysis, list[Floats]]:
    """The analysis of one space, and the resampled differences [draws] of its contrasts."""
    labels, segments = Labels(pairs), Segments.empty(grid(bins, cuts), len(pairs.query))
    dots, frequencies = Dots(), Frequencies(pairs)
    for seen in ranked(pairs):
        related = labels.of(seen)
        segments.see(seen, related, labels)
        dots.see(seen, related)
        frequencies.see(seen)
        walked.add(len(seen.query))
    difficulty = Difficulty(segments, resample(segments.fields, seed))
    contrasts = _contrasts(difficulty, cuts)
    return _gathered(pairs, bins, difficulty, dots, frequencies, [c for c, _ in contrasts], seed), [
        drawn for _, drawn in contrasts
    ]


def _contrasts(difficulty: Difficulty, cuts: Sequence[float]) -> list[tuple[Contrast, Floats]]:
    there = [measure for measure in get_args(Measure) if measure in difficulty.measures()]
    return [
        difficulty.contrast(measure, side, cut)
        for measure in there
        for side in get_args(Side)
        for cut in cuts
        if side == "hardest" or cut < 50  # the easiest half has no middle beside it
    ]


def percentiles(difficulty: Difficulty, measure: str) -> Values:
    return tuple(plain(value) for value in difficulty.percentiles(measure).tolist())


def _gathered(
    pairs: Pairs,
    bins: int,
    difficulty: Difficulty,
    dots: Dots,
    frequencies: Frequencies,
    contrasts: list[Contrast],
    seed: int,
) -> Analysis:
    space, total = pairs.space, difficulty.segments.fields
    there = difficulty.measures()
    curves = {CURVES[name]: difficulty.curve(name, bins) for name in there}
    enough = int(pairs.present.min()) >= 100
    classes = torch.unique(space.label[torch.cat([pairs.query, pairs.negative])])
    classes = classes[classes >= 0]
    known = space.hierarchy
    at_five = {c.measure: c for c in contrasts if c.side == "hardest" and c.cut == HARD}
    return Analysis(
        data=space.images.source if space.images is not None else space.source,
        feature=space.source,
        epoch=space.epoch,
        queries=pairs.queries,
        negatives=pairs.negatives,
        similarity=SIMILARITY,
        note=NOTE,
        n_queries=len(pairs.query),
        n_negatives=len(pairs.negative),
        n_pairs=dots.pairs,
        n_classes=len(classes),
        dimensions=space.rows.shape[1],
        bins=bins,
        hierarchy=known.source if known else None,
        covered=float(known.known[classes].double().mean()) if known and len(classes) else None,
        pairs_covered=float(total["covered"].sum() / dots.pairs) if known else None,
        labelled=float(total["labelled"].sum() / dots.pairs),
        # Names of curves are fields of Analysis, which mypy cannot see in a dictionary.
        **{name: values(curves[name]) if name in curves else None for name in CURVES.values()},  # type: ignore[arg-type]
        intervals={name: bounds(curve) for name, curve in curves.items()},
        percentiles={CURVES[name]: percentiles(difficulty, name) for name in there} if enough else None,
        contrasts=tuple(contrasts),
        hardest5_vs_rest={
            name: (at_five[name].end.value, at_five[name].rest.value)
            for name in ("same_class", "lca_max", "lca_min")
            if name in at_five
        },
        fraction_negative_similarity=dots.below / dots.pairs,
        min_similarity=dots.low,
        max_similarity=dots.high,
        same_class_similarity=dots.mean(same=True),
        other_class_similarity=dots.mean(same=False),
        histogram=dots.histogram(),
        class_pairs=class_pairs(pairs, seed),
        hard_frequency=frequencies.found(),
        uniformity=dots.uniformity,
        alignment=None if space.views is None else alignment(*space.views, seed),
        effective_rank=effective_rank(space.rows),
    )
