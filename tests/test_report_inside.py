"""What a run's page shows of its audit, its analyses and its explorer."""

from __future__ import annotations

import html
from pathlib import Path

import pytest
import torch
from PIL import Image

from onca import cli
from onca.analyse import analyse, false_negatives, read_record, space, write_extremes
from onca.audit import Finding, write_audit
from onca.report import run_page
from onca.train import Run, train


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with everything in its folder."""
    place = tmp_path_factory.mktemp("runs")
    run = Run(data="world", images=200, size=16, encoder="small(4)", batch=50, queue=100, epochs=1, runs=str(place))
    train(run, snapshots=1)
    assert cli.main(["analyse", str(run.folder), "--images", "300", "--epochs", "all"]) == 0
    found = Finding(
        "self-hits", "alarm", "3 of 4 <queries> find their key", 0.75, why="it harms", remedy="drop(same_image)"
    )
    write_audit(run.folder / "audit.json", [found, Finding("collapse", "fine", "none")], "a run", {"steps": 4})
    (run.folder / "explorer.html").write_text("", encoding="utf-8")
    return run.folder


def test_a_page_without_them_shows_none(tmp_path: Path) -> None:
    (tmp_path / "run.json").write_text("{}", encoding="utf-8")
    text = run_page(tmp_path).read_text(encoding="utf-8")
    assert not any(title in text for title in ("Who were the negatives?", "What the negatives are", "explorer.html"))


def test_the_numbers_on_the_page_are_those_of_the_files(folder: Path) -> None:
    text = html.unescape(run_page(folder).read_text(encoding="utf-8"))
    record = read_record(folder / "analysis")
    assert "1 alarm and 0 notes in 2 checks" in text and "drop(same_image)" in text and "3 of 4 <queries>" in text
    assert 'href="explorer.html"' in text
    hard = record.analysis.contrast("same_class", "hardest", 5)
    assert hard is not None and hard.end.value is not None and f"{100 * hard.end.value:.2f}\xa0%" in text
    assert len(record.epochs) == 2 and "Over training" in text
    found = record.false_negatives[-1]
    assert f"{100 * found.prior.tau_plus.value:.2f}\xa0%" in text and "nearest(10)" in text
    assert (
        "data:image/png;base64," in text and "Raw pixels" in text and f"{record.analysis.feature}, epoch 1, on" in text
    )


def test_markup_in_a_finding_stays_text(folder: Path) -> None:
    assert "<queries>" not in run_page(folder).read_text(encoding="utf-8")


def test_the_most_often_hard_image_stands_first(tmp_path: Path, folder: Path) -> None:
    """One image in each colour: the first tile of the upper row is the image that the record names first."""
    from onca.data import ImageSet

    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(120, 8, generator=draw)
    pixels = torch.zeros(120, 3, 40, 40, dtype=torch.uint8)
    pixels[:, 0] = torch.arange(120)[:, None, None]
    pixels[:, 1] = 200
    images = ImageSet(pixels, torch.arange(120) % 3, torch.arange(120), ("a", "b", "c"), {}, "made")
    seen = space(rows, images.label, images.names, images=images)
    found = analyse(seen, floor=False)
    path = write_extremes(seen, found, tmp_path)
    assert path is not None
    with Image.open(path) as picture:
        red = picture.convert("RGB").getpixel((6 + 20, 6 + 13 + 20))[0]
    assert abs(red - found.hard_frequency.hardest[0]) <= 4  # the palette rounds
    assert write_extremes(space(rows), analyse(space(rows), floor=False), tmp_path) is None


def test_too_few_images_have_no_estimate() -> None:
    assert false_negatives(space(torch.randn(20, 4))) is None


def test_an_analysis_of_any_embeddings_has_a_page(tmp_path: Path) -> None:
    import numpy as np

    np.save(tmp_path / "vectors.npy", np.random.default_rng(0).normal(size=(150, 8)))
    assert cli.main(["analyse", str(tmp_path / "vectors.npy"), "--out", str(tmp_path / "out")]) == 0
    assert cli.main(["report", str(tmp_path / "out")]) == 0
    text = html.unescape((tmp_path / "out" / "report.html").read_text(encoding="utf-8"))
    assert "What the negatives are" in text and "Hard for many queries" in text
    assert text.split("</head>")[1].count("vectors.npy") == 1  # the title says whose page it is
    assert "raw pixels" not in text.lower()  # there are no images
