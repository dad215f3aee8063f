"""The studies there are: `find(name)` gives conditions, tables, claims and what a paper reports."""

from onca.part import nearest
from onca.study.plan import Study
from onca.study.studies.asked import ASKED
from onca.study.studies.cai2020 import STUDY as _CAI2020
from onca.study.studies.methods import STUDY as _METHODS

STUDIES = {study.name: study for study in (_CAI2020, _METHODS)}
QUESTIONS = {"methods": ASKED}


def find(name: str, ask: str | None = None) -> Study:
    """The study of that name, or one of its further questions, which is a study too (`methods-classes`).

    Raises:
        ValueError: no such study or question; those there are.
    """
    name, _, rest = name.partition("-")
    ask = ask or rest
    if name not in STUDIES:
        raise ValueError(f"no study {name!r}: one of {', '.join(STUDIES)}")
    if not ask:
        return STUDIES[name]
    asked = {study.name.removeprefix(f"{name}-"): study for study in QUESTIONS.get(name, ())}
    if not asked:
        raise ValueError(f"the study {name} has no questions to --ask")
    if ask not in asked:
        raise ValueError(f"the study {name} has no question {ask!r}; {nearest(ask, asked)}")
    return asked[ask]


__all__ = ["QUESTIONS", "STUDIES", "Study", "find"]
