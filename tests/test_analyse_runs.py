"""Spaces of runs and of files, and the command that looks into them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from onca import cli
from onca.analyse import agreements, analyse, embed, read_record, read_space, space, write_record
from onca.analyse.record import Record, brief
from onca.data import load
from onca.train import Run, load_run, load_snapshot, train

SMALL = {"data": "world", "size": 16, "images": 256, "encoder": "small(4)", "batch": 64, "dim": 16}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = Run(**SMALL, epochs=2, queue=128, runs=str(tmp_path_factory.mktemp("runs")))
    train(made, snapshots=1)
    return made.folder


@pytest.fixture
def vectors(tmp_path: Path) -> Path:
    """60 embeddings of six classes, three by three in two groups; class 5 has another group's direction."""
    draw = np.random.default_rng(0)
    label = np.arange(60) % 6
    rows = np.eye(8)[label] + np.eye(8)[6 + label // 3] + 0.1 * draw.standard_normal((60, 8))
    np.savez(tmp_path / "vectors.npz", embeddings=rows, labels=label, names=np.array(list("uvwxyz")))
    np.save(tmp_path / "vectors.npy", rows)
    (tmp_path / "labels.txt").write_text("".join(f"{'uvwxyz'[k]}\n" for k in label), encoding="utf-8")
    edges = "".join(f"{name},{'left' if name < 'x' else 'right'}\n" for name in "uvwxyz")
    (tmp_path / "tree.csv").write_text(f"child,parent\n{edges}left,all\nright,all\n", encoding="utf-8")
    return tmp_path


# --- runs ------------------------------------------------------------------------------------------------------------


def test_a_space_holds_what_the_encoder_makes_of_whole_images(run: Path) -> None:
    (found,) = embed(run, images=300)
    assert len(found) == 300 and found.rows.shape[1] == 16 and found.epoch == 2
    network = load_snapshot(run)
    with torch.no_grad():
        wanted = normalize(network(found.images.take(torch.arange(300)).float() / 255), dim=1)
    torch.testing.assert_close(found.rows, wanted, rtol=0, atol=1e-5)
    assert found.hierarchy is not None and found.hierarchy.source.startswith("levels")
    assert torch.bincount(found.label).max() - torch.bincount(found.label).min() <= 1
    first, second = found.views
    assert first.shape == second.shape == (300, 16) and not torch.equal(first, second)
    apart = (first - second).square().sum(1).mean()
    mixed = (first - second.roll(1, 0)).square().sum(1).mean()
    assert apart < mixed  # views of one image lie closer than views of two


def test_other_encoders_layers_parts_and_data_on_request(run: Path) -> None:
    query, momentum, backbone, trained = (
        embed(run, images=64, **more)[0]
        for more in ({}, {"encoder": "momentum"}, {"layer": "backbone"}, {"part": "train"})
    )
    assert not torch.allclose(query.rows, momentum.rows, atol=1e-3) and torch.equal(query.index, momentum.index)
    assert backbone.rows.shape[1] == load_snapshot(run).width and backbone.source.startswith("query encoder, backbone")
    assert set(trained.index.tolist()) <= set(load("world", size=16, images=256).train.index.tolist())
    (other,) = embed(run, on="world(families=2, seed=3)", images=64)
    assert "seed=3" in other.images.source and other.images.shape == query.images.shape == (16, 16)


def test_every_snapshot_is_a_space(run: Path) -> None:
    spaces = embed(run, images=200, epochs="all")
    assert [one.epoch for one in spaces] == [0, 1, 2]
    assert torch.equal(spaces[-1].rows, embed(run, images=200)[0].rows)
    found = {(one.first_epoch, one.second_epoch): one.rank.value for one in agreements(spaces)}
    assert len(found) == 3 and all(-1 < value < 1 for value in found.values())


def test_several_embeddings_side_by_side_count_alike(tmp_path: Path) -> None:
    made = Run(**SMALL, host="looc", epochs=1, queue=128, runs=str(tmp_path))
    train(made)
    (found,) = embed(made.folder, images=50)
    parts = found.rows.view(50, -1, 16)
    assert parts.shape[1] == len(load_run(made.folder).kept) + 1
    torch.testing.assert_close(parts.norm(dim=2), torch.full(parts.shape[:2], parts.shape[1] ** -0.5))


def test_what_a_run_does_not_have_is_refused(tmp_path: Path) -> None:
    made = Run(**SMALL, host="simclr", epochs=1, runs=str(tmp_path))
    train(made)
    for more, message in (
        ({"epochs": "all"}, "no snapshots: train with --snapshots"),
        ({"encoder": "momentum"}, "no momentum encoder"),
        ({"hierarchy": "wordnet"}, "WordNet needs an id"),
    ):
        with pytest.raises(ValueError, match=message):
            embed(made.folder, images=40, **more)
    with pytest.raises(ValueError, match="no run"):
        embed(tmp_path)


# --- files -----------------------------------------------------------------------------------------------------------


def test_files_of_all_kinds_hold_the_same_space(vectors: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="no pyarrow: parquet is not read here")
    import pyarrow

    with np.load(vectors / "vectors.npz") as held:
        columns = {"embedding": held["embeddings"].tolist(), "label": [str(held["names"][k]) for k in held["labels"]]}
    parquet.write_table(pyarrow.table(columns), vectors / "vectors.parquet")
    whole = read_space(vectors / "vectors.npz")
    for other in (
        read_space(vectors / "vectors.npy", labels=vectors / "labels.txt"),
        read_space(vectors / "vectors.parquet"),
        read_space(vectors / "vectors.npy", labels=vectors / "vectors.npz"),
    ):
        assert torch.equal(other.rows, whole.rows) and torch.equal(other.label, whole.label)
        assert other.names == whole.names == tuple("uvwxyz")
    assert read_space(vectors / "vectors.npy").label.unique().tolist() == [-1]


def test_a_users_hierarchy_and_images_come_along(vectors: Path) -> None:
    found = read_space(vectors / "vectors.npz", hierarchy=str(vectors / "tree.csv"))
    assert found.hierarchy.depth_max[0].tolist() == [2, 1, 1, 0, 0, 0]
    images = load("world(size=16)", images=64).test
    rows = np.random.default_rng(1).standard_normal((50, 4))
    np.savez(vectors / "some.npz", embeddings=rows, index=np.arange(100, 50, -1))
    some = read_space(vectors / "some.npz", images=images)
    assert some.index.tolist() == list(range(100, 50, -1)) and torch.equal(some.label, images.label[some.index])
    assert some.hierarchy is not None and torch.equal(some.images.index, some.index)


@pytest.mark.parametrize(
    ("arrays", "labels", "message"),
    [
        ({"vectors": np.eye(3)}, None, "and no array `embeddings`"),
        ({"embeddings": np.ones(3)}, None, r"must be numbers \[N,D\]"),
        ({"embeddings": np.array([["a"]])}, None, r"must be numbers \[N,D\]"),
        ({"embeddings": np.eye(3), "labels": np.arange(2)}, None, "3 embeddings and 2 labels"),
        ({"embeddings": np.eye(3), "labels": np.array([0.5, 1, 2])}, None, "whole numbers or text"),
        ({"embeddings": np.eye(3), "labels": np.array(["a", "b", "c"]), "names": np.array(["a", "b"])}, None, "'c'"),
        ({"embeddings": np.eye(3)}, "0\n1\n", "3 embeddings and 2 labels"),
        ({"embeddings": np.diag([1, 1, np.inf])}, None, "hold nan or inf"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tmp_path: Path, arrays: dict[str, np.ndarray], labels: str | None, message: str
) -> None:
    np.savez(tmp_path / "file.npz", **arrays)
    if labels is not None:
        (tmp_path / "labels.txt").write_text(labels, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_space(tmp_path / "file.npz", labels=None if labels is None else tmp_path / "labels.txt")


def test_files_that_are_none_are_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 no archive")
    (tmp_path / "broken.parquet").write_bytes(b"no table")
    for name, message in (
        ("absent.npy", "cannot be read"),
        ("broken.npz", "cannot be read"),
        ("table.csv", "give one of .npy, .npz, .parquet"),
    ):
        with pytest.raises(ValueError, match=message):
            read_space(tmp_path / name)
    pytest.importorskip("pyarrow", reason="no pyarrow: parquet is not read here")
    with pytest.raises(ValueError, match="as parquet"):
        read_space(tmp_path / "broken.parquet")


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_on_a_run_leaves_its_record(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["analyse", str(run), "--images", "200", "--epochs", "all", "--bins", "10", "--cuts", "10"]
    assert cli.main(words) == 0
    shown = capsys.readouterr().out
    assert max(map(len, shown.splitlines())) <= 80 or str(run) in shown.splitlines()[-1]
    for text in (
        "same class",
        "raw pixels:",
        "consistency",
        "differences by cut",
        "over training",
        "rank correlation",
        "analysis.json",
    ):
        assert text in shown
    record = read_record(run / "analysis")
    assert record.analysis.floor is not None and record.analysis.bins == 10
    assert {contrast.cut for contrast in record.analysis.contrasts} == {5, 10}
    assert [one.epoch for one in record.epochs] == [0, 1, 2] and len(record.agreements) == 3
    assert record.epochs[-1] == brief(record.analysis)
    assert record.analysis == analyse(embed(run, images=200)[0], bins=10, cuts=(10,))


def test_the_command_compares_runs(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = Run(**SMALL, epochs=1, queue=128, seed=1, runs=str(tmp_path))
    train(other)
    words = ["analyse", str(run), "--images", "120", "--against", str(other.folder), "--out", str(tmp_path / "here")]
    assert cli.main(words) == 0
    (found,) = read_record(tmp_path / "here").agreements
    assert found.first.endswith(run.name) and found.second.endswith(other.folder.name)
    assert f"run {other.folder.name}" in capsys.readouterr().out


def test_the_command_on_a_file_prints_all_numbers(vectors: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["analyse", str(vectors / "vectors.npy"), "--labels", str(vectors / "labels.txt"), "--json"]
    assert cli.main([*words, "--hierarchy", str(vectors / "tree.csv"), "--bins", "5"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n_classes"] == 6 and found["covered"] == 1 and found["floor"] is None
    assert found["hardest5_vs_rest"]["same_class"][0] == 1
    assert found["same_class_share"][-1] == pytest.approx(9 / 12) and sum(found["same_class_share"][:-1]) == 0
    assert sorted(path.name for path in vectors.iterdir()) == ["labels.txt", "tree.csv", "vectors.npy", "vectors.npz"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "give one of .npy, .npz, .parquet"),
        (["pixels"], "Give --on"),
        (["vectors.npz", "--bins", "60"], "60 bins"),
        (["vectors.npz", "--hierarchy", "wordnet"], "WordNet needs an id"),
        (["vectors.npy", "--labels", "vectors.npy"], "labels must be"),
        (["vectors.npy", "--hierarchy", "tree.csv"], "no labels"),
        (["vectors.npz", "--layer", "backbone"], "--layer mean nothing for a file"),
        (["vectors.npz", "--against", "runs/x"], "--against mean nothing for a file without --on"),
        (["pixels", "--labels", "labels.txt"], "--labels mean nothing for pixels"),
        ([".", "--bad", "drop"], "--bad mean nothing for a run"),
        (["vectors.npy", "--on", "world(families=2, size=16)"], "60 rows for"),
    ],
)
def test_bad_input_ends_with_2_and_says_why(
    vectors: Path,
    words: list[str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(vectors)
    assert cli.main(["analyse", *words]) == 2
    assert message in capsys.readouterr().err


def test_a_record_is_written_whole(tmp_path: Path) -> None:
    record = Record(analyse(space(torch.randn(60, 4), torch.arange(60) % 3)))
    assert write_record(record, tmp_path).name == "analysis.json"
    assert read_record(tmp_path) == record and len(list(tmp_path.iterdir())) == 1
    (tmp_path / "analysis.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="run onca analyse again"):
        read_record(tmp_path)
