"""The report of a study of tables: each condition beside the one it is compared with, and the words that follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onca.report import sections
from onca.report.charts import Line, Point, curves, extent, forest
from onca.report.figure import Figure, Panel
from onca.report.page import Html, figure, join, section, table, tag
from onca.report.tables import StudyResult, Summary
from onca.study.comparison import BETTER, LEVEL, WORSE, Compared
from onca.study.judge import Judged, words
from onca.study.plan import Answer, Table
from onca.study.statistics import Estimate

MARKS = {BETTER: "▲ ", WORSE: "▼ "}
POINTS = "points of linear top-1"
READING = (
    "Large dots are means, bars 95 % intervals over seeds, each for itself, small rings single seeds. ▲ better and ▼ "
    "worse after Holm's correction; without a mark no difference is shown."
)
CORRECTED = (
    "Differences are taken seed by seed, with their 95 % intervals (Student's t, not corrected). p is that of the "
    "paired t-test, then after Holm's correction over the {tests}; the words follow the corrected p at {level:g} %. "
    "Compute is counted in forward passes of an encoder and given as a share of the baseline's; seconds of a run tell "
    "what rules and losses cost besides."
)


def figures(study: StudyResult, summaries: Sequence[Summary], judged: Mapping[str, Judged]) -> dict[str, Figure]:
    """A forest for every table, and a chart over its axis for one that has an axis."""
    drawn = []
    nulls = (s.differences.get("top1") for s in summaries if s.condition.control == "null")
    null = next((found.estimate for found in nulls if found), None)
    for place in study.study.tables:
        mine = [s for s in summaries if place.key in s.condition.figures]
        drawn += [_forest(place, mine, null), _curves(place, mine)]
    return {found.key: found for found in drawn if found is not None}


def body(
    study: StudyResult, summaries: Sequence[Summary], judged: Mapping[str, Judged], drawn: Mapping[str, Figure]
) -> list[Html]:
    """Answers, verdicts where there are claims, then each table with its figures, then how settings were chosen."""
    said = study.study.answers(judged) if judged else findings(study.compared())
    claims = [section("Claims", sections.verdicts(judged))] if judged else []
    parts = []
    for place in study.study.tables:
        mine = [s for s in summaries if place.key in s.condition.figures]
        shown = [figure(drawn[key]) for key in (f"{place.key}-axis", place.key) if key in drawn]
        told = [tag("p", place.text, class_="note")] if place.text else []
        parts.append(section(place.title, *told, *shown, *_numbers(mine)))
    trials = [section("Settings chosen on the validation part", *_trials(study))] if study.trials else []
    return [section("Answers", *sections.answers(said)), *claims, *parts, *trials]


def findings(compared: Mapping[str, Sequence[Compared]]) -> tuple[Answer, ...]:
    """What the tables say, in a few words: what is better, what is worse, and whether the comparison is sound."""
    rows = [each for found in compared.values() for each in found]
    methods = [each for each in rows if not each.condition.needs_labels and not each.condition.control]
    tested = sum(each.difference is not None for each in methods)
    return (
        _which("Which are better?", BETTER, methods, tested),
        _which("Which are worse?", WORSE, methods, tested),
        *(_sound(each) for each in rows if each.condition.control == "null"),
        *_limits([each for each in rows if each.condition.needs_labels]),
    )


def _which(question: str, word: str, rows: Sequence[Compared], tested: int) -> Answer:
    mine = [each for each in rows if each.word == word]
    names = ", ".join(each.condition.name for each in mine)
    if not tested:
        return Answer(question, "Not tested here", ())
    headline = names if len(mine) in (1, 2) else f"{len(mine)} of {tested}" if mine else "No difference shown"
    besides = f"None of the {tested} rows, after Holm's correction." if not mine else ""
    return Answer(question, headline, tuple(filter(None, (*(_sentence(each) for each in mine), besides))))


def _sentence(found: Compared) -> str:
    assert found.difference is not None
    return f"{found.condition.name}: {words(found.difference.estimate)}, against {found.condition.against}."


def _sound(null: Compared) -> Answer:
    """The null control in words: in it nothing differs but chance."""
    question = "What does chance alone do?"
    if null.difference is None:
        return Answer(question, "Not tested here", ())
    if null.word not in MARKS:
        return Answer(question, _capital(null.word), (_sentence(null),))
    warning = "Nothing but chance was changed in it, so the words of the other rows are not to be trusted."
    return Answer(question, "Too much: the null control differs", (_sentence(null), warning))


def _limits(labelled: Sequence[Compared]) -> tuple[Answer, ...]:
    tested = [each for each in labelled if each.difference is not None]
    if not tested:
        return ()
    best = max(tested, key=lambda each: each.difference.estimate.mean if each.difference else 0.0)
    headline = "More" if best.word == BETTER else "No difference shown"
    return (
        Answer(
            "What could labels reach?", headline, tuple(f"{_sentence(each)} {_capital(each.word)}." for each in tested)
        ),
    )


def _capital(word: str) -> str:
    return word[0].upper() + word[1:]


def _forest(place: Table, summaries: Sequence[Summary], null: Estimate | None) -> Figure | None:
    """Differences of a table's rows, methods before those that see labels; the band is the null control's interval."""
    panels: list[Panel] = []
    for labels, title in ((False, ""), (True, "With labels, which no method has (a scale of its own)")):
        mine = [
            _line(s) for s in summaries if s.compared and s.compared.difference and s.condition.needs_labels == labels
        ]
        if mine:
            chart = forest(mine, POINTS, extent(mine, 0.0), differences=True, band=null)
            panels.append(Panel(chart, title if panels else ""))
    told = f"{READING} The band is the null control's interval." if null else READING
    return Figure(place.key, place.title, told, tuple(panels)) if panels else None


def _line(summary: Summary) -> Line:
    found = summary.compared
    assert found is not None and found.difference is not None
    name = MARKS.get(found.word, "") + summary.condition.name
    return Line(name, found.difference.estimate, found.difference.by_seed, detail=summary.condition.method)


def _curves(place: Table, summaries: Sequence[Summary]) -> Figure | None:
    """What the conditions give over the table's axis: differences where each is compared, else accuracies."""
    mine = [s for s in summaries if s.condition.at is not None]
    gains = all(s.condition.against for s in mine)
    points = []
    for s in mine:
        paired = s.differences.get("top1")
        if gains and paired:
            points.append(Point(s.condition.series, s.condition.at or 0.0, paired.estimate, paired.by_seed))
        elif not gains and "top1" in s.estimates:
            points.append(Point(s.condition.series, s.condition.at or 0.0, s.estimates["top1"], s.values["top1"]))
    if len({point.x for point in points}) < 2:
        return None
    what = f"{POINTS} gained" if gains else "linear top-1 accuracy (%)"
    caption = "Dots are means, bars 95 % intervals over seeds, small rings single seeds."
    return Figure(f"{place.key}-axis", place.title, caption, (Panel(curves(points, place.axis, what)),))


