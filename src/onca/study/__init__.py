"""Studies: grids of runs that answer a paper's questions, with replicates."""

from onca.study.cost import Cost, cost, describe
from onca.study.grid import PRESETS, Cell, Grid, grid
from onca.study.progress import StudyBar
from onca.study.run import Outcome, cores, gather, run_study, unfinished
from onca.study.workers import News

__all__ = [
    "PRESETS",
    "Cell",
    "Cost",
    "Grid",
    "News",
    "Outcome",
    "StudyBar",
    "cores",
    "cost",
    "describe",
    "gather",
    "grid",
    "run_study",
    "unfinished",
]
