"""Studies: the grid, workers, skipping and going on, failures, cost."""

from __future__ import annotations

import csv
import inspect
import itertools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from onca.cli import main
from onca.data import load
from onca.study import PRESETS, Cell, News, cost, gather, grid, run_study, unfinished
from onca.study.workers import work_through
from onca.train import Run, load_data, plain, result_of, train
from onca.train.loop import DATA, make_batch, start
from onca.train.loss_share import write_loss_share

NET = {"encoder": "small(4)", "batch": 64, "queue": 128}
SMALL = {**NET, "epochs": 1, "size": 12}
QUICK = ["--encoder", "small(4)", "--batch", "64", "--queue", "128", "--images", "256"]


# The grid.


@pytest.mark.parametrize("preset", sorted(PRESETS))
@pytest.mark.parametrize("host", ["moco", "simclr"])
def test_a_grid_is_every_condition_at_every_seed(preset: str, host: str) -> None:
    made = grid("cai2020", preset, host=host, seeds=3)
    conditions = {cell.condition.name for cell in made.cells}
    assert len(made.cells) == 3 * len(conditions) == len({cell.run.name for cell in made.cells})
    assert {cell.run.seed for cell in made.cells} == {0, 1, 2}
    # paired by seed: runs of a seed differ in method and temperature alone
    shared = [
        {k: v for k, v in asdict(c.run).items() if k not in ("method", "temperature", "seed")} for c in made.cells
    ]
    assert all(each == shared[0] for each in shared)
    assert shared[0]["host"] == host and shared[0]["data"] == PRESETS[preset]["data"]
    assert all(cell.run.temperature == cell.condition.temperature for cell in made.cells)


def test_the_folder_is_named_by_data_host_and_seeds() -> None:
    base = grid("cai2020", "demo")
    assert base.folder.name.startswith("cai2020-demo-") and len(base.folder.name) == len("cai2020-demo-") + 8
    assert base.folder.name == grid("cai2020", "demo", seeds=(0, 1, 2), epochs=9, runs="elsewhere").folder.name
    others = [grid("cai2020", "demo", data="cifar10"), grid("cai2020", "demo", host="simclr"), grid("cai2020", seeds=2)]
    assert len({base.folder.name, *(each.folder.name for each in others)}) == 4


@pytest.mark.parametrize("wrong", [{"name": "cai"}, {"preset": "dmo"}, {"seeds": 0}, {"seeds": (1, 1)}, {"epochs": 0}])
def test_a_grid_that_cannot_be_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError):
        grid(**{"name": "cai2020", **wrong})  # type: ignore[arg-type]


# Running.


