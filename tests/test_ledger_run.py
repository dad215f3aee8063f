"""The ledger of runs: every host, cut off and gone on with, bounded, damaged; and what bad input is answered."""

from __future__ import annotations

import json
import random
import re
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from little_runs import Crash, crash_at

import onca
from onca.cli import main
from onca.data import Splits
from onca.ledger import COLUMNS, Ledger, read, record
from onca.train import Run, snapshots, train
from onca.train.checkpoint import load_checkpoint


def configuration(source: str, place: Path, **more: Any) -> Run:
    """Three epochs of 8 steps."""
    setting: dict[str, Any] = {"encoder": "small(4)", "batch": 64, "queue": 160, "dim": 8, "epochs": 3}
    return Run(data=source, runs=str(place), **{**setting, **more})


@pytest.fixture
def run(source: str, tmp_path: Path) -> Run:
    return configuration(
        source, tmp_path / "runs", symmetric=True, method="chain(drop(hardest(5), refill=True), infonce)"
    )


def ledger_of(run: Run, **more: Any) -> Ledger:
    return Ledger(run.folder / "ledger", **{"seed": run.seed, "epochs": run.epochs, "every": 2, **more})


@pytest.fixture(scope="module")
def whole(source: str, data: Splits, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that is never cut off, in parts of 200 rows or a few more, beside one without a ledger."""
    method = "chain(drop(hardest(5), refill=True), infonce)"
    uncut = configuration(source, tmp_path_factory.mktemp("whole"), symmetric=True, method=method)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(record, "PART", 200)
        train(uncut, data=data, observers=[ledger_of(uncut)])
    return uncut


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "PART", 200)


def files(run: Run) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((run.folder / "ledger").iterdir())}


# --- one run ---------------------------------------------------------------------------------------------------------


def test_a_run_has_the_same_bits_with_a_ledger(whole: Run, data: Splits, tmp_path: Path) -> None:
    plain = replace(whole, runs=str(tmp_path))
    train(plain, data=data)
    states = [load_checkpoint(each.folder / "checkpoint") for each in (plain, whole)]
    assert states[0] is not None and states[1] is not None
    assert all(torch.equal(value, states[1][0][name]) for name, value in states[0][0].items())


def test_the_columns_are_those_that_are_stated(whole: Run) -> None:
    table = read(whole.folder)
    assert table.column_names == list(COLUMNS)
    assert read(whole.folder / "ledger", columns=["step", "rank"]).column_names == ["step", "rank"]
    rows = table.to_pylist()
    assert len({row["step"] for row in rows}) == 12 and {row["pool"] for row in rows} == {"view 0 -> 1", "view 1 -> 0"}
    assert all(row["epoch"] == (row["step"] - 1) / 8 for row in rows)
    assert all(0 <= row["query"] < 512 and -1 <= row["similarity"] <= 1.000001 for row in rows)
    assert {row["role"] for row in rows} == {"memory", "positive"}
    assert any("refilled" in row["flags"] for row in rows) and any(row["age"] for row in rows)


def test_a_replay_gives_the_same_ledger_and_another_seed_another(
    whole: Run, data: Splits, tmp_path: Path, small_parts: None
) -> None:
    again = replace(whole, runs=str(tmp_path))
    train(again, data=data, observers=[ledger_of(again)])
    assert files(again) == files(whole) and len(files(whole)) > 3
    other = replace(again, seed=1, epochs=1)
    train(other, data=data, observers=[ledger_of(other)])
    assert set(read(other.folder)["step"].to_pylist()) != set(read(whole.folder)["step"].to_pylist()) & set(range(1, 9))


def test_the_flags_of_the_command_line(
    run: Run, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("onca.analyse.progress.PLAIN_SECONDS", 0)
    short = replace(run, epochs=2)
    words = ["--audit", "--ledger", "--snapshots", "1"]
    assert main([*shlex.split(short.command)[1:], *words]) == 0
    said = capsys.readouterr()
    assert re.search(r"\d+ alarms? in \d+ checks", said.out)
    assert "looking for near-duplicates: 512 of 512 images, about 0 s left" in said.err
    assert len(read(short.folder)) > 0 and snapshots(short.folder) == [0, 1, 2]
    assert (short.folder / "audit.json").exists()


# --- cut off ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 7, 13, 24])
def test_a_ledger_that_was_cut_off_goes_on_as_if_it_had_not_been(
    run: Run, whole: Run, data: Splits, step: int, small_parts: None
) -> None:
    with pytest.raises(Crash):
        train(run, data=data, watch=crash_at(step), save_seconds=1e9, observers=[ledger_of(run)])
    train(run, resume=True, data=data, observers=[ledger_of(run)])
    assert files(run) == files(whole)


def test_many_crashes_and_checkpoints_inside_epochs_change_nothing(
    run: Run, whole: Run, data: Splits, small_parts: None
) -> None:
    for step in (2, 3, 9, 17):
        with pytest.raises(Crash):
            train(run, resume=step != 2, data=data, watch=crash_at(step), save_seconds=0, observers=[ledger_of(run)])
        steps = read(run.folder)["step"].to_pylist() if step > 3 else []
        assert max(steps, default=0) <= step
    train(run, resume=True, data=data, observers=[ledger_of(run)])
    assert files(run) == files(whole)


KILLED = """
import sys
from onca.ledger import Ledger, record
from onca.train import load_run, train
from pathlib import Path
record.PART = 200
run = load_run(Path(sys.argv[1]))
train(run, resume=True, save_seconds=0.01, observers=[Ledger(run.folder / "ledger", seed=0, epochs=3, every=2)])
"""


def test_kill_9_at_any_moment_leaves_whole_parts(run: Run, whole: Run, data: Splits, small_parts: None) -> None:
    with pytest.raises(Crash):
        train(run, data=data, watch=crash_at(1), save_seconds=0, observers=[ledger_of(run)])
    words = [sys.executable, "-c", KILLED, str(run.folder)]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    wanted, deadline = random.randrange(3, 20), time.monotonic() + 120  # a race on purpose: the outcome is the same
    while step_of(run) < wanted and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    reached = max(read(run.folder)["step"].to_pylist())
    assert step_of(run) - 4 < reached
    assert read(run.folder).to_pylist() == [row for row in read(whole.folder).to_pylist() if row["step"] <= reached]
    train(run, resume=True, data=data, observers=[ledger_of(run)])
    assert files(run) == files(whole)


def step_of(run: Run) -> int:
    path = run.folder / "checkpoint" / "checkpoint.json"
    return int(json.loads(path.read_text())["step"]) if path.exists() else 0


# --- bounds ----------------------------------------------------------------------------------------------------------


def test_a_long_run_is_looked_at_less_often_and_evenly(run: Run, data: Splits) -> None:
    budget = 5 * 4 * 46
    train(run, data=data, observers=[ledger_of(run, every=1, rows=budget)])
    table = read(run.folder)
    steps = sorted(set(table["step"].to_pylist()))
    assert len(table) <= budget and 4 <= len(steps) <= 6
    assert [step for step in steps if step > 16] and all(b - a < 10 for a, b in pairwise(steps))


def test_without_a_known_end_the_ledger_ends_when_it_is_full_and_says_so(tmp_path: Path) -> None:
    pool = onca.pool(torch.randn(8, 4), torch.randn(8, 4), torch.randn(200, 4), index=torch.arange(8))
    ledger = Ledger(tmp_path, every=1, rows=500)
    with pytest.warns(UserWarning, match="has its 500 rows: what follows is not recorded") as said:
        for step in range(1, 30):
            ledger.see([pool], onca.infonce, step, 0.0)
    ledger.save(30)
    assert 300 < len(read(tmp_path)) <= 500 and len(said) == 1


# --- every host ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "method", "more"),
    [
        ("moco", "infonce", {}),
        ("moco", "hcl(1)", {"temperature": 0.5}),
        ("moco", "chain(mochi(n=20, s=8, s2=4), infonce)", {}),
        ("moco", "fnc(k=3, threshold=0.5)", {"support": 2}),
        ("moco", "chain(own_views(1, 1), infonce)", {"support": 2}),
        ("moco", "chain(auto(refill=True), infonce)", {}),
        ("moco", "chain(keep(semihard(0.2)), triplet(0.2))", {}),
        ("moco", "chain(keep(hardest(5, by=random)), infonce)", {"memory": "lasting(hardest(5))"}),
        ("simclr", "infonce", {}),
        ("simclr", "chain(drop(nearest(3)), debiased(0.1))", {"temperature": 0.5}),
        ("npid", "nce", {"draws": 64}),
        ("npid", "invp(k=2, background=100, start=0.2)", {}),
        ("npid", "chain(ring(outer=20, inner=2, neighbours=True), aggregation)", {}),
        ("cmc", "infonce", {"draws": 0}),
        ("looc", "chain(keep(hardest(10)), infonce)", {}),
    ],
)
def test_every_host_and_kind_of_method(
    source: str, data: Splits, tmp_path: Path, host: str, method: str, more: dict[str, Any]
) -> None:
    run = configuration(source, tmp_path, host=host, method=method, epochs=1, **more)
    train(run, data=data, observers=[ledger_of(run, every=1, queries=3)])
    rows = read(run.folder).to_pylist()
    assert {row["step"] for row in rows} == set(range(1, 9))
    groups: dict[Any, list[dict[str, Any]]] = {}
    for row in rows:
        if row["role"] != "positive":
            groups.setdefault((row["step"], row["pool"], row["query"]), []).append(row)
    for key, group in groups.items():
        ranked = [row for row in group if row["rank"] is not None]
        number = sum(row["stands_for"] for row in ranked)
        assert len({row["rank"] for row in ranked}) == len(ranked)
        assert all(row["percentile"] == pytest.approx(100 * (1 - (row["rank"] + 0.5) / number)) for row in ranked)
        order = sorted(ranked, key=lambda row: row["rank"])
        assert all(a["similarity"] >= b["similarity"] for a, b in pairwise(order)), key
        assert all(0 <= row["gradient_share"] <= 1.000001 for row in group)
        assert all(row["gradient_share"] == 0 for row in group if row["weight"] == 0 and "harden" not in method)
        assert not any("same_image" in row["flags"] for row in group if row["role"] == "memory"), key
    roles = {row["role"] for row in rows}
    assert {"mochi": "mixed", "own_views": "same image"}.get(method[6:].split("(")[0], "positive") in roles
    assert host != "looc" or "same image" in roles
    assert host != "simclr" or "batch" in roles


# --- bad input -------------------------------------------------------------------------------------------------------


def test_a_part_that_was_cut_off_is_named_and_left_out(whole: Run, tmp_path: Path) -> None:
    for path in sorted((whole.folder / "ledger").iterdir()):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    parts = sorted(tmp_path.iterdir())
    everything = len(read(tmp_path))
    parts[1].write_bytes(parts[1].read_bytes()[:900])
    (tmp_path / "part-000099.parquet.part").write_bytes(b"PAR1")
    with pytest.warns(UserWarning, match=r"mid-write and left out: part-000099\.parquet\.part, part-000001\.parquet"):
        rest = read(tmp_path)
    assert 0 < len(rest) < everything
    with pytest.raises(
        ValueError, match=r"part-000001\.parquet cannot be read .*; remove it to go on without its rows"
    ):
        Ledger(tmp_path, seed=0, every=2)
    for path in parts:
        path.write_bytes(b"")
    with pytest.warns(UserWarning, match="mid-write"), pytest.raises(ValueError, match=r"none of its \d+ parts can be"):
        read(tmp_path)


def test_no_ledger_is_said_with_the_way_to_one(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match="holds no ledger: train with --ledger to have one"):
            read(place)
    with pytest.raises(ValueError, match="a ledger has no column hardness; it has step, epoch"):
        read(tmp_path, columns=["hardness"])


def test_without_pyarrow_the_way_to_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "pyarrow"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    for call in (lambda: Ledger(tmp_path), lambda: read(tmp_path)):
        with pytest.raises(ValueError, match=r'a ledger needs pyarrow: pip install "onca\[analysis\]"'):
            call()


@pytest.mark.parametrize(
    ("more", "words"),
    [({"every": 0}, "every is a number of 1 or more; got 0"), ({"rows": 20}, "rows=20 are fewer than one look")],
)
def test_settings_that_cannot_be_are_refused(tmp_path: Path, more: dict[str, int], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Ledger(tmp_path, **more)


def test_a_ledger_made_otherwise_is_not_gone_on_with(whole: Run) -> None:
    with pytest.raises(ValueError, match=r"holds a ledger made otherwise \(seed: 0 there, 3 here; every: 2 there, 5"):
        Ledger(whole.folder / "ledger", seed=3, every=5)


def test_a_loop_of_ones_own_keeps_a_ledger(tmp_path: Path) -> None:
    memory, ledger = onca.Queue(64, 8), onca.ledger.Ledger(tmp_path, every=3)
    for step in range(1, 10):
        query, key = torch.nn.functional.normalize(torch.randn(2, 16, 8), dim=-1)
        index = torch.arange(16) + 16 * step
        bag = memory.negatives(query, index)
        pool = onca.Pool(onca.pool(query, key, query, normalize=False).positives, bag, 0.2, index=index)
        ledger.see([pool], onca.infonce, step, step / 10)
        memory.enqueue(key, index)
    ledger.save(9)
    assert set(read(tmp_path)["step"].to_pylist()) <= set(range(1, 10)) and len(read(tmp_path)) > 0
