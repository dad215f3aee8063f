"""Studies: grids of runs that answer questions, with replicates: a paper's, and which method helps."""

from onca.study.compute import share, units
from onca.study.cost import Cost, cost, describe
from onca.study.grid import PRESETS, Cell, Grid, grid
from onca.study.plan import Choice, Claim, Condition, Study, Table
from onca.study.progress import StudyBar
from onca.study.run import Outcome, cores, gather, run_study, unfinished
from onca.study.studies import QUESTIONS, STUDIES, find
from onca.study.workers import News

__all__ = [
    "PRESETS",
    "QUESTIONS",
    "STUDIES",
    "Cell",
    "Choice",
    "Claim",
    "Condition",
    "Cost",
    "Grid",
    "News",
    "Outcome",
    "Study",
    "StudyBar",
    "Table",
    "cores",
    "cost",
    "describe",
    "find",
    "gather",
    "grid",
    "run_study",
    "share",
    "unfinished",
    "units",
]
