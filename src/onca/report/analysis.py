"""What the analyses of a space found, as sections of a page: section 4 of 2010.06682, figure by figure."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from onca.analyse import Analysis, Interval, findings
from onca.analyse.classes import ClassPair
from onca.analyse.extremes import FILE as EXTREMES
from onca.analyse.record import FILE, Record, read_record
from onca.report.difficulty_charts import Course, bars, courses
from onca.report.false_negatives import false_negative_sections
from onca.report.figure import Figure, Panel
from onca.report.page import Html, badge, figure, join, page, section, table, tag

FLOOR = "raw pixels, no training"
DIFFICULTY = "difficulty, percentile (100 is the hardest)"
OUTCOMES = {"as in the paper": "shown", "contrary to the paper": "contradicted", "not shown": "not shown"}


def analysis_of(folder: Path) -> Record | None:
    """The record in RUN/analysis, None where there is none."""
    place = folder / "analysis"
    return read_record(place) if (place / FILE).is_file() else None


def analysis_page(folder: Path) -> Path:
    """Write report.html into a folder that `onca analyse --out` filled, and return its path."""
    record = read_record(folder)
    title = record.analysis.feature
    head = tag("header", tag("p", "onca analyse", class_="kicker"), tag("h1", title))
    place = folder / "report.html"
    place.write_text(page(title, head, *analysis_sections(record, folder)), encoding="utf-8")
    return place


def analysis_sections(record: Record, folder: Path) -> tuple[Html, ...]:
    """All that there is to say: findings, figures, class pairs, epochs, agreement with other spaces; and the images
    most often hard and easy, where `folder`, which holds the record, holds their picture."""
    drawn = figures(record)
    return (
        section("What the negatives are", _lead(record.analysis), _findings(record.analysis)),
        section("Along difficulty", *(figure(one) for one in drawn), *_extremes(folder / EXTREMES)),
        *false_negative_sections(record.false_negatives),
        *_classes(record.analysis),
        *_agreements(record),
    )


def figures(record: Record) -> tuple[Figure, ...]:
    """Figures 4, 5 and 6 of the paper for this space, and how they came about where epochs are there."""
    found = (_relatedness(record.analysis), _dots(record.analysis), _consistency(record.analysis), _epochs(record))
    return tuple(one for one in found if one is not None)


def _lead(analysis: Analysis) -> Html:
    epoch = "" if analysis.epoch is None else f", epoch {analysis.epoch:g}"
    alone = analysis.feature == analysis.data  # a file without images: its name is the title already
    what = "" if alone else f"{analysis.feature}{epoch}, on {analysis.data}: "
    said = (
        f"{what}{analysis.n_queries:,} queries ({analysis.queries}) against "
        f"{analysis.n_negatives:,} negatives ({analysis.negatives}), {analysis.n_pairs:,} pairs. "
        "Labels serve only to evaluate."
    )
    if analysis.floor is not None:
        said += (
            " Raw pixels alone show much of the paper's pattern: what a trained space shows is worth what it adds to "
            "theirs."
        )
    share = analysis.covered
    if analysis.hierarchy:
        held = "" if share in (None, 1) else f", which holds {100 * (share or 0):.0f} % of the classes"
        said += f" Relatedness: {analysis.hierarchy}{held}."
    return tag("p", said)


def _extremes(picture: Path) -> tuple[Html, ...]:
    if not picture.is_file():
        return ()
    inside = base64.b64encode(picture.read_bytes()).decode("ascii")
    said = "Images that are among the hardest 5 % for most queries, and among the easiest 5 % for most."
    image = tag("img", src=f"data:image/png;base64,{inside}", alt=said, style="max-width: 100%; height: auto")
    return (tag("figure", image, tag("figcaption", tag("strong", "Always the same ones? "), said)),)


def _findings(analysis: Analysis) -> Html:
    floor = analysis.floor is not None
    rows = [
        (
            join(one.name, tag("span", one.claim, class_="soft below") if one.claim else ""),
            badge(OUTCOMES[one.verdict]) if one.verdict else join("–"),
            one.text,
            *([one.floor or "–"] if floor else []),
        )
        for one in findings(analysis)
    ]
    caption = (
        "“Shown”: the 95 % interval, queries resampled, says what the paper says; “contradicted”: it says the opposite."
    )
    head = ("Finding", "Here", "In this space", *(["Raw pixels"] if floor else []))
    return table(head, rows, caption=caption, stacked=True)


def _relatedness(analysis: Analysis) -> Figure | None:
    panels = [
        Panel(courses(_both(analysis, name, scale), DIFFICULTY, unit, ends=(0, 100)), title)
        for name, title, unit, scale in (
            ("same_class_share", "Negatives of the query's class", "percent", 100.0),
            ("lca_depth_max_all", "Depth of the lowest common ancestor", "depth", 1.0),
            ("lca_depth_max_other_class", "The same, negatives of other classes only", "depth", 1.0),
        )
        if getattr(analysis, name) is not None
    ]
    if not panels:
        return None
    caption = "Mean of each stretch of difficulty; the band is the 95 % interval over queries (Figure 4 of the paper)."
    return Figure("relatedness", "Relatedness by difficulty", caption, tuple(panels))


def _both(analysis: Analysis, name: str, scale: float = 1.0) -> list[Course]:
    """A curve by bin, and that of raw pixels."""
    lines = []
    for seen, words in ((analysis, "this space"), (analysis.floor, FLOOR)):
        values = None if seen is None else getattr(seen, name)
        if seen is None or values is None:
            continue
        middle = [100 * (place + 0.5) / seen.bins for place in range(seen.bins)]
        low, high = seen.intervals.get(name, (None, None)) if seen is analysis else (None, None)
        lines.append(
            Course(words, middle, _times(values, scale), low and _times(low, scale), high and _times(high, scale))
        )
    return lines


def _times(values: Sequence[float | None], scale: float) -> list[float | None]:
    return [None if value is None else scale * value for value in values]


def _dots(analysis: Analysis) -> Figure:
    lines = [
        Course(words, [place + 0.5 for place in range(100)], seen.percentiles["mean_similarity"])
        for seen, words in ((analysis, "this space"), (analysis.floor, FLOOR))
        if seen and seen.percentiles and "mean_similarity" in seen.percentiles
    ] or _both(analysis, "mean_similarity")
    held = [place for place, share in enumerate(analysis.histogram.share) if share]
    first, last = held[0], held[-1] + 1
    panels = [Panel(courses(lines, DIFFICULTY, "mean dot product", ends=(0, 100)), "Mean dot product")]
    edges = analysis.histogram.edges[first : last + 1]
    panels.append(
        Panel(bars(edges, analysis.histogram.share[first:last], None, "dot product", "percent of pairs"), "All pairs")
    )
    related = analysis.histogram.lca_max_other
    if related is not None:
        middle = [(low + high) / 2 for low, high in pairwise(edges)]
        line = Course("this space", middle, related[first:last])
        panels.append(Panel(courses([line], "dot product", "depth"), "Relatedness of other classes by dot product"))
    below = 100 * analysis.fraction_negative_similarity
    caption = (
        f"{below:.1f} % of the pairs are anti-correlated; dot products lie between {analysis.min_similarity:.2f} and "
        f"{analysis.max_similarity:.2f} (Figure 5 of the paper)."
    )
    return Figure("dots", "Dot products", caption, tuple(panels))


def _consistency(analysis: Analysis) -> Figure:
    found = analysis.hard_frequency
    edges = [100 * edge for edge in found.edges]
    chart = bars(edges, found.share, found.shuffled, "percent of queries it is hard for", "percent of negatives")
    ratio = "" if found.variance_ratio is None else f" Its variance is {found.variance_ratio:.0f} times that of chance."
    caption = (
        "For how many queries each negative is among the hardest 5 %, beside what chance gives when every query's "
        f"negatives are shuffled (Figure 6 of the paper).{ratio}"
    )
    return Figure("consistency", "Hard for many queries", caption, (Panel(chart),))


def _epochs(record: Record) -> Figure | None:
    """How the findings came about, where there are several snapshots."""
    seen = [one for one in record.epochs if one.epoch is not None]
    if len(seen) < 2:
        return None
    x = [one.epoch or 0.0 for one in seen]
    asked: tuple[tuple[str, str, list[Interval | None]], ...] = (
        ("Negatives of the query's class among the hardest 5 %", "percent", [_hard(one) for one in seen]),
        ("Alignment: mean squared distance of two views", "d²", [one.alignment for one in seen]),
        ("Uniformity: log mean of exp(-2 d²)", "nats", [Interval(one.uniformity) for one in seen]),
        ("Effective rank", "dimensions", [Interval(one.effective_rank) for one in seen]),
    )
    panels = []
    for title, unit, points in asked:
        if any(point is not None and point.value is not None for point in points):
            scale = 100.0 if unit == "percent" else 1.0
            panels.append(Panel(courses([_over_epochs(x, points, scale)], "epoch", unit, whole=True), title))
    caption = "At every snapshot; the first is the untrained encoder. Bands are 95 % intervals."
    return Figure("epochs", "Over training", caption, tuple(panels))


def _over_epochs(x: list[float], points: Sequence[Interval | None], scale: float) -> Course:
    known = [point or Interval(None) for point in points]
    values, low, high = (_times([getattr(point, name) for point in known], scale) for name in ("value", "low", "high"))
    whole = all(value is not None for value in (*low, *high))
    return Course("this run", x, values, low if whole else None, high if whole else None)


def _hard(analysis: Analysis) -> Interval | None:
    contrast = analysis.contrast("same_class")
    return None if contrast is None else contrast.end


def _classes(analysis: Analysis) -> tuple[Html, ...]:
    """Table A3 of the paper."""
    found = analysis.class_pairs
    if found is None:
        return ()
    blocks = [
        (title, pairs)
        for title, pairs in (
            ("most correlated", found.correlated),
            ("most anti-correlated", found.anticorrelated),
            ("nearest zero", found.zero),
        )
        if pairs
    ]
    rows = [_pair(title, pair) for title, pairs in blocks for pair in pairs]
    caption = f"Mean dot products of {found.class_pairs:,} pairs of classes (Table A3 of the paper)."
    head = ("", "Query", "Negative", "Dot product", "LCA depth", "Pairs of images")
    return (section("Pairs of classes", table(head, rows, numbers=(3, 4, 5), caption=caption)),)


def _pair(title: str, pair: ClassPair) -> tuple[str, ...]:
    depth = "–" if pair.lca is None else str(pair.lca)
    return title, pair.query, pair.negative, f"{pair.similarity:.3f}", depth, f"{pair.pairs:,}"


def _agreements(record: Record) -> tuple[Html, ...]:
    """Is the same pair as hard elsewhere?"""
    found = list(record.agreements)
    if record.analysis.with_floor is not None:
        found.append(record.analysis.with_floor)
    if not found:
        return ()

    def named(name: str, epoch: float | None) -> str:
        return name if epoch is None else f"{name}, epoch {epoch:g}"

    rows = [
        (
            named(one.first, one.first_epoch),
            named(one.second, one.second_epoch),
            _interval(one.rank, 1),
            _interval(one.hardest, 100),
            _interval(one.easiest, 100),
        )
        for one in found
    ]
    head = ("Space", "Other space", "Rank correlation", "Hardest 5 % in common, %", "Easiest 5 % in common, %")
    caption = "Means over queries with 95 % intervals. By chance 5 % of the hardest are in common."
    body = table(head, rows, numbers=(2, 3, 4), caption=caption, stacked=True)
    return (section("Is the same negative hard elsewhere?", body),)


def _interval(found: Interval, scale: float) -> Html:
    if found.value is None:
        return join("–")
    digits = 3 if scale == 1 else 1
    if found.low is None or found.high is None:
        return join(f"{scale * found.value:.{digits}f}")
    low, high = (f"{scale * end:.{digits}f}" for end in (found.low, found.high))
    return join(f"{scale * found.value:.{digits}f}", tag("span", f"[{low}, {high}]", class_="soft below"))
