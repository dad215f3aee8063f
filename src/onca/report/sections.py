"""What stands on the page of a study: its head, verdicts, tables of numbers, conditions, and where they come from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from onca.report.charts import interval, plain
from onca.report.page import Html, badge, card, facts, join, table, tag
from onca.report.tables import StudyResult, Summary
from onca.study.judge import Judged, signed
from onca.study.plan import Answer
from onca.study.statistics import CONFIDENCE, MARGIN, Difference

RULES = (
    "Differences are points of linear top-1, taken seed by seed. “Suffices” and “does not hurt” are shown when the "
    f"whole interval lies above −{MARGIN:g}, “accounts for” when it lies within ±{MARGIN:g}, “worse” and “helps” when "
    "it lies wholly on that side of 0; contradicted when it lies on the other side; not shown otherwise. "
    f"The {CONFIDENCE:.0%} intervals are Student's t; they are not corrected for there being several claims."
)


def header(study: StudyResult) -> Html:
    done, seeds = len({row["condition"] for row in study.rows}), ", ".join(map(str, _seeds(study)))
    extent = f"{len(study.rows)} runs: {done} of {len(study.conditions)} conditions, seeds {seeds or 'none yet'}."
    arxiv, setting = study.study.arxiv, study.study.setting
    data = f"Data: {study.provenance['data']}. " if "data" in study.provenance else ""
    about = [f"{setting} {data}"]
    if arxiv:
        link = tag("a", f"arXiv:{arxiv}", href=f"https://arxiv.org/abs/{arxiv}")
        about = ["Repeats ", link, f" ({setting.rstrip('.')}). {data}"]
    unit = "Accuracies are those of a linear classifier on frozen features, in percent."
    return tag(
        "header",
        tag("p", f"onca study {study.name} · preset {study.preset} · host {study.host}", class_="kicker"),
        tag("h1", study.study.title),
        tag("p", *about, f"{extent} {unit}"),
    )


def _seeds(study: StudyResult) -> list[int]:
    return sorted({int(str(row["seed"])) for row in study.rows})


def answers(found: Sequence[Answer]) -> tuple[Html, Html]:
    """A card an answer, and what its numbers are."""
    note = "Differences in points of linear top-1, paired by seed, with 95 % intervals."
    cards = (card(a.question, a.headline, *a.sentences) for a in found)
    return tag("p", note, class_="note"), tag("div", *cards, class_="cards")


def verdicts(judged: Mapping[str, Judged]) -> Html:
    """A line a claim: what a paper found, if it asks the same, what these runs found, what follows."""
    papers = any(j.claim.paper for j in judged.values())
    head = ("Claim", "Verdict", "Difference", "n", *(("In the paper",) if papers else ()), "Because")
    rows = []
    for j in judged.values():
        found = j.difference
        because = "; ".join(filter(None, (j.reason, j.caution, _left_out(found))))
        rows.append(
            (
                join(j.claim.text, tag("span", _compares(j), class_="soft below")),
                badge(j.outcome),
                difference(found),
                str(found.estimate.n) if found else "0",
                *((j.claim.paper,) if papers else ()),
                because,
            )
        )
    return table(head, rows, numbers=(2, 3), caption=RULES, stacked=True)


def _compares(judged: Judged) -> str:
    claim = judged.claim
    text = f"{claim.a} − {claim.b}"
    if claim.minus:
        text = f"({text}) − ({claim.minus[0]} − {claim.minus[1]})"
    return text if claim.metric == "linear_top1" else f"{text}, {claim.metric.removesuffix('_top1')}"


def _left_out(found: Difference | None) -> str:
    if found is None or not found.left_out:
        return ""
    return f"left out, since only one of the two has it: seed {', '.join(map(str, found.left_out))}"


def numbers(summaries: Sequence[Summary], caption: str) -> Html:
    """The conditions in numbers, by temperature, the paper's beside ours."""
    head = ("Condition", "n", "Top-1", "Difference", "p", "Top-5", "Difference", "Paper top-1", "Paper top-5")
    rows = []
    for s in sorted(summaries, key=lambda s: s.condition.temperature or 0.0):
        top1, paired = s.estimates.get("top1"), s.differences.get("top1")
        p = paired.p if paired else None
        rows.append(
            (
                s.condition.name,
                str(top1.n) if top1 else "0",
                mean(s, "top1"),
                difference(paired),
                chance(p),
                mean(s, "top5"),
                difference(s.differences.get("top5")),
                _reported(s, "top1"),
                _reported(s, "top5"),
            )
        )
    return table(head, rows, numbers=range(1, len(head)), caption=caption)


def mean(summary: Summary, metric: str) -> Html:
    """Mean and sd of a condition, the interval below them."""
    found = summary.estimates.get(metric)
    if found is None:
        return join("no run")
    spread = "" if found.sd is None else f" ± {plain(found.sd)}"
    return join(plain(found.mean) + spread, tag("span", interval(found, plain), class_="soft below"))


def difference(found: Difference | None) -> Html:
    """A difference, its interval below it."""
    if found is None:
        return join("–")
    return join(signed(found.estimate.mean), tag("span", interval(found.estimate, signed), class_="soft below"))


def chance(p: float | None) -> str:
    """A p as text."""
    return "–" if p is None else f"{p:.3f}" if p >= 0.001 else "< 0.001"


def _reported(summary: Summary, metric: str) -> Html:
    printed = []
    for r in summary.reported:
        mean, sd = (r.top1, r.top1_sd) if metric == "top1" else (r.top5, r.top5_sd)
        same = r.temperature in (None, summary.condition.temperature)
        at = () if same else (tag("span", f"at {r.temperature:g}: ", class_="soft"),)
        printed.append(tag("span", *at, f"{plain(mean)} ± {plain(sd)}", class_="line", title=r.source))
    return join(*printed) or join("–")


def conditions(summaries: Sequence[Summary]) -> Html:
    """What was trained: the expression of every condition, what else differs, and where the setting comes from."""
    sourced = any(s.condition.source for s in summaries)
    rows = []
    for s in summaries:
        c = s.condition
        temperature = "preset's" if c.temperature is None else f"{c.temperature:g}"
        changes = [tag("code", f"{name}={value}", class_="line") for name, value in c.changes]
        note = "; ".join(filter(None, ("labels as an oracle" if c.needs_labels else "", c.note)))
        told = (c.source,) if sourced else ()
        rows.append((c.name, join(tag("code", c.method), *changes), temperature, *told, note, mean(s, "knn")))
    head = ("Condition", "Method", "Temperature", *(("Setting from",) if sourced else ()), "Note", "kNN top-1")
    return table(head, rows, numbers=(2, len(head) - 1), stacked=sourced)


def origin(study: StudyResult) -> tuple[Html, ...]:
    """What failed, and where the numbers come from."""
    seconds = [float(str(row["seconds"])) for row in study.rows if row.get("seconds") not in (None, "")]
    told = {
        **study.provenance,
        "seeds": _seeds(study),
        "measured on": sorted({f"{row.get('split')} ({row.get('images')} images)" for row in study.rows}),
        "seconds of all runs together": f"{sum(seconds):.0f}",
    }
    failed = (table(("Did not finish", "Why"), list(study.failures.items())),) if study.failures else ()
    return *failed, facts(told)
