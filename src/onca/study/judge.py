"""From rows of results to judged claims, and numbers as they stand in sentences."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onca.study.statistics import MARGIN, Difference, Estimate, Verdict, difference, verdict

if TYPE_CHECKING:
    from onca.study.plan import Claim

Row = Mapping[str, object]  # one run: condition, method, temperature, seed, and the numbers of its result.json


@dataclass(frozen=True)
class Judged:
    """A claim, this study's difference for it (None: not tested here) and the verdict with its reason."""

    claim: Claim
    difference: Difference | None
    outcome: str  # shown | not shown | contradicted | not tested here
    reason: str
    caution: str = ""


def by_seed(rows: Iterable[Row], condition: str, metric: str) -> dict[int, float]:
    """A condition's values by seed, without rows that lack a finite one (a failed run). ValueError: a seed twice.

    Numbers may be text, as a CSV file gives them back.
    """
    values: dict[int, float] = {}
    for row in rows:
        written = row.get(metric)
        if row["condition"] != condition or written is None or written == "":
            continue
        value, seed = float(str(written)), int(str(row["seed"]))
        if not math.isfinite(value):
            continue
        if seed in values:
            raise ValueError(f"condition {condition!r} has two runs with seed {seed}: keep one of them")
        values[seed] = value
    return values


def judge(claims: Sequence[Claim], rows: Sequence[Row]) -> dict[str, Judged]:
    """Judge every claim on its metric, in order; a claim whose conditions have no runs is "not tested here"."""
    judged: dict[str, Judged] = {}
    for claim in claims:
        names = (claim.a, claim.b, *(claim.minus or ()))
        values = [by_seed(rows, name, claim.metric) for name in names]
        missing = [name for name, found in zip(names, values, strict=True) if not found]
        paired = difference(*values[:2]) if len(values) == 2 else difference(_gain(*values[:2]), _gain(*values[2:]))
        if missing or paired is None:
            reason = f"no finished run of {' or '.join(missing)}" if missing else "the conditions share no seed"
            judged[claim.key] = Judged(claim, None, "not tested here", reason)
        else:
            found = verdict(claim.rule, paired.estimate)
            caution = _caution(claim, found, paired.estimate, judged.get(claim.premise))
            judged[claim.key] = Judged(claim, paired, found.outcome, found.reason, caution)
    return judged


def _gain(a: Mapping[int, float], b: Mapping[int, float]) -> dict[int, float]:
    return {seed: a[seed] - b[seed] for seed in sorted(a.keys() & b.keys())}


def _caution(claim: Claim, found: Verdict, paired: Estimate, premise: Judged | None) -> str:
    """What a reader of the word "shown" must know besides, or nothing."""
    if found.outcome != "shown":
        return ""
    if premise is not None and premise.outcome != "shown":
        return f"says little here, since “{premise.claim.text}” is {premise.outcome}"
    if claim.rule == "worse" and paired.low is not None and paired.low > -MARGIN:
        return f"but by less than the {MARGIN:g} point that “suffices” allows"
    return ""


def signed(value: float) -> str:
    """A difference in points with its sign and a true minus: "+0.23", "−1.50", "0.00"."""
    text = f"{value:+.2f}".replace("-", "−")
    return "0.00" if text in ("+0.00", "−0.00") else text


def words(paired: Estimate) -> str:
    """A difference as it stands in a sentence: mean, interval, n. Lines do not break inside a number."""
    if paired.low is None or paired.high is None:
        return f"{signed(paired.mean)} points (one seed, no interval)"
    interval = f"[{signed(paired.low)},\u00a0{signed(paired.high)}]"
    return f"{signed(paired.mean)} points {interval}, n\u00a0=\u00a0{paired.n}"
