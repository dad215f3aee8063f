"""What the questions that are asked on request are made of."""

from __future__ import annotations

from typing import Any

from onca.study.plan import Changes, Claim, Condition, Study, Table
from onca.study.statistics import Rule

TABLE = "asked"
DEMO = {"images": 4_000, "encoder": "small(16)", "epochs": 6, "batch": 64, "queue": 2048, "lr": 0.06}


def case(
    kind: str,
    method: str = "infonce",
    changes: Changes = (),
    against: str = "",
    *,
    labels: bool = False,
    control: str = "",
    series: str = "",
    at: float | None = None,
) -> Condition:
    """A condition of a question's table."""
    return Condition(
        kind, method, None, (TABLE,), labels, against=against, changes=changes, control=control, series=series, at=at
    )


def claim(
    key: str,
    text: str,
    a: str,
    b: str,
    rule: Rule,
    minus: tuple[str, str] | None = None,
    paper: str = "",
    metric: str = "linear_top1",
) -> Claim:
    """A claim at the preset's temperature."""
    return Claim(key, text, a, b, None, rule, paper, minus=minus, metric=metric)


def question(name: str, title: str, text: str, axis: str = "", **parts: Any) -> Study:
    """A question of the study of methods: `onca study methods --ask NAME`. text: what is compared, and its limits."""
    presets = {"demo": DEMO, "small": {}}
    return Study(
        **{
            "name": f"methods-{name}",
            "title": title,
            "setting": text,
            "tables": (Table(TABLE, "Side by side", axis=axis),),
            "presets": presets,
            "seeds": 5,
            **parts,
        }
    )
