"""The analysis of difficulty on raw pixels against values computed without onca.

`data` names a pack under the folder ONCA_DATA. The first images of each class, in file order, are queries, the next
ones negatives; classes without wnids get theirs by name (CIFAR). What the file holds is compared with the keys of the
same name in what `onca analyse --json` prints, and with the `Analysis` that the functions return.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from onca import cli
from onca.analyse import analyse, pixels
from onca.data import ImageSet
from onca.data.hierarchy import hierarchy_of
from onca.data.packs import read_pack
from onca.data.pictures import decode

DATA = Path(os.environ.get("ONCA_DATA") or Path(__file__).parents[3] / "shared" / "data")


def images(path: str) -> ImageSet:
    parts = Path(path).parts
    place = DATA.joinpath(*parts[parts.index("data") + 1 :])
    if not place.exists():
        pytest.skip(f"no real data at {place}: set ONCA_DATA")
    raw = read_pack(place)
    height, width = raw.pictures.open(0).size[::-1]
    count = len(raw.label)
    held = decode(raw.pictures, range(count), None, (height, width))
    return ImageSet(held, raw.label, torch.arange(count), raw.names, {}, str(place), wnids=raw.wnids)


def compare(found: object, wanted: object, tolerance: float, where: str) -> int:
    """Compares numbers, however deep; text is for readers. Gives how many numbers there were."""
    if isinstance(wanted, dict):
        assert isinstance(found, dict) and wanted.keys() <= found.keys(), where
        return sum(compare(found[key], value, tolerance, f"{where}.{key}") for key, value in wanted.items())
    if isinstance(wanted, list):
        assert isinstance(found, list | tuple) and len(found) == len(wanted), where
        return sum(compare(a, b, tolerance, where) for a, b in zip(found, wanted, strict=True))
    if isinstance(wanted, str):
        assert isinstance(found, str), where
        return 0
    assert isinstance(found, int | float) and abs(found - wanted) <= tolerance, f"{where}: {found}, golden {wanted}"
    return 1


@pytest.mark.realdata
@pytest.mark.golden("pixel_analysis", "", suffix=".json")
def test_difficulty_of_raw_pixels(golden, tmp_path, capsys):
    wanted = json.loads(golden.path.read_text(encoding="utf-8"))
    tolerance = float(wanted.pop("tolerance").split()[0])
    chosen = {"queries": wanted["n_queries"], "negatives": wanted["n_negatives"]}
    bins = len(wanted["mean_similarity"])
    shown = images(wanted["data"])
    floor = pixels(shown, hierarchy_of("wordnet", shown.names, images=shown))
    assert compare(analyse(floor, bins=bins, **chosen).json(), wanted, tolerance, "analyse") > bins

    file = tmp_path / "pixels.npz"
    ids = {"wnids": np.array(shown.wnids)} if shown.wnids else {}
    np.savez(file, embeddings=floor.rows, labels=shown.label, names=np.array(shown.names), **ids)
    flags = [word for name, value in {**chosen, "bins": bins}.items() for word in (f"--{name}", str(value))]
    assert cli.main(["analyse", str(file), "--hierarchy", "wordnet", "--json", *flags]) == 0
    assert compare(json.loads(capsys.readouterr().out), wanted, tolerance, "onca analyse") > bins


def test_the_comparison_sees_a_number_that_is_off():
    with pytest.raises(AssertionError):
        compare({"a": [0.1, 0.5]}, {"a": [0.1, 0.6]}, 2e-3, "planted")
