"""analysis.json: what `onca analyse` leaves behind."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from onca.analyse.agreement import Agreement
from onca.analyse.analysis import Analysis, read_analysis, value_of
from onca.analyse.false_negatives import FalseNegatives

FILE = "analysis.json"


@dataclass(frozen=True)
class Record:
    """An analysis; where it was asked for, that of every snapshot in brief, and agreements between spaces.

    false_negatives: of every space that was analysed, the last one at the end.
    """

    analysis: Analysis
    epochs: tuple[Analysis, ...] = ()
    agreements: tuple[Agreement, ...] = ()
    false_negatives: tuple[FalseNegatives, ...] = ()

    def json(self) -> dict[str, Any]:
        """The analysis' own keys, beside `epochs`, `agreements` and `false_negatives`."""
        return {
            **self.analysis.json(),
            "epochs": [epoch.json() for epoch in self.epochs],
            "agreements": [asdict(agreement) for agreement in self.agreements],
            "false_negatives": [asdict(found) for found in self.false_negatives],
        }


def brief(analysis: Analysis) -> Analysis:
    """Without what is as long as the negatives are many, percentiles and the floor."""
    frequency = replace(analysis.hard_frequency, rows=(), frequency=(), easy=(), percentile=())
    return replace(analysis, hard_frequency=frequency, percentiles=None, floor=None)


def write_record(record: Record, folder: str | Path) -> Path:
    """Writes FOLDER/analysis.json, and gives its path."""
    path = Path(folder) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record.json(), allow_nan=False), encoding="utf-8")
    return partial.replace(path)


def read_record(folder: str | Path) -> Record:
    """What FOLDER/analysis.json holds.

    Raises:
        ValueError: no such file, or one that another version wrote.
    """
    path = Path(folder) / FILE
    try:
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as problem:
        raise ValueError(f"{path} cannot be read ({problem}): run onca analyse again") from None
    epochs: Sequence[Mapping[str, Any]] = found.get("epochs", ())
    return Record(
        read_analysis(found),
        tuple(read_analysis(epoch) for epoch in epochs),
        value_of(tuple[Agreement, ...], found.get("agreements", ())),
        value_of(tuple[FalseNegatives, ...], found.get("false_negatives", ())),
    )
