"""The audit of runs: it changes nothing of them, writes its file, and ends as a check in CI should."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from audit_runs import audited, little_run, little_world

from onca import cli
from onca.audit import audit_run, exit_code, finish, of_run, read_audit
from onca.train.folder import record
from onca.train.loop import fit, start

METHODS = ("infonce", "chain(keep(hardest(20)), infonce)", "chain(mochi(n=16, s=8, s2=2), infonce)", "debiased(0.02)")


def digests(folder: Path) -> dict[str, str]:
    """Of all files of a run but its audit."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "audit.json")
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(("host", "method"), [("moco", METHODS[0]), ("simclr", METHODS[3]), ("moco", METHODS[2])])
def test_a_run_has_the_same_bits_with_and_without(tmp_path: Path, host: str, method: str) -> None:
    weights = []
    for name, watched in (("with", True), ("without", False)):
        run = little_run(tmp_path / name, host=host, method=method, epochs=1, temperature=0.5)
        training = start(run, little_world())
        audit = of_run(run, little_world())
        audit.every = 1
        training.observers = (audit,) if watched else ()
        run.folder.mkdir(parents=True)
        record(run)
        fit(training)
        weights.append(training.host.state_dict())
        assert (run.folder / "audit.json").exists() == watched
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(value, weights[1][name]) for name, value in weights[0].items())


def test_a_checkpoint_is_audited_and_left_as_it_is(tmp_path: Path) -> None:
    run, data = little_run(tmp_path), little_world()
    live, _ = audited(run, data)
    before, state, ticks = digests(run.folder), torch.get_rng_state(), []
    found = {f.name: f for f in audit_run(run.folder, 3, 16, data, lambda done, total: ticks.append((done, total)))}
    assert digests(run.folder) == before and torch.equal(torch.get_rng_state(), state)
    assert ticks == [(1, 3), (2, 3), (3, 3)]
    assert set(found) == {*live, "batch-norm leak", "alike to the encoder"}
    assert found["lost keys"].outcome == "unknown" and live["lost keys"].outcome == "fine"
    written, source, extent = read_audit(run.folder / "audit.json")
    assert [f.name for f in written] == list(found) and "epoch 3" in source and extent["steps"] == 3
    (folder := tmp_path / "moved").mkdir()
    run.folder.rename(folder / "run")  # whatever the folder is called
    again = {f.name: f for f in audit_run(folder / "run", 3, 16, data)}
    assert again["self-hits"] == found["self-hits"] and again["loss mass"] == found["loss mass"]


def test_a_run_that_has_trained_gains_what_its_checkpoint_tells(tmp_path: Path) -> None:
    run, data = little_run(tmp_path, epochs=1), little_world()
    training, audit = start(run, data), of_run(run, data)
    training.observers = (audit,)
    run.folder.mkdir(parents=True)
    record(run)
    fit(training)
    found = finish(audit, run, data)
    assert {f.name for f in found} >= {"self-hits", "lost keys", "batch-norm leak", "alike to the encoder"}
    assert read_audit(run.folder / "audit.json")[0][-1].name == found[-1].name and exit_code(found) == 0


def test_exit_codes_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = np.random.default_rng(0).normal(size=(200, 16)).astype(np.float32)
    np.save(tmp_path / "fine.npy", table)
    np.save(tmp_path / "twice.npy", np.concatenate([table, table[:30]]))
    assert cli.main(["audit", str(tmp_path / "fine.npy")]) == 0
    assert cli.main(["audit", str(tmp_path / "twice.npy"), "--json", str(tmp_path / "a.json")]) == 1
    printed = capsys.readouterr().out
    assert "ALARM  near-duplicates" in printed and max(map(len, printed.splitlines())) <= 80
    assert read_audit(tmp_path / "a.json")[1] == str(tmp_path / "twice.npy")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["no.npy"], "no.npy"),
        (["."], "is no run's folder"),
        ([".", "--labels", "x.txt"], "leave --labels out"),
        (["no.npy", "--steps", "2"], "are for runs"),
    ],
)
def test_bad_input(
    words: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli.main(["audit", *words]) == 2
    assert said in capsys.readouterr().err


def test_a_run_without_a_checkpoint_is_told_to_train(tmp_path: Path) -> None:
    run = little_run(tmp_path)
    run.folder.mkdir(parents=True)
    record(run)
    with pytest.raises(ValueError, match="holds no checkpoint yet: train first"):
        audit_run(run.folder)
