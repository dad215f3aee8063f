"""What a study is made of: conditions to run, tables and claims that compare them, answers in plain words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from onca.study.judge import Judged, words
from onca.study.statistics import Rule
from onca.train import Run

Changes = tuple[tuple[str, Any], ...]  # fields of a `Run` and their values


@dataclass(frozen=True)
class Choice:
    """One of the settings among which a condition chooses on the validation part."""

    method: str
    changes: Changes = ()


@dataclass(frozen=True)
class Condition:
    """One way to train, run once per seed. Figures and tables that need the same run share it.

    `kind` is the name without the temperature; the name adds it wherever it is not the preset's base temperature.
    `temperature` None is the preset's. `figures`: keys of the figures and tables it stands in. `needs_labels`: the rule
    looks at classes while it trains (an oracle). `against`: the name of the condition it is compared with. `changes`:
    what differs from the preset's run besides method and temperature; without `epochs` among them, epochs are as many
    as make its compute that of the preset's run. `choices`: settings of which the best on the validation part is run
    (the first one until then). `source`: where the setting comes from. `control`: "null" where only chance differs from
    what it is compared with, "other" where it shows what something else does than what is tested. `series`, `at`: its
    line and its place on the axis of its table's chart.
    """

    kind: str
    method: str
    temperature: float | None
    figures: tuple[str, ...]
    needs_labels: bool = False
    base: bool = True
    note: str = ""
    against: str = ""
    changes: Changes = ()
    choices: tuple[Choice, ...] = ()
    source: str = ""
    control: str = ""
    series: str = ""
    at: float | None = None

    @property
    def name(self) -> str:
        return self.kind if self.base or self.temperature is None else f"{self.kind} (T={self.temperature:g})"

    def settled(self, choice: Choice) -> Condition:
        """The condition with one of its choices."""
        return replace(self, method=choice.method, changes=choice.changes, choices=())

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> Condition:
        """The condition that `asdict` made a record of, also after its way through JSON."""
        made = {name: record[name] for name in cls.__dataclass_fields__ if name in record}
        made |= {"figures": tuple(made["figures"]), "changes": _pairs(made.get("changes", ()))}
        made["choices"] = tuple(Choice(c["method"], _pairs(c["changes"])) for c in made.get("choices", ()))
        return cls(**made)


def _pairs(written: Any) -> Changes:
    return tuple((name, value) for name, value in written)


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
    """A sentence as a test: the difference a - b (names of conditions) and a rule.

    `minus` (c, d): the difference of differences (a - b) - (c - d) instead. `metric`: the column of the results that is
    compared, in percent. `paper` says in words and numbers what a paper found. `premise` is the key of a claim without
    which a "shown" says little: that x accounts for a gain means nothing where there was none.
    """

    key: str
    text: str
    a: str
    b: str
    temperature: float | None
    rule: Rule
    paper: str = ""
    premise: str = ""
    minus: tuple[str, str] | None = None
    metric: str = "linear_top1"


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
class Table:
    """Conditions, each beside the one it is compared with, and one correction for there being several.

    `axis`: the name of the axis on which its conditions have their places, if it has one.
    """

    key: str
    title: str
    text: str = ""
    axis: str = ""


HEADLINES = {
    "shown": "Yes",
    "contradicted": "The opposite",
    "not shown": "No difference shown",
    "not tested here": "Not tested here",
}


def each_claim(judged: Mapping[str, Judged]) -> tuple[Answer, ...]:
    """One answer a claim: what these runs say of it, with the difference and why."""
    answers = []
    for j in judged.values():
        found = f"{words(j.difference.estimate)}: {j.reason}." if j.difference else f"{j.reason}."
        caution = (f"{j.caution[0].upper()}{j.caution[1:]}.",) if j.caution else ()
        headline = "Not settled" if j.outcome == "not shown" and j.claim.rule in SAMENESS else HEADLINES[j.outcome]
        answers.append(Answer(j.claim.text, headline, (found, *caution)))
    return tuple(answers)


SAMENESS = ("suffices", "does not hurt", "accounts for")  # rules that claim the absence of a difference


def no_claims(preset: str, host: str) -> tuple[Claim, ...]:
    return ()


@dataclass(frozen=True)
class Study:
    """A title, conditions, and what is said of them. `answers` and `bands` go by the claims' keys.

    `conditions` takes (preset, the preset's run), `claims` (preset, host). `presets`: what differs from the presets of
    that name, which are those there are. `loss_bands`: percentiles at which the baseline's loss is cut into shares.
    `measure`: what is measured of a finished run besides its result, from its folder. `inside`: its first run is looked
    into: who its negatives were, what its space holds.
    """

    name: str
    title: str
    conditions: Callable[[str, Run], tuple[Condition, ...]]
    claims: Callable[[str, str], tuple[Claim, ...]] = no_claims
    answers: Callable[[Mapping[str, Judged]], tuple[Answer, ...]] = each_claim
    tables: tuple[Table, ...] = ()
    presets: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"demo": {}, "small": {}, "paper": {}})
    seeds: int = 3
    arxiv: str = ""
    setting: str = ""
    reported: tuple[Reported, ...] = ()
    bands: tuple[Band, ...] = ()
    loss_bands: tuple[float, ...] = ()
    measure: Callable[[Path], Mapping[str, float]] | None = None
    inside: bool = False