@pytest.fixture(scope="module")
def study(source: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole study by its command, in processes of its own."""
    runs = tmp_path_factory.mktemp("runs")
    words = ["study", "cai2020", "--data", source, "--seeds", "2", "--runs", str(runs), "--workers", "2"]
    assert main([*words, *QUICK, "--epochs", "1"]) == 0
    return next(runs.glob("cai2020-demo-*"))


def test_a_study_leaves_its_files(study: Path) -> None:
    for name in ("report.html", "runs.csv", "table.csv", "study.json", "figures"):
        assert (study / name).exists(), name
    rows = list(csv.DictReader((study / "runs.csv").open()))
    conditions = {row["condition"] for row in rows}
    assert len(rows) == 2 * len(conditions) and {row["seed"] for row in rows} == {"0", "1"}
    for row in rows:
        result = json.loads((study.parent / row["run"] / "result.json").read_text())
        run = json.loads((study.parent / row["run"] / "run.json").read_text())
        assert float(row["linear_top1"]) == result["linear_top1"] and float(row["temperature"]) == run["temperature"]
        assert row["method"] == run["method"] and int(row["seed"]) == run["seed"]
    told = json.loads((study / "study.json").read_text())
    assert told["failures"] == {} and told["provenance"]["data"].startswith("npz:") and told["verdicts"]
    assert [share["temperature"] for share in told["loss_share"]] == [0.1]
    assert sum(part[2] for part in told["loss_share"][0]["shares"]) == pytest.approx(1, abs=1e-4)


def test_a_worker_computes_what_this_process_computes(study: Path, source: str, tmp_path: Path) -> None:
    row = next(csv.DictReader((study / "runs.csv").open()))
    run = Run(**json.loads((study.parent / row["run"] / "run.json").read_text()))
    result = train(replace(run, runs=str(tmp_path)), data=load_data(run))
    assert [result[key] for key in ("linear_top1", "knn_top1")] == [float(row["linear_top1"]), float(row["knn_top1"])]


def test_workers_share_data_only_between_runs_that_agree_in_all_of_it(source: str) -> None:
    assert set(inspect.signature(load).parameters) - {"source", "seed"} == set(DATA)
    run = Run(data=source, size=16, seed=3, method="mass")
    assert plain(run) == plain(replace(run, seed=4, method="infonce", epochs=9))
    for name, value in {"size": 8, "images": 10, "classes": 2, "bad": "skip"}.items():
        assert plain(replace(run, **{name: value})) != plain(run)
    assert len(load_data(plain(replace(run, classes=2))).train.names) == 2


def test_a_study_that_is_done_trains_nothing(study: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in study.parent.glob("*/result.json")}
    words = ["study", "cai2020", "--data", source, "--seeds", "2", "--runs", str(study.parent)]
    assert main([*words, *QUICK, "--epochs", "1"]) == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert str(study / "report.html") in capsys.readouterr().out
    assert main([*words, *QUICK, "--epochs", "2"]) == 2
    assert "made with 1 epochs and this study asks for 2" in capsys.readouterr().err


def test_a_failing_run_is_reported_and_the_others_go_on(source: str, tmp_path: Path) -> None:
    made = grid("cai2020", data=source, seeds=1, runs=str(tmp_path), **SMALL)
    # a window so narrow that no query has a negative in it: an error that only the training meets
    broken = replace(made.cells[1].run, method="chain(keep(window(99.99, 100)), infonce)")
    cells = (made.cells[0], Cell(made.cells[1].condition, broken), made.cells[2])
    heard: list[tuple[str, News]] = []
    outcome = run_study(replace(made, cells=cells), lambda cell, news: heard.append((cell.title, news)), workers=1)
    assert list(outcome.failures) == [cells[1].title] and "window(99.99, 100)" in outcome.failures[cells[1].title]
    assert {row["condition"] for row in outcome.rows} == {cells[0].condition.name, cells[2].condition.name}
    assert [news.kind for _, news in heard if news.kind != "tick"] == ["done", "failed", "done"]
    assert any(news.kind == "tick" and news.facts["step"] > 0 for _, news in heard)
    assert [cell.title for cell in unfinished(replace(made, cells=cells))] == [cells[1].title]


def test_a_worker_that_is_killed_costs_its_run_alone(source: str, tmp_path: Path) -> None:
    long = Run(data=source, runs=str(tmp_path), **{**SMALL, "epochs": 900})  # type: ignore[arg-type]
    runs = [long, replace(long, seed=1, epochs=1)]
    kinds = []
    for news in work_through(runs, 1, tmp_path / "logs"):
        if news.kind == "tick" and news.run is runs[0]:
            os.kill(_worker(), signal.SIGKILL)
        if news.kind != "tick":
            kinds.append((news.run.seed, news.kind, str(news.facts.get("error", ""))))
    assert [kind[:2] for kind in kinds] == [(0, "failed"), (1, "done")] and "-9" in kinds[0][2]


def _worker() -> int:
    """The process of the worker that this process started."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    mine = [
        line.split()[0]
        for line in listed.splitlines()
        if line.split()[1] == str(os.getpid()) and "study.worker" in line
    ]
    return int(mine[-1])


