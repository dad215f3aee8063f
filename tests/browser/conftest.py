"""A real browser, Debian's chromium, with the network off; and a small explorer page for it to open."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from onca.analyse import Space, space
from onca.data import ImageSet
from onca.data.hierarchy import hierarchy_of
from onca.data.world import World
from onca.report.explorer import Views, explore

IMAGES = 150
COPIES = slice(144, 147)
NAMES = ("infonce", "chain(drop(hardest(5)), infonce)")
EPOCHS = (0.0, 3.0, 8.0)


def images() -> ImageSet:
    """Coats of 8 classes, three of them copies of the first, one of which is of its class."""
    coats = World(families=2, genera=2, species=2, size=16).splits(images=IMAGES).train
    assert coats.pixels is not None
    coats.pixels[COPIES] = coats.pixels[0]
    return coats


def spaces(shown: ImageSet, seed: int) -> list[Space]:
    """Random projections of the pixels, nearer to the classes from epoch to epoch, with a hub that many find hard."""
    draw = torch.Generator().manual_seed(seed)
    assert shown.pixels is not None
    flat = shown.pixels.flatten(1).float()
    rows = (flat - flat.mean(0)) @ torch.randn(flat.shape[1], 12, generator=draw) / 400
    classes, common = torch.randn(len(shown.names), 12, generator=draw), torch.eye(12)[0]
    depths = hierarchy_of("levels", shown.names, images=shown)
    made = []
    for number, epoch in enumerate(EPOCHS):
        moved = rows / rows.norm(dim=1, keepdim=True) + number * 0.1 * classes[shown.label] + 0.7 * common
        moved[5] = common  # the hub
        source = f"query encoder, head, epoch {epoch:g}"
        made.append(space(moved, shown.label, shown.names, source=source, epoch=epoch, images=shown, hierarchy=depths))
    return made


def write_ledger(folder: Path) -> None:
    """Image 1 had image 2 as a negative twice, aged 7, then 11; anyone had 5, aged 4."""
    import pyarrow
    from pyarrow import parquet

    from onca.ledger.parts import schema

    columns: dict[str, Any] = {
        "step": [1, 2, 3], "epoch": [0.5, 2.0, 2.5], "pool": ["p"] * 3, "query": [1, 1, 9], "negative": [2, 2, 5],
        "rank": [0, 1, 2], "percentile": [99.0, 98.0, 97.0], "similarity": [0.5] * 3, "weight": [1.0] * 3,
        "gradient_share": [0.1] * 3, "age": [7, 11, 4], "role": ["memory"] * 3, "flags": [[]] * 3,
        "stands_for": [1.0] * 3,
    }  # fmt: skip
    folder.mkdir(parents=True)
    parquet.write_table(pyarrow.table(columns, schema=schema()), folder / "part-000000.parquet")


@pytest.fixture(scope="session")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of two runs with views and a ledger, and its table."""
    folder = tmp_path_factory.mktemp("explorer")
    write_ledger(folder / "ledger")
    shown = images()
    first, second = spaces(shown, 1), spaces(shown, 2)
    assert shown.pixels is not None
    pixels = torch.stack([shown.pixels, shown.pixels.flip(3)], 1)
    seen = [tuple(torch.stack([one.rows, one.rows.roll(1, 0)], 1) for one in series) for series in (first, second)]
    duplicates = torch.arange(IMAGES)
    duplicates[COPIES] = 0
    return explore(
        first,
        path=folder / "explorer.html",
        title='Coats & "spots" </script>',
        against=second,
        duplicates=duplicates,
        ledger=folder,
        views=Views(pixels, *seen),
        names=NAMES,
    )


@dataclass
class Rows:
    """The table beside the page, as columns."""

    columns: dict[str, np.ndarray[Any, Any]]
    names: list[str] = field(default_factory=list)

    def of(self, run: int, epoch: float, query: int) -> list[dict[str, Any]]:
        """The negatives of a query, the hardest first."""
        kept = (self.columns["run"] == NAMES[run]) & (self.columns["epoch"] == epoch) & (self.columns["query"] == query)
        found = [{name: column[at] for name, column in self.columns.items()} for at in np.flatnonzero(kept)]
        return sorted(found, key=lambda row: row["rank"])


@pytest.fixture(scope="session")
def rows(written: Path) -> Rows:
    from pyarrow import parquet

    table = parquet.read_table(written.with_suffix(".parquet"))
    return Rows({name: np.array(table[name].to_pylist(), dtype=object) for name in table.column_names})


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    place = shutil.which("chromium")
    if place is None:
        pytest.skip("pages are tested in a browser, and there is no chromium here (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=place, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Any, written: Path) -> Iterator[Any]:
    """Opens the page from disk, at an address; fails in the end if there was a complaint, or a request to a network."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900}, offline=True, accept_downloads=True)
    troubles: list[str] = []

    def opened(address: str = "", file: Path = written) -> Any:
        page = context.new_page()
        page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: _note(request.url, troubles))
        page.goto(f"{file.as_uri()}{address}")
        page.wait_for_selector(".tile")
        return page

    yield opened
    context.close()
    assert not troubles


def _note(url: str, troubles: list[str]) -> None:
    if not url.startswith(("file:", "data:", "blob:")):
        troubles.append(f"asked for {url}")
