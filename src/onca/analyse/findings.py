"""The findings of section 4 of 2010.06682, each in a sentence with its number and interval, beside raw pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from onca.analyse.analysis import Analysis
from onca.analyse.classes import ClassPair, ClassPairs
from onca.analyse.difficulty import Contrast, Measure, Side
from onca.analyse.statistics import Interval

Verdict = Literal["as in the paper", "contrary to the paper", "not shown"]
Depth = Literal["max", "min"]
Beyond = Literal["more than raw pixels", "no more than raw pixels", "less than raw pixels"]


@dataclass(frozen=True)
class Finding:
    """One finding in words.

    claim    what the paper says
    verdict  whether the 95 % interval says so here; None where the paper claims nothing
    text     what is so here
    floor    the same of raw pixels, None where there are no images
    beyond   whether the 95 % interval of the difference from raw pixels is above zero, holds it, or is below
    """

    name: str
    claim: str
    verdict: Verdict | None
    text: str
    floor: str | None = None
    beyond: Beyond | None = None


def findings(analysis: Analysis, depth: Depth = "max") -> tuple[Finding, ...]:
    """Those for which there is what they need: labels, a hierarchy, images.

    depth: of common ancestors, by longest (max) or by shortest paths to the root (min); pairs of classes always by max.
    """
    floor = analysis.floor
    every: Measure = "lca_max" if depth == "max" else "lca_min"
    other: Measure = "lca_max_other" if depth == "max" else "lca_min_other"
    found = [
        _contrast(analysis, "same class", "same_class", "hardest", "the hardest 5 % hold more of the query's class"),
        _contrast(analysis, "related", every, "hardest", "the hardest 5 % are more closely related to the query"),
        _contrast(analysis, "related, other classes", other, "hardest", None),
        _spread(analysis),
        _contrast(analysis, "easiest", other, "easiest", "the very easiest are more related than most"),
        _contrast(analysis, "easiest, same class", "same_class", "easiest", None),
        _classes(analysis),
        Finding(
            "consistency",
            "some negatives are hard for many queries",
            _consistent(analysis),
            _frequency(analysis),
            _frequency(floor) if floor else None,
        ),
        _agreement(analysis),
        Finding("the space", "", None, _space(analysis), _space(floor) if floor else None),
    ]
    return tuple(finding for finding in found if finding)


def _contrast(analysis: Analysis, name: str, measure: Measure, side: Side, claim: str | None) -> Finding | None:
    """One end against the rest; the claims of the paper are all of this form: the end has more."""
    own = analysis.contrast(measure, side)
    if own is None or own.end.value is None:
        return None
    text, verdict = f"{_against(own)}; {_test(own)}", _verdict(own.difference) if claim else None
    if side == "easiest" and own.similarity is not None and own.similarity >= 0:
        text, verdict = f"{text}; but their mean dot product is {own.similarity:.2f}", "not shown" if claim else None
    below = analysis.floor and analysis.floor.contrast(measure, side)
    if not below or analysis.beyond_floor is None:
        return Finding(name, claim or "", verdict, text)
    beyond = analysis.beyond_floor[analysis.contrasts.index(own)]
    scale, digits = _scale(measure)
    said = f"{_against(below)}; beyond it {_spread_of(beyond, scale, digits, sign=True)}"
    return Finding(name, claim or "", verdict, text, said, _beyond(beyond))


def _against(found: Contrast) -> str:
    scale, digits = _scale(found.measure)
    sides = found.end, found.rest
    end, other = (f"{scale * side.value:.{digits}f}" if side.value is not None else "-" for side in sides)
    which, rest = f"the {found.side} {found.cut:g} %", "the rest" if found.side == "hardest" else "the middle"
    apart = f"difference {_spread_of(found.difference, scale, digits, sign=True)}"
    if found.measure == "same_class":
        return f"{end} % of {which} are of the query's class, {other} % of {rest}; {apart}"
    pairs = ", pairs of two classes," if found.measure.endswith("other") else ""
    return f"LCA depth{pairs} {end} in {which}, {other} in {rest}; {apart}"


def _scale(measure: str) -> tuple[float, int]:
    """Shares are said in percent."""
    return (100.0, 2) if measure == "same_class" else (1.0, 3)


def _test(found: Contrast) -> str:
    if found.p is None or found.effect is None:
        return "no t-test: nothing varies"
    return f"d = {found.effect:.2f}, p {_p(found.p)}"


def _p(p: float) -> str:
    return f"= {p:.1g}" if p >= 1e-300 else "< 1e-300"


def _spread_of(found: Interval, scale: float, digits: int, sign: bool = False) -> str:
    if found.value is None:
        return "undefined"
    plus = "+" if sign else ""
    if found.low is None or found.high is None:
        return f"{scale * found.value:{plus}.{digits}f}"
    low, high = scale * found.low, scale * found.high
    return f"{scale * found.value:{plus}.{digits}f} ({low:{plus}.{digits}f} to {high:{plus}.{digits}f})"


def _verdict(difference: Interval) -> Verdict:
    if difference.low is None or difference.high is None or difference.low <= 0 <= difference.high:
        return "not shown"
    return "as in the paper" if difference.low > 0 else "contrary to the paper"


def _beyond(difference: Interval) -> Beyond | None:
    if difference.low is None or difference.high is None:
        return None
    if difference.low <= 0 <= difference.high:
        return "no more than raw pixels"
    return "more than raw pixels" if difference.low > 0 else "less than raw pixels"


def _spread(analysis: Analysis) -> Finding:
    """How far dot products reach below zero. That they do is no finding: they must, around any mean near zero."""
    return Finding("dot products", "", None, _dots(analysis), _dots(analysis.floor) if analysis.floor else None)


def _dots(analysis: Analysis) -> str:
    easiest = analysis.mean_similarity[0]
    return (
        f"{100 * analysis.fraction_negative_similarity:.1f} % of all pairs are below zero; mean of the easiest bin "
        f"{easiest:.2f}, of the hardest {analysis.mean_similarity[-1]:.2f}; all lie in "
        f"{analysis.min_similarity:.2f} to {analysis.max_similarity:.2f}"
    )


def _classes(analysis: Analysis) -> Finding | None:
    found = analysis.class_pairs
    if found is None:
        return None
    p = found.p_anticorrelated
    verdict: Verdict = "not shown" if p is None or p >= 0.05 else "as in the paper"
    floor = analysis.floor.class_pairs if analysis.floor else None
    return Finding(
        "pairs of classes",
        "the most anti-correlated classes are closely related",
        None if p is None else verdict,
        _pairs(found),
        _pairs(floor) if floor else None,
    )


def _pairs(found: ClassPairs) -> str:
    far = _depths(found.lca_anticorrelated, found.lca_all, found.p_anticorrelated)
    near = _depths(found.lca_correlated, found.lca_all, found.p_correlated)
    return f"lowest mean dot products: {_named(found.anticorrelated)}{far}. Highest: {_named(found.correlated)}{near}"


def _named(pairs: tuple[ClassPair, ...], most: int = 3) -> str:
    return ", ".join(f"{pair.query} and {pair.negative} ({pair.similarity:.2f})" for pair in pairs[:most])


def _depths(own: float | None, every: float | None, p: float | None) -> str:
    if own is None or every is None or p is None:
        return ""
    return f"; LCA depth of the ten {own:.2f}, of all pairs {every:.2f}, p {_p(p)}"


def _consistent(analysis: Analysis) -> Verdict:
    found = analysis.hard_frequency
    shown = found.p is not None and found.p < 0.05 and (found.variance_ratio or 0) > 1
    return "as in the paper" if shown else "not shown"


def _frequency(analysis: Analysis) -> str:
    found = analysis.hard_frequency
    halves = "" if found.split_half is None else f"; halves of the queries agree at {found.split_half:.2f}"
    ratio = "" if found.variance_ratio is None else f", variance ratio {found.variance_ratio:.1f}"
    test = "" if found.p is None else f", p {_p(found.p)}"
    return (
        f"a negative is hard for {100 * found.mean:.1f} % of queries, give or take {100 * found.std:.2f} %; "
        f"if shuffled, {100 * found.std_expected_by_chance:.2f} %{ratio}{test}; the hardest of all for "
        f"{100 * found.max:.1f} %, and {100 * found.zero_share:.2f} % of negatives for none{halves}"
    )


def _agreement(analysis: Analysis) -> Finding | None:
    found = analysis.with_floor
    if found is None:
        return None
    text = (
        f"difficulty of the same pairs: rank correlation {_spread_of(found.rank, 1, 3)}; "
        f"{_spread_of(found.hardest, 100, 1)} % of the hardest 5 % in common, by chance 5 %"
    )
    return Finding("with raw pixels", "", None, text)


def _space(analysis: Analysis) -> str:
    pairs = (
        ""
        if analysis.same_class_similarity is None or analysis.other_class_similarity is None
        else f"; mean dot product within a class {analysis.same_class_similarity:.3f}, "
        f"between classes {analysis.other_class_similarity:.3f}"
    )
    aligned = "" if analysis.alignment is None else f"; alignment {_spread_of(analysis.alignment, 1, 3)}"
    rank = f"effective rank {analysis.effective_rank:.1f} of {analysis.dimensions}"
    return f"uniformity {analysis.uniformity:.2f}{aligned}; {rank}{pairs}"
