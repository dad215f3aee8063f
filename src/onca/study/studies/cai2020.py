"""Are all negatives created equal in contrastive instance discrimination? (Cai et al., 2010.06682)

Its Figure 2 (which windows of difficulty suffice, which are needed), Figure 3 (dropping the hardest 0.1 % at several
temperatures) and Table 1 (what of that is due to same-class negatives). Percent count difficulty: 100 is the hardest.

Figure 2 drops without refill, Figure 3 and Table 1 put slightly older negatives in their place (the paper's footnotes 1
and 2). All of `REPORTED` is printed in the paper (Table 1, appendix A.1): mean and sd of three replicates on ImageNet.
Of Figure 3 the text gives one point, in words. It does not state the temperature of Figure 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from onca.study.judge import Judged, words
from onca.study.plan import Answer, Band, Claim, Condition, Reported, Study
from onca.study.statistics import Rule
from onca.train import Run

WINDOWS = ((85, 90), (90, 95), (95, 100), (85, 100), (90, 100))
TEMPERATURES = (0.07, 0.1, 0.15, 0.2, 0.3)  # Figure 3
TABLE_1 = (0.07, 0.2)
BASE_TEMPERATURE = {"demo": 0.1, "small": 0.2, "paper": 0.2}
LOSS_BANDS = (0.0, 50.0, 85.0, 90.0, 95.0, 99.9, 100.0)  # percentiles at which the share of the loss is cut

BASELINE = "baseline"
HARDEST = "drop hardest 0.1%"
SAME_CLASS = "drop same class"
HARDEST_SAME = "drop hardest 0.1% same class"
HARDEST_OTHER = "drop hardest 0.1% other class"
EASIEST_SAME = "drop same class but hardest 0.1%"

SELECTORS = {  # what Figure 3 and Table 1 drop
    HARDEST: "hardest(0.1)",
    SAME_CLASS: "same_class",
    HARDEST_SAME: "hardest(0.1) & same_class",
    HARDEST_OTHER: "hardest(0.1) & ~same_class",
    EASIEST_SAME: "same_class & ~hardest(0.1)",
}

# Preset demo: what the claims need and as much more as two cores finish in eight minutes with three seeds. Edit freely:
# a claim whose conditions are missing is reported as not tested.
DEMO = (
    BASELINE,
    *("keep 85-90", "keep 90-95", "keep 95-100", "drop 95-100"),
    *(HARDEST, SAME_CLASS, HARDEST_SAME),
)

REPORTED = (
    Reported("keep 85-90", None, 19.47, 12.83, 36.78, 17.93, "appendix A.1"),
    Reported("keep 90-95", None, 51.89, 1.00, 75.44, 0.74, "appendix A.1"),
    Reported("keep 95-100", None, 66.69, 0.16, 87.35, 0.09, "appendix A.1, beside 90-95"),
    Reported("keep 95-100", None, 67.32, 0.88, 87.52, 0.63, "appendix A.1, beside 90-100"),
    Reported("keep 85-100", None, 67.22, 0.21, 87.67, 0.09, "appendix A.1"),
    Reported("keep 90-100", None, 67.15, 0.10, 87.60, 0.02, "appendix A.1"),
    Reported("drop 85-90", None, 67.56, 0.12, 87.98, 0.12, "appendix A.1"),
    Reported("drop 90-95", None, 67.53, 0.20, 87.94, 0.12, "appendix A.1"),
    Reported("drop 95-100", None, 62.1, 0.24, 84.0, 0.15, "appendix A.1, beside 90-95"),
    Reported("drop 95-100", None, 61.95, 0.16, 83.87, 0.28, "appendix A.1, beside 90-100"),
    Reported("drop 85-100", None, 47.91, 0.79, 72.13, 0.83, "appendix A.1"),
    Reported("drop 90-100", None, 56.96, 0.36, 80.14, 0.20, "appendix A.1"),
    Reported(BASELINE, 0.07, 64.78, 0.31, 85.86, 0.12, "Table 1"),
    Reported(HARDEST, 0.07, 66.25, 0.23, 86.98, 0.09, "Table 1"),
    Reported(SAME_CLASS, 0.07, 66.61, 0.10, 86.96, 0.07, "Table 1"),
    Reported(HARDEST_SAME, 0.07, 66.43, 0.04, 86.78, 0.06, "Table 1"),
    Reported(HARDEST_OTHER, 0.07, 63.69, 0.04, 85.44, 0.00, "Table 1"),
    Reported(EASIEST_SAME, 0.07, 65.06, 0.11, 85.91, 0.01, "Table 1"),
    Reported(BASELINE, 0.2, 67.48, 0.07, 87.93, 0.05, "Table 1"),
    Reported(HARDEST, 0.2, 67.64, 0.22, 87.88, 0.07, "Table 1"),
    Reported(SAME_CLASS, 0.2, 68.07, 0.12, 88.30, 0.15, "Table 1"),
    Reported(HARDEST_SAME, 0.2, 67.67, 0.02, 88.09, 0.18, "Table 1"),
    Reported(HARDEST_OTHER, 0.2, 67.38, 0.06, 87.86, 0.08, "Table 1"),
    Reported(EASIEST_SAME, 0.2, 67.79, 0.07, 88.05, 0.05, "Table 1"),
)


def conditions(preset: str, run: Run) -> tuple[Condition, ...]:
    """All conditions of a preset, each (method, temperature) once, the baseline first.

    SimCLR contrasts within the batch and has no older negatives: there Figure 3 and Table 1 drop without refill.
    """
    base, host = _base(preset), run.host
    figure_3, table_1 = ((base,), (base,)) if preset == "demo" else (TEMPERATURES, TABLE_1)
    planned = [_make(BASELINE, base, preset, host, "figure 2 keep", "figure 2 drop")]
    planned += [
        _make(f"{verb} {low}-{high}", base, preset, host, f"figure 2 {verb}")
        for verb in ("keep", "drop")
        for low, high in WINDOWS
    ]
    planned += [_make(kind, t, preset, host, "figure 3") for t in figure_3 for kind in (BASELINE, HARDEST)]
    planned += [_make(kind, t, preset, host, "table 1") for t in table_1 for kind in (BASELINE, *SELECTORS)]
    merged: dict[str, Condition] = {}
    for condition in planned:
        earlier = merged.get(condition.name, condition)
        merged[condition.name] = replace(earlier, figures=tuple(dict.fromkeys(earlier.figures + condition.figures)))
    return tuple(condition for condition in merged.values() if preset != "demo" or condition.kind in DEMO)


def _base(preset: str) -> float:
    if preset not in BASE_TEMPERATURE:
        raise ValueError(f"the study cai2020 has no preset {preset!r}: one of {', '.join(BASE_TEMPERATURE)}")
    return BASE_TEMPERATURE[preset]


def _make(kind: str, temperature: float, preset: str, host: str, *figures: str) -> Condition:
    refill = "" if host == "simclr" else ", refill=True"
    if kind == BASELINE:
        method = "infonce"
    elif kind in SELECTORS:
        method = f"chain(drop({SELECTORS[kind]}{refill}), infonce)"
    else:
        verb, window = kind.split()
        method = f"chain({verb}(window({window.replace('-', ', ')})), infonce)"
    note = "without refill: the batch itself has no older negatives" if kind in SELECTORS and not refill else ""
    oracle, base = "same_class" in method, temperature == _base(preset)
    made = Condition(kind, method, temperature, figures, needs_labels=oracle, base=base, note=note)
    return made if kind == BASELINE else replace(made, against=replace(made, kind=BASELINE).name)


def claims(preset: str, host: str) -> tuple[Claim, ...]:
    """The paper's claims as differences between conditions, at the paper's temperatures where the preset has them.

    The text's numbers are quoted; a difference of two printed means is ours to take.
    """
    base = _base(preset)
    low = base if preset == "demo" else 0.07

    def claim(key: str, text: str, a: str, b: str, t: float, rule: Rule, paper: str, premise: str = "") -> Claim:
        first, second = (_make(kind, t, preset, host).name for kind in (a, b))
        return Claim(key, text, first, second, t, rule, paper, premise)

    helps = "Dropping the hardest 0.1 % helps at temperature"
    first = (
        claim("suffices", "The hardest 5 % suffice", "keep 95-100", BASELINE, base, "suffices",
              "“within 0.7 percentage points of full accuracy”"),
        claim("insufficient", "The easiest 95 % do not suffice", "drop 95-100", BASELINE, base, "worse",
              "“accuracy was 5% below baseline”"),
        claim("second", "The next 5 % (90-95) are worse than the hardest (95-100)", "keep 90-95", "keep 95-100", base,
              "worse", "51.89 against 66.69 (A.1): −14.80"),
        claim("third", "The third 5 % (85-90) are worse still", "keep 85-90", "keep 90-95", base,
              "worse", "19.47 against 51.89 (A.1): −32.42"),
        claim("harmless", "Dropping the hardest 0.1 % does not hurt", HARDEST, BASELINE, base, "does not hurt",
              "67.64 against 67.48 at 0.2 (Table 1): +0.16"),
        claim("helps", f"{helps} {low:g}", HARDEST, BASELINE, low, "helps",
              "66.25 against 64.78 at 0.07 (Table 1): +1.47; “by 0.23%” at 0.1"),
    )  # fmt: skip
    second = claim("helps too", f"{helps} 0.1", HARDEST, BASELINE, 0.1, "helps", "“by 0.23%” at 0.1")
    last = claim("accounts", f"Its same-class part alone accounts for that, at {low:g}", HARDEST_SAME, HARDEST, low,
                 "accounts for", "66.43 against 66.25 at 0.07 (Table 1): +0.18", premise="helps")  # fmt: skip
    return (*first, last) if low == 0.1 else (*first, second, last)


def answers(judged: Mapping[str, Judged]) -> tuple[Answer, ...]:
    """Which negatives does this training need, which are useless, which harm? With differences of linear top-1."""
    return (
        Answer(
            "Which negatives does this training need?",
            _headline(judged["insufficient"], "The hardest 5 %", "Not the hardest 5 %"),
            _sentences(
                (judged["insufficient"], "Leaving them out: {}."),
                (judged["second"], "Training on 90‑95 alone instead of 95‑100: {} (worse: {outcome})."),
                (judged["third"], "On 85‑90 instead of 90‑95: {} (worse: {outcome})."),
            ),
        ),
        Answer(
            "Which are useless?",
            _headline(judged["suffices"], "The easiest 95 %", "Not the easiest 95 %: they are missed"),
            _sentences((judged["suffices"], "Training on the hardest 5 % alone: {}; {reason}.")),
        ),
        Answer(
            "Which harm?",
            _headline(judged["helps"], "The hardest 0.1 %", "Not the hardest 0.1 %: they are missed"),
            _sentences(
                (judged["helps"], "Leaving them out at temperature {t:g}: {}."),
                (judged["harmless"], "That this does not hurt at {t:g} is {outcome}: {}."),
                (
                    judged["accounts"],
                    "Leaving out only those of the query's class instead, at {t:g}: {} (accounts for it: {outcome}).",
                ),
            ),
        ),
    )


def _headline(judged: Judged, shown: str, contradicted: str) -> str:
    return {
        "shown": shown,
        "contradicted": contradicted,
        "not shown": "Not settled by these runs",
        "not tested here": "Not tested here",
    }[judged.outcome]


def _sentences(*forms: tuple[Judged, str]) -> tuple[str, ...]:
    """Each form with what was found, and with the caution that belongs to it; what was not tested says nothing."""
    sentences = []
    for j, form in forms:
        if j.difference is not None:
            outcome = ", ".join(filter(None, (j.outcome, j.caution)))
            found = words(j.difference.estimate)
            sentences.append(form.format(found, t=j.claim.temperature, outcome=outcome, reason=j.reason))
    return tuple(sentences)


STUDY = Study(
    name="cai2020",
    title="Are all negatives created equal in contrastive instance discrimination?",
    arxiv="2010.06682",
    setting="ImageNet, MoCo v2, ResNet-50, 200 epochs, three replicates, mean ± sd",
    reported=REPORTED,
    bands=(
        Band(0, 95, "easiest 95 %", (("not needed", "suffices"), ("not enough", "insufficient"))),
        Band(95, 99.9, "hardest 5 %", (("needed", "insufficient"), ("enough", "suffices"))),
        Band(99.9, 100, "hardest 0.1 %", (("not needed", "harmless"), ("harmful", "helps"))),
    ),
    conditions=conditions,
    claims=claims,
    answers=answers,
    loss_bands=LOSS_BANDS,
    inside=True,
)
