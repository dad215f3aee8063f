"""The report of the study 2010.06682: its Figures 1, 2 and 3, its Table 1 and its explanation of Figure 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

from onca.report import sections
from onca.report.charts import Line, Point, Stretch, curves, extent, forest, interval, shares, stretches
from onca.report.figure import Figure, Panel
from onca.report.page import Html, figure, section, tag
from onca.report.tables import StudyResult, Summary
from onca.study.judge import Judged, signed
from onca.study.plan import Study
from onca.study.studies.cai2020 import BASELINE, HARDEST, LOSS_BANDS

NUMBERS = (
    "Mean ± sd and the 95 % interval of the mean. Differences are to the baseline of the same temperature, paired by "
    "seed, with their interval; p is the paper's unpaired t-test of top-1. The paper's numbers are mean ± sd of three."
)
READING = "Large dots are means, bars 95 % intervals over seeds, small rings single seeds."
ACCURACY = "linear top-1 accuracy (%)"
POINTS = "points of linear top-1"


def figures(study: StudyResult, summaries: Sequence[Summary], judged: Mapping[str, Judged]) -> dict[str, Figure]:
    """The figures that these runs give, by key: a study at one temperature has no Figure 3, for example."""
    drawn = (
        difficulty(study.study, judged),
        windows(summaries),
        temperatures(summaries),
        removals(summaries),
        loss_share(study.loss_share),
    )
    return {found.key: found for found in drawn if found is not None}


def body(
    study: StudyResult, summaries: Sequence[Summary], judged: Mapping[str, Judged], drawn: Mapping[str, Figure]
) -> list[Html]:
    """Answers first, then what they rest on."""

    def part(key: str, title: str) -> Html:
        mine = [s for s in summaries if any(name.startswith(key) for name in s.condition.figures)]
        drawing = drawn.get(key.replace(" ", "-"))
        shown = tag("p", _missing(mine)) if drawing is None else figure(drawing)
        return section(title, shown, sections.numbers(mine, NUMBERS))

    share = drawn.get("loss-share")
    return [
        section("Answers", *sections.answers(study.study.answers(judged)), figure(drawn["summary"])),
        section("The paper's claims", sections.verdicts(judged)),
        part("figure 2", "Which difficulties suffice, which are needed? (Figure 2)"),
        part("figure 3", "The hardest 0.1 % and the temperature (Figure 3)"),
        part("table 1", "Do the hardest harm, and is it the same class? (Table 1)"),
        *((section("Why temperature may matter", figure(share)),) if share else ()),
    ]


def _missing(summaries: Sequence[Summary]) -> str:
    if len({s.condition.temperature for s in summaries}) < 2 and any(s.estimates for s in summaries):
        return "No figure: this preset trains at one temperature."
    return "No figure yet: the runs that it needs have not finished."


def difficulty(paper: Study, judged: Mapping[str, Judged]) -> Figure:
    """The one-look summary, like the paper's Figure 1."""
    parts = [
        Stretch(
            f"{band.low:g}", f"{band.high:g}", band.title, tuple(_said(w, judged[key]) for w, key in band.statements)
        )
        for band in paper.bands
    ]
    caption = (
        "Each word is a claim of the paper and what these runs say of it: ✓ shown, ? not shown, ✗ contradicted. "
        "Below it the difference in points of linear top-1 and its 95 % interval."
    )
    chart = stretches(parts, "percentile of difficulty, not to scale: easy → hard")
    return Figure("summary", "Negatives by difficulty", caption, (Panel(chart),))


def _said(words: str, judged: Judged) -> tuple[str, str, str]:
    found = judged.difference
    numbers = f"{signed(found.estimate.mean)}\n{interval(found.estimate, signed)}" if found else judged.outcome
    return words, judged.outcome, numbers


def windows(summaries: Sequence[Summary]) -> Figure | None:
    """Figure 2: trained on one window of difficulty only, and on all except it. None without a baseline run."""
    mine = [s for s in summaries if any(name.startswith("figure 2") for name in s.condition.figures)]
    base = next((s.estimates.get("top1") for s in mine if s.condition.kind == BASELINE), None)
    if base is None:
        return None
    lines = {s.condition.kind: _accuracy(s) for s in mine}
    limits = extent(list(lines.values()))
    panels = []
    for verb, title in (("keep", "Trained on these negatives only"), ("drop", "Trained on all except these")):
        rows = [lines[s.condition.kind] for s in mine if f"figure 2 {verb}" in s.condition.figures]
        panels.append(Panel(forest(rows, ACCURACY, limits, band=base), title))
    paired = [_paired(s.condition.kind, s) for s in mine if s.condition.kind != BASELINE]
    chart = forest(paired, f"{POINTS} to the baseline", extent(paired, 0.0), differences=True)
    panels.append(Panel(chart, "The same as differences, seed by seed"))
    caption = (
        f"{READING} Names are percentiles of difficulty, 100 is the hardest. The band is the baseline's interval. "
        "What a seed does to all conditions alike cancels in the differences, on which the verdicts rest."
    )
    return Figure("figure-2", "Which negatives suffice, which are needed", caption, tuple(panels))


