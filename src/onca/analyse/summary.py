"""An analysis as text of 80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from onca.analyse.agreement import Agreement
from onca.analyse.analysis import Analysis
from onca.analyse.difficulty import Contrast
from onca.analyse.false_negatives import FalseNegatives
from onca.analyse.findings import Depth, findings
from onca.analyse.record import Record
from onca.analyse.statistics import Interval

WIDTH = 80
KEPT = "\u00a0"  # a space at which no line ends
LABEL, CELL, CUTS = 34, 9, 5  # of the table of cuts: columns, and how many cuts stand side by side
WIDTHS = (6, 12, 11, 13, 10, 9, 8, 8)  # of the table over training


def summary(record: Record, depth: Depth = "max") -> str:
    """What is found, in sentences and tables.

    depth: of common ancestors, by longest (max) or by shortest paths to the root (min).
    """
    analysis = record.analysis
    epoch = "" if analysis.epoch is None else f", epoch {analysis.epoch:g}"
    lines = [
        *_wrapped(f"{analysis.feature}{epoch}, on {analysis.data}"),
        *_wrapped(f"queries: {analysis.queries}; negatives: {analysis.negatives}"),
        *_wrapped(f"hierarchy: {analysis.hierarchy or 'none'}{_covered(analysis.covered)}"),
    ]
    for found in findings(analysis, depth):
        said = ", ".join(word for word in (found.verdict, found.beyond) if word)
        lines += ["", *_wrapped(f"{found.name}{said and f' [{said}]'}: {found.text}")]
        if found.floor:
            lines += _wrapped(f"raw pixels: {found.floor}", "    ")
    lines += _cuts(analysis, depth)
    if record.false_negatives:
        lines += _false(record.false_negatives[-1])
    if record.epochs:
        lines += _over_training(record.epochs, depth)
    if record.agreements:
        lines += ["", "difficulty of the same pairs in two spaces, rank correlation:"]
        lines += [line for agreement in record.agreements for line in _wrapped(_agreement(agreement), "    ")]
    return "\n".join(lines)


def _false(found: FalseNegatives) -> list[str]:
    """What is estimated without labels, and what detectors find."""
    tau, known = found.prior.tau_plus, found.prior.labelled
    by_labels = "" if known.value is None else f"; by labels {_percent(known)}"
    said = (
        f"false negatives: without labels, {_percent(tau)} of all are estimated to be of the query's class{by_labels}"
    )
    lines = ["", *_wrapped(said)]
    if found.detections:
        lines += ["", f"{'detector':<{WIDTH - 30}}{'chosen':>10}{'precision':>10}{'recall':>10}"]
    for one in found.detections:
        cells = "".join(f"{_percent(share, False):>10}" for share in (one.chosen, one.precision, one.recall))
        fits = len(one.detector) <= WIDTH - 30
        lines += [f"{one.detector:<{WIDTH - 30}}{cells}"] if fits else [one.detector, " " * (WIDTH - 30) + cells]
    return lines


def _percent(found: Interval, ends: bool = True) -> str:
    if found.value is None:
        return "-"
    spread = f" ({100 * found.low:.2f} to {100 * found.high:.2f})" if ends and found.low and found.high else ""
    return f"{100 * found.value:.{2 if ends else 1}f} %{spread}"


def _wrapped(line: str, before: str = "") -> list[str]:
    joined, further = line.replace(" %", f"{KEPT}%"), f"{before}  "
    wrapped = textwrap.wrap(joined, WIDTH, initial_indent=before, subsequent_indent=further, break_on_hyphens=False)
    return [short.replace(KEPT, " ") for short in wrapped]


def _covered(share: float | None) -> str:
    return "" if share is None or share == 1 else f", which holds {100 * share:.0f} % of the classes"


def _cuts(analysis: Analysis, depth: Depth) -> list[str]:
    """Differences between both ends and the rest at every cut, some cuts side by side."""
    cuts = sorted({contrast.cut for contrast in analysis.contrasts})
    lines = []
    for start in range(0, len(cuts), CUTS):
        some = cuts[start : start + CUTS]
        lines += ["", f"{'differences by cut':<{LABEL}}" + "".join(f"{f'{cut:g} %':>{CELL}}" for cut in some)]
        for source, name in ((analysis, ""), (analysis.floor, ", pixels")):
            for side in ("hardest", "easiest"):
                for words, measure in (("same class, %", "same_class"), ("LCA depth", f"lca_{depth}")):
                    found = [source.contrast(measure, side, cut) for cut in some] if source else []
                    if any(found):
                        lines.append(f"{f'{side}: {words}{name}':<{LABEL}}" + "".join(map(_cell, found)))
    return lines


def _cell(found: Contrast | None) -> str:
    if found is None or found.difference.value is None:
        return f"{'-':>{CELL}}"
    return f"{found.difference.value * (100 if found.measure == 'same_class' else 1):>+{CELL}.2f}"


def _over_training(epochs: Sequence[Analysis], depth: Depth) -> list[str]:
    """A line an epoch: the ends against the rest, and the space."""
    heads = ("epoch", "same class", "LCA depth", "easiest LCA", "std hard", "uniform", "align", "rank")
    lines = ["", "over training: differences of the hardest (easiest) 5 %, and the space", _row(heads)]
    for one in epochs:
        contrasts = (
            one.contrast("same_class"),
            one.contrast(f"lca_{depth}"),
            one.contrast(f"lca_{depth}_other", "easiest"),
        )
        same, deep, easy = (contrast.difference if contrast else None for contrast in contrasts)
        cells = (
            f"{one.epoch:g}",
            _number(same, "+.2f", 100, " %"),
            _number(deep, "+.3f"),
            _number(easy, "+.3f"),
            f"{100 * one.hard_frequency.std:.2f} %",
            f"{one.uniformity:.2f}",
            _number(one.alignment, ".3f"),
            f"{one.effective_rank:.1f}",
        )
        lines.append(_row(cells))
    return lines


def _row(cells: Sequence[str]) -> str:
    return "".join(f"{cell:>{width}}" for cell, width in zip(cells, WIDTHS, strict=True))


def _number(found: Interval | None, form: str, scale: float = 1, unit: str = "") -> str:
    return "-" if found is None or found.value is None else f"{scale * found.value:{form}}{unit}"


def _agreement(found: Agreement) -> str:
    names = [("", found.first_epoch), ("", found.second_epoch)]
    if found.first != found.second:
        names = [(f"{found.first}, ", found.first_epoch), (f"{found.second}, ", found.second_epoch)]
    first, second = (name.removesuffix(", ") if epoch is None else f"{name}epoch {epoch:g}" for name, epoch in names)
    rank = found.rank
    said = "undefined" if rank.value is None else f"{rank.value:.3f} ({rank.low:.3f} to {rank.high:.3f})"
    return f"{said}  {first} and {second}"
