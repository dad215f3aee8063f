"""The papers that can be repeated, one file each: `find(name)` gives its conditions, claims and reported numbers."""

from onca.study.papers.cai2020 import PAPER as _CAI2020
from onca.study.papers.paper import Condition, Paper

PAPERS = {paper.name: paper for paper in (_CAI2020,)}


def find(name: str) -> Paper:
    """The paper of that name; ValueError names those there are."""
    if name not in PAPERS:
        raise ValueError(f"no study {name!r}: one of {', '.join(PAPERS)}")
    return PAPERS[name]


__all__ = ["PAPERS", "Condition", "Paper", "find"]