def _accuracy(summary: Summary) -> Line:
    condition = summary.condition
    return Line(condition.kind, summary.estimates.get("top1"), summary.values["top1"], detail=condition.method)


def _paired(name: str, summary: Summary, reported: tuple[tuple[float, str], ...] = ()) -> Line:
    found = summary.differences.get("top1")
    if found is None:
        return Line(name, None, {}, reported, summary.condition.method)
    return Line(name, found.estimate, found.by_seed, reported, summary.condition.method)


def temperatures(summaries: Sequence[Summary]) -> Figure | None:
    """Figure 3: with all negatives and without the hardest 0.1 % at each temperature. None with one temperature."""
    mine = [s for s in summaries if "figure 3" in s.condition.figures]
    panels = []
    for metric, title in (("top1", "Linear top-1"), ("top5", "Linear top-5")):
        points = [
            Point(name, s.condition.temperature, s.estimates[metric], s.values[metric])
            for kind, name in ((BASELINE, "all negatives"), (HARDEST, "without the hardest 0.1 %"))
            for s in mine
            if s.condition.kind == kind and s.condition.temperature is not None and metric in s.estimates
        ]
        if len({point.x for point in points}) > 1:
            panels.append(Panel(curves(points, "temperature", "accuracy (%)"), title))
    if not panels:
        return None
    dropped = sorted((s for s in mine if s.condition.kind == HARDEST), key=lambda s: s.condition.temperature or 0.0)
    lines = [_paired(f"temperature {s.condition.temperature:g}", s, _reported(s, summaries)) for s in dropped]
    chart = forest(lines, f"{POINTS} gained without the hardest 0.1 %", extent(lines, 0.0), differences=True)
    caption = (
        f"{READING} Diamonds: the paper's Table 1. Of its Figure 3 its text gives one point: at 0.1, dropping the "
        "hardest 0.1 % improves top-1 by 0.23 % and top-5 by 0.67 %."
    )
    panels.append(Panel(chart, "What dropping them gains, seed by seed"))
    return Figure("figure-3", "Temperature and the hardest 0.1 %", caption, tuple(panels))


def removals(summaries: Sequence[Summary]) -> Figure | None:
    """Table 1 as paired differences to the baseline, a panel a temperature, with the paper's differences."""
    mine = [s for s in summaries if "table 1" in s.condition.figures and s.condition.kind != BASELINE]
    rows: dict[float, list[Line]] = {}
    for s in mine:
        rows.setdefault(s.condition.temperature or 0.0, []).append(
            _paired(s.condition.kind, s, _reported(s, summaries))
        )
    if not rows:
        return None
    limits = extent([line for lines in rows.values() for line in lines], 0.0)
    panels = [
        Panel(forest(lines, f"{POINTS} to the baseline", limits, differences=True), f"Temperature {t:g}")
        for t, lines in sorted(rows.items())
    ]
    at = " and ".join(f"{t:g}" for t in sorted({r.temperature for s in mine for r in s.reported if r.temperature}))
    caption = f"{READING} Differences are taken seed by seed. Diamonds: the paper's, at temperature {at}."
    return Figure("table-1", "Without the hardest, without the same class", caption, tuple(panels))


def _reported(summary: Summary, summaries: Sequence[Summary]) -> tuple[tuple[float, str], ...]:
    """The paper's differences of means to its baseline of the same temperature."""
    baselines = {r.temperature: r.top1 for s in summaries if s.condition.kind == BASELINE for r in s.reported}
    return tuple(
        (round(r.top1 - baselines[r.temperature], 2), f"paper, {r.source}, temperature {r.temperature:g}")
        for r in summary.reported
        if r.temperature in baselines
    )


def loss_share(found: Mapping[float, Sequence[tuple[float, float, float]]]) -> Figure | None:
    """The share of the summed exponentials by percentile of difficulty, a bar a temperature, hardest last."""
    parts = []
    for temperature, percentiles in sorted(found.items()):
        whole = sum(share for _, _, share in percentiles)
        for low, high in pairwise(LOSS_BANDS):
            inside = sum(share for a, b, share in percentiles if low <= (a + b) / 2 < high)
            parts.append((f"{temperature:g}", f"{low:g}-{high:g}", inside / whole))
    if not parts:
        return None
    caption = (
        "The paper explains the effect of temperature so: the lower it is, the larger the part of the loss that the "
        "hardest negatives make up. Parts are percentiles of difficulty, 100 is the hardest."
    )
    chart = shares(parts, "temperature", "percentile of difficulty", "share of the summed exp(score / temperature), %")
    return Figure("loss-share", "Share of the loss by difficulty", caption, (Panel(chart),))