def _numbers(summaries: Sequence[Summary]) -> tuple[Html, ...]:
    """The table itself, those that see labels after the others."""
    turned = any("rotation" in s.estimates for s in summaries)
    more = ("Rotation",) if turned else ()
    head = ("Condition", "n", "Top-1", "Difference", "p", "Says", *more, "Compute", "Seconds")
    rows, tests = [], {}
    for s in sorted(summaries, key=lambda s: s.condition.needs_labels):
        c, found, top1 = s.condition, s.compared, s.estimates.get("top1")
        if found and found.tests:
            tests[c.needs_labels] = found.tests
        remarks = [tag("span", f"to {c.against}", class_="soft below")] if c.against not in ("", "baseline") else []
        remarks += [tag("span", "sees labels", class_="soft below")] if c.needs_labels else []
        why = [tag("span", found.why, class_="soft below")] if found and found.why else []
        rows.append(
            (
                join(c.name, *remarks),
                str(top1.n) if top1 else "0",
                sections.mean(s, "top1"),
                sections.difference(s.differences.get("top1")),
                _chances(found),
                join(MARKS.get(found.word, "") + found.word if found else "–", *why),
                *((sections.mean(s, "rotation"),) if turned else ()),
                "–" if s.compute is None else f"{100 * s.compute:.0f} %",
                "–" if s.seconds is None else f"{s.seconds:.0f}",
            )
        )
    kinds = [f"{n} rows {'with' if labels else 'without'} labels" for labels, n in tests.items()]
    caption = CORRECTED.format(tests=" and over the ".join(kinds) or "rows", level=100 * LEVEL)
    return (table(head, rows, numbers=(1, 2, 3, 4, *range(6, len(head))), caption=caption, stacked=True),)


def _chances(found: Compared | None) -> Html:
    """The p of a row alone, and below it after Holm's correction."""
    if found is None or found.p is None:
        return join("–")
    return join(sections.chance(found.p), tag("span", f"Holm {sections.chance(found.adjusted)}", class_="soft below"))


def _trials(study: StudyResult) -> tuple[Html, ...]:
    """Every setting that was tried, on which part and with which seed, and which was taken."""
    chosen = {(row["condition"], row["method"], row.get("settings", "")) for row in study.rows}
    rows = []
    for trial in study.trials:
        taken = (trial["condition"], trial["method"], trial.get("settings", "")) in chosen
        value = trial.get("linear_top1")
        shown = f"{value:.2f}" if isinstance(value, float | int) else "–"
        rows.append((str(trial["condition"]), tag("code", str(trial["method"])), shown, "taken" if taken else ""))
    told = sorted({f"{trial.get('split')} part, seed {trial['seed']}" for trial in study.trials})
    caption = f"Linear top-1, {', '.join(told)}. The paper's setting stands first; of equals the first is taken."
    return (table(("Condition", "Setting", "Top-1", ""), rows, numbers=(2,), caption=caption),)