def test_ctrl_c_leaves_checkpoints_and_the_same_command_goes_on(source: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "onca", "study", "cai2020", "--data", source, "--seeds", "1", "--workers", "1"]
    process = subprocess.Popen(
        [*words, *QUICK, "--epochs", "900", "--runs", str(tmp_path)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("*/checkpoint/checkpoint.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the whole group
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and "give the same command again" in errors, errors
    made = grid("cai2020", data=source, seeds=1, runs=str(tmp_path), size=32, epochs=900, images=256, **NET)  # type: ignore[arg-type]
    run = made.cells[0].run
    reached = json.loads((run.folder / "checkpoint" / "checkpoint.json").read_text())["step"]
    assert reached > 0 and gather(made).rows == ()
    news = next(iter(work_through([run], 1, tmp_path / "logs")))  # a new worker goes on from there
    assert news.kind == "tick" and news.facts["step"] > reached
    assert result_of(run.folder) is None


# What the report shows besides accuracies, and what a dry run says.


def test_the_share_of_the_loss_is_that_of_sorted_exponentials(source: str, tmp_path: Path) -> None:
    run = Run(data=source, runs=str(tmp_path), **{**SMALL, "batch": 60})  # type: ignore[arg-type]
    data = load_data(run)
    train(run, data=data)
    edges = (0.0, 50.0, 90.0, 99.0, 100.0)
    write_loss_share(run, data, edges)
    shares = json.loads((run.folder / "loss_share.json").read_text())
    assert [(low, high) for low, high, _ in shares] == list(itertools.pairwise(edges))

    training = start(run, data)
    training.host.eval()
    with torch.no_grad():
        pool = training.host.pools(make_batch(training, torch.arange(512)))[0]
    queue = training.host.state_dict()
    query = pool.negatives.query.double().numpy()
    scores = query @ queue["memory.keys"].double().numpy().T  # [512,128]
    own = queue["memory.index"].numpy()[None] == data.train.index.numpy()[:, None]
    expected = np.zeros((512, 4))
    for row in range(512):
        hard_first = np.sort(np.exp(scores[row][~own[row]] / 0.1))[::-1]
        cuts = [int(len(hard_first) * (100 - edge) / 100 + 0.5) for edge in edges]
        parts = [hard_first[cuts[k + 1] : cuts[k]].sum() for k in range(4)]
        expected[row] = np.array(parts) / hard_first.sum()
    np.testing.assert_allclose([share for *_, share in shares], expected.mean(axis=0), rtol=1e-4)


def test_cost_counts_steps_and_grows_with_what_is_asked() -> None:
    run = Run(encoder="small(16)")
    one = cost(run, 20_000, 32)
    assert one.steps == 79 * 4
    # five convolutions, multiply-adds times two, by hand: 16^2 (3 9) w + 8^2 (9 w) 2w + 8^2 (18 w) 2w + ...
    w, by_hand = 16, 0
    for side, before, after in ((16, 3, w), (8, w, 2 * w), (8, 2 * w, 2 * w), (4, 2 * w, 4 * w), (4, 4 * w, 4 * w)):
        by_hand += 2 * side**2 * before * 9 * after
    assert one.flops == pytest.approx(by_hand + 2 * 4 * w * 64)
    work = [c.seconds * c.rate for c in (one, cost(replace(run, epochs=8), 20_000, 32), cost(run, 20_000, 64))]
    assert work[1] == pytest.approx(2 * work[0]) and 3.5 < work[2] / work[0] < 4.5
    simclr = cost(replace(run, host="simclr"), 20_000, 32)
    assert simclr.seconds * simclr.rate == pytest.approx(work[0] * 6 / 4)


def test_a_dry_run_lists_conditions_and_costs_and_does_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["study", "cai2020", "--preset", "paper", "--dry-run"]) == 0
    said = capsys.readouterr().out
    for words in ("chain(keep(window(90, 95)), infonce)", "1,281,167 training images", "resnet50", "days", "GB a run"):
        assert words in said
    assert list(tmp_path.iterdir()) == []
