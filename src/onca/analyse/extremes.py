"""The images that are most often hard and most often easy, as one picture."""

from __future__ import annotations

from pathlib import Path

import torch

from onca.analyse.analysis import Analysis
from onca.analyse.space import Space
from onca.data.sheet import draw

FILE = "consistent.png"


def write_extremes(space: Space, analysis: Analysis, folder: str | Path) -> Path | None:
    """Draws FOLDER/consistent.png: what is hard for most queries above, what is easy for most below. None, and nothing
    is drawn, where the space has no images."""
    if space.images is None:
        return None
    found = analysis.hard_frequency
    place = {row: at for at, row in enumerate(found.rows)}
    most = [100 * values[place[rows[0]]] for rows, values in _ends(analysis)]
    titles = (f"hard for up to {most[0]:.1f} % of the queries", f"easy for up to {most[1]:.1f} % of them")
    shown = [(title, torch.tensor(rows)) for title, (rows, _) in zip(titles, _ends(analysis), strict=True)]
    Path(folder).mkdir(parents=True, exist_ok=True)
    return draw(space.images, space.images.shape, shown, max(len(rows) for _, rows in shown), Path(folder) / FILE)


def _ends(analysis: Analysis) -> tuple[tuple[tuple[int, ...], tuple[float, ...]], ...]:
    """Rows of both ends, and how often each negative is there."""
    found = analysis.hard_frequency
    return (found.hardest, found.frequency), (found.easiest, found.easy)
