"""The command line: what it prints, where it writes, how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from onca.cli import VERBS, main

TINY = ["--encoder", "small(8)", "--batch", "64", "--queue", "64", "--dim", "8", "--epochs", "1"]


@pytest.fixture(scope="module")
def runs(source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run."""
    place = tmp_path_factory.mktemp("runs")
    assert main(["train", "--data", source, "--runs", str(place), *TINY]) == 0
    return place


def the_run(runs: Path) -> Path:
    return next(path.parent for path in runs.glob("*/result.json"))


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """Runs a command that must end as bad input with one clear line and nothing on standard output."""
    capsys.readouterr()
    assert main(list(words)) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("onca: ") and said.err.count("\n") == 1, said.err
    return said.err


def test_train_prints_its_result_and_where_it_lies(runs: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "--data", source, "--runs", str(runs), *TINY]) == 0  # done already: says so again
    out = capsys.readouterr().out
    result = json.loads((the_run(runs) / "result.json").read_text())
    assert f"linear top-1 {result['linear_top1']:.2f} %" in out and str(the_run(runs)) in out


def test_evaluate_prints_json_and_keeps_it(runs: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", str(the_run(runs)), "--on", source, "--split", "validation"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["split"] == "validation" and printed["images"] == 16 and printed["on"] == source
    kept = (the_run(runs) / "evaluations.jsonl").read_text().splitlines()
    assert json.loads(kept[-1]) == printed


def test_report_writes_a_page(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(the_run(runs))]) == 0
    page = Path(capsys.readouterr().out.strip())
    assert page == the_run(runs) / "report.html" and "<html" in page.read_text()


def test_data_list_sheet_and_pack(source: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("world", "npz:PATH", "folder:PATH", "cifar100", "imagenet"))
    assert main(["data", "sheet", source, str(tmp_path / "sheet.png"), "--each", "2"]) == 0
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    assert main(["data", "pack", f"{source.removeprefix('npz:')}/val", str(tmp_path / "again.npz")]) == 0
    assert "16 images, 4 classes" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "--method", "chain(keep(hardst(5)), infonce)"], "hardest"),
        (["train", "--method", "chain(keep(window(95, 90)), infonce)"], "window(95, 90)"),
        (["train", "--method", "chain(keep(hardest(500)), infonce)"], "hardest(500)"),
        (["train", "--temperature", "-1"], "--temperature must be above 0"),
        (["train", "--data", "wrld"], "world"),
        (["train", "--data", "npz:nowhere"], "nowhere"),
        (["train", "--encoder", "smal(8)"], "small"),
        (["train", "--views", "moco_v3"], "moco_v2"),
        (["train", "--device", "cuda:99"], "cuda:99"),
        (["train", "--resume"], "nothing to resume"),
        (["evaluate", "nowhere"], "no run.json"),
        (["report", "nowhere"], "nowhere"),
        (["study", "cai2021"], "cai2020"),
        (["study", "cai2020", "--seeds", "0"], "--seeds"),
        (["trian"], "did you mean train"),
        (["data", "lst"], "data list"),
    ],
)
def test_bad_input_is_one_clear_line(
    words: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert says in refused(capsys, *words)
    assert not list(tmp_path.rglob("checkpoint*"))  # nothing was begun


def test_flags_that_do_not_parse_end_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        ["train", "--epochs", "many"],
        ["train", "--temprature", "1"],
        ["study", "cai2020", "--preset", "dmo"],
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == 2
    assert "--temperature" in capsys.readouterr().err


@pytest.mark.parametrize("verb", sorted(VERBS))
def test_help_has_examples_and_fits_80_columns(
    verb: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        main([*verb.split(), "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert f"usage: onca {verb}" in shown
    assert verb == "data list" or f"  onca {verb} " in shown
    assert max(len(line) for line in shown.splitlines() if not line.startswith("usage:")) <= 80


def test_what_onca_alone_prints(capsys: pytest.CaptureFixture[str]) -> None:
    for words in ([], ["--help"], ["data"]):
        assert main(words) == 0
        shown = capsys.readouterr().out
        assert all(f"  {verb} " in shown for verb in VERBS) and max(map(len, shown.splitlines())) <= 80


def test_python_m_onca_ends_with_130_on_ctrl_c_and_goes_on(source: str, tmp_path: Path) -> None:
    """The whole process, as a terminal sees it."""
    words = [sys.executable, "-m", "onca", "train", "--data", source, "--runs", str(tmp_path), *TINY, "--epochs", "400"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    while not list(tmp_path.glob("*/checkpoint/checkpoint.json")) and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(2)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    last = errors.strip().splitlines()[-1]
    assert last.startswith("onca: stopped after step") and last.endswith("--resume") and "Traceback" not in errors
    facts = json.loads(next(tmp_path.glob("*/checkpoint/checkpoint.json")).read_text())
    assert f"step {facts['step']} of 3200" in last
