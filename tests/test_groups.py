"""What `onca data duplicates` prints and draws: planted duplicates, within a part and across parts."""

import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_data import encode, write_pack

from onca.data import load
from onca.data.groups import Joined, members, show_duplicates


def coats(path: Path) -> str:
    """40 + 11 coats; test image 0 is training image 3, test image 1 is training images 4 and 30, under two labels; test
    image 10 is training image 7 mirrored."""
    pixels = load("world(families=2, genera=2, species=1)", images=60).train.pixels.permute(0, 2, 3, 1).numpy()
    train, test = list(range(40)), [3, 4, *range(50, 58)]
    train[30] = 4
    shown = [pixels[k] for k in test] + [pixels[7][:, ::-1]]
    names = ["ant", "bee"]
    write_pack(path / "train.npz", [k % 2 for k in range(40)], names, [encode(pixels[k]) for k in train])
    write_pack(path / "test.npz", [1, 1, *[0] * 9], names, [encode(image) for image in shown])
    write_pack(path / "val.npz", [0], names, [encode(pixels[59])])
    return f"npz:{path}"


def test_planted_groups_are_printed_and_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = show_duplicates(coats(tmp_path), tmp_path / "groups.png")
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "52 images, 3 groups of near-duplicates, 4 pairs",
        "3 pairs are the same pixels, 1 mirrored; of 4 with known labels 2 agree",
        "",
        "part images in a group with one in train",
        "train 40 4",
        "validation 1 0 0",
        "test 11 3 3",
        "",
        "size groups of one label",
        "2 2 1",
        "3 1 0",
        str(path),
    ]
    with Image.open(path) as sheet:
        assert sheet.width > 100 and sheet.height > 60
        assert len(sheet.convert("RGB").getcolors(1 << 20)) > 30  # pictures, not only captions


def test_a_source_without_any_says_so_and_draws_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coats(tmp_path)
    show_duplicates(f"npz:{tmp_path}/test.npz", tmp_path / "none.png")
    assert "11 images, 0 groups of near-duplicates, 0 pairs" in capsys.readouterr().out
    assert not (tmp_path / "none.png").exists()


def test_joined_parts_give_the_images_of_each(tmp_path: Path) -> None:
    splits = load(coats(tmp_path))
    joined = Joined({"train": splits.train, "validation": splits.validation, "test": splits.test})
    rows = torch.tensor([50, 0, 40, 41, 39])
    parts = [(splits.test, 9), (splits.train, 0), (splits.validation, 0), (splits.test, 0), (splits.train, 39)]
    for got, (part, row) in zip(joined.take(rows), parts, strict=True):
        assert torch.equal(got, part.pixels[row])
    assert len(joined) == 52 and joined.part.bincount().tolist() == [40, 1, 11]


def test_groups_come_largest_first() -> None:
    groups = members(torch.tensor([0, 1, 0, 3, 1, 1, 6]))
    assert [rows.tolist() for rows in groups] == [[1, 4, 5], [0, 2]]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"path": "groups.jpg"}, "must end in .png"),
        ({"groups": 0}, "groups=0: there must be at least one to draw"),
        ({"outline": 2.0}, "outline is a cosine above 0 and up to 1"),
    ],
)
def test_bad_calls_are_refused(more: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        show_duplicates("world(families=1, genera=1, species=1, size=8)", **more)
