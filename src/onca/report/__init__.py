"""Self-contained pages: `write_study` for a study, `run_page` for a run; page.py holds what others are built from."""

from onca.report.analysis import analysis_page
from onca.report.run import EXPLORER, run_page
from onca.report.study import read_study, write_study
from onca.report.tables import StudyResult, tables

__all__ = ["EXPLORER", "StudyResult", "analysis_page", "read_study", "run_page", "tables", "write_study"]
