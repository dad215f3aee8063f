"""What a paper's file is made of: conditions to run, numbers it reports, claims to judge, answers in plain words."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from onca.study.statistics import MARGIN, Difference, Estimate, Rule, Verdict, difference, verdict

Row = Mapping[str, object]  # one run: condition, method, temperature, seed, and the numbers of its result.json


@dataclass(frozen=True)
class Condition:
    """One way to train, run once per seed. Figures that need the same (method, temperature) share it.

    `kind` is the name without the temperature; the name adds it wherever it is not the preset's base temperature.
    `temperature` None is the preset's. `needs_labels`: the rule looks at classes while it trains (an oracle).
    """

    kind: str
    method: str
    temperature: float | None
    figures: tuple[str, ...]
    needs_labels: bool = False
    base: bool = True
    note: str = ""

    @property
    def name(self) -> str:
        return self.kind if self.base or self.temperature is None else f"{self.kind} (T={self.temperature:g})"


@dataclass(frozen=True)
class Reported:
    """Mean and sd in percent as a paper prints them. `temperature` None: the paper's text does not state it there."""

    kind: str
    temperature: float | None
    top1: float
    top1_sd: float
    top5: float
    top5_sd: float
    source: str


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper as a test: the difference a - b (names of conditions at one temperature) and a rule.

    `paper` says in words and numbers what the paper found. `premise` is the key of a claim without which a "shown" says
    little: that x accounts for a gain means nothing where there was none.
    """

    key: str
    text: str
    a: str
    b: str
    temperature: float
    rule: Rule
    paper: str
    premise: str = ""


@dataclass(frozen=True)
class Judged:
    """A claim, this study's difference for it (None: not tested here) and the verdict with its reason."""

    claim: Claim
    difference: Difference | None
    outcome: str  # shown | not shown | contradicted | not tested here
    reason: str
    caution: str = ""


@dataclass(frozen=True)
class Answer:
    """A question, the answer in a few words, and the sentences with the numbers it rests on."""

    question: str
    headline: str
    sentences: tuple[str, ...]


@dataclass(frozen=True)
class Band:
    """A stretch of difficulty (percent, 100 is the hardest) and what is said of it: (words, key of the claim)."""

    low: float
    high: float
    title: str
    statements: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Paper:
    """A paper that a study repeats. Functions take (preset, host); `answers` and `bands` go by the claims' keys."""

    name: str
    title: str
    arxiv: str
    setting: str
    reported: tuple[Reported, ...]
    bands: tuple[Band, ...]
    conditions: Callable[[str, str], tuple[Condition, ...]]
    claims: Callable[[str, str], tuple[Claim, ...]]
    answers: Callable[[Mapping[str, Judged]], tuple[Answer, ...]]


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
    """Judge every claim on linear top-1, in order; a claim whose conditions have no runs is "not tested here"."""
    judged: dict[str, Judged] = {}
    for claim in claims:
        a, b = (by_seed(rows, name, "linear_top1") for name in (claim.a, claim.b))
        missing = [name for name, values in ((claim.a, a), (claim.b, b)) if not values]
        paired = difference(a, b)
        if missing or paired is None:
            reason = f"no finished run of {' or '.join(missing)}" if missing else "the two conditions share no seed"
            judged[claim.key] = Judged(claim, None, "not tested here", reason)
        else:
            found = verdict(claim.rule, paired.estimate)
            caution = _caution(claim, found, paired.estimate, judged.get(claim.premise))
            judged[claim.key] = Judged(claim, paired, found.outcome, found.reason, caution)
    return judged


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
