"""A run that is cut off anywhere and gone on with is the run that was never cut off, to the bit."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from little_runs import Crash, crash_at, state

from onca.data import Splits
from onca.train import Interrupted, NotSaved, Run, Tick, train
from onca.train.checkpoint import load_checkpoint
from onca.train.folder import locked


@pytest.fixture
def run(source: str, tmp_path: Path) -> Run:
    return configuration(source, tmp_path)


def configuration(source: str, place: Path) -> Run:
    """Three epochs of 11 steps, the last one short; every kind of state: queue with reserve, momentum, symmetry."""
    return Run(
        data=source, encoder="small(8)", batch=48, queue=160, dim=16, epochs=3, lr=0.06, symmetric=True,
        method="chain(drop(hardest(5), refill=True), infonce)", temperature="ramp(0.2, 0.1, 2)", runs=str(place),
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(source: str, data: Splits, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """The same run, never cut off."""
    uncut = configuration(source, tmp_path_factory.mktemp("whole"))
    train(uncut, data=data)
    return uncut


def step_of(run: Run) -> int:
    found = load_checkpoint(run.folder / "checkpoint")
    return found[1]["step"] if found else 0


def metrics(run: Run) -> list[dict[str, Any]]:
    """The lines without what the clock decides."""
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images_per_second"} for line in lines]


def assert_same(one: Run, other: Run) -> None:
    a, b = state(one), state(other)
    assert a.keys() == b.keys()
    assert [name for name in a if not torch.equal(a[name], b[name])] == []
    assert metrics(one) == metrics(other)
    results = [json.loads((each.folder / "result.json").read_text()) for each in (one, other)]
    for key in ("linear_top1", "linear_top5", "knn_top1", "epochs", "images"):
        assert results[0][key] == results[1][key]


@pytest.mark.parametrize("step", [3, 11, 12, 25, 33])
def test_a_crash_between_checkpoints_changes_nothing(run: Run, whole: Run, data: Splits, step: int) -> None:
    with pytest.raises(Crash):
        train(run, data=data, watch=crash_at(step), save_seconds=1e9)  # checkpoints only where epochs end
    assert step_of(run) == (step - 1) // 11 * 11
    train(run, resume=True, data=data)
    assert_same(run, whole)


def test_checkpoints_inside_an_epoch_and_many_crashes_change_nothing(run: Run, whole: Run, data: Splits) -> None:
    for step in (2, 5, 6, 17, 30):
        with pytest.raises(Crash):
            train(run, resume=step != 2, data=data, watch=crash_at(step), save_seconds=0)
        assert step_of(run) == step - 1
    train(run, resume=True, data=data)
    assert_same(run, whole)


def test_a_checkpoint_holds_all_that_a_run_changes(run: Run, whole: Run) -> None:
    names = set(state(whole))
    parts = (
        "host.encoder.",
        "host.key_encoder.",
        "host.memory.keys",
        "host.memory.position",
        "optimiser.0.",
        "random.",
    )
    assert [part for part in parts if not any(name.startswith(part) for name in names)] == []
    facts = json.loads((whole.folder / "checkpoint" / "checkpoint.json").read_text())
    assert (facts["step"], facts["epoch"], facts["images"]) == (33, 3.0, 512)
    assert {path.name for path in (whole.folder / "checkpoint").iterdir()} == {"checkpoint.json", "step-33.safetensors"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_leaves_the_last_whole_step(run: Run, whole: Run, data: Splits, number: signal.Signals) -> None:
    def watch(tick: Tick) -> None:
        if tick.step == 7:
            os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    with pytest.raises(Interrupted, match=r"step 7 of 33.*onca train .*--resume"):
        train(run, data=data, watch=watch)
    assert step_of(run) == 7 and signal.getsignal(number) == before
    train(run, resume=True, data=data)
    assert_same(run, whole)


def test_kill_9_at_a_random_step_changes_nothing(run: Run, whole: Run, data: Splits) -> None:
    words = [sys.executable, "-c", KILLED, run.command, "0.01"]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
    wanted = random.randrange(1, 30)  # a race on purpose: whatever step it hits, the outcome must be the same
    deadline = time.monotonic() + 120
    while step_of_running(run) < wanted and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors
    reached = step_of(run)
    assert 0 < reached <= 33
    train(run, resume=True, data=data)  # the lock went with the process
    assert_same(run, whole)


KILLED = """
import shlex, sys
from onca.cli import main
sys.exit(main([*shlex.split(sys.argv[1])[1:], "--save-every", sys.argv[2]]))
"""


def step_of_running(run: Run) -> int:
    """The step of a checkpoint that another process is replacing all the time."""
    path = run.folder / "checkpoint" / "checkpoint.json"
    return json.loads(path.read_text())["step"] if path.exists() else 0


def test_a_longer_run_goes_on_from_a_shorter_one(run: Run, data: Splits) -> None:
    assert train(run, data=data)["epochs"] == 3
    longer = replace(run, epochs=4)
    assert longer.folder == run.folder
    with pytest.raises(ValueError, match=r"a run of 3 epochs: --resume"):
        train(longer, data=data)
    assert train(longer, resume=True, data=data)["epochs"] == 4
    assert [line["epoch"] for line in metrics(run) if line["kind"] == "epoch"] == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="has trained 4 epochs"):
        train(run, resume=True, data=data)


def test_what_is_done_is_not_done_again(run: Run, whole: Run, data: Splits) -> None:
    steps: list[Tick] = []
    assert train(whole, data=data, watch=steps.append) == train(whole, resume=True, data=data, watch=steps.append)
    assert steps == []


def test_resume_with_another_configuration_is_refused_and_the_difference_shown(run: Run, data: Splits) -> None:
    with pytest.raises(Crash):
        train(run, data=data, watch=crash_at(12))
    with pytest.raises(ValueError, match="holds an unfinished run: --resume"):
        train(run, data=data)
    other = replace(run, lr=0.01, momentum=0.5)
    with pytest.raises(ValueError, match=r"momentum: 0\.99 there, 0\.5 here; lr: 0\.06 there, 0\.01 here"):
        train(other, resume=True, data=data)
    assert not other.folder.exists()
    with pytest.raises(ValueError, match="nothing to resume: no run in"):
        train(replace(run, runs=run.runs + "/empty"), resume=True, data=data)
    record = json.loads((run.folder / "run.json").read_text())
    (run.folder / "run.json").write_text(json.dumps({**record, "seed": 5}))
    with pytest.raises(ValueError, match="seed: 5 there, 0 here"):
        train(run, resume=True, data=data)


def test_resume_on_other_images_is_refused(run: Run, data: Splits) -> None:
    with pytest.raises(Crash):
        train(run, data=data, watch=crash_at(12))
    fewer = replace(data, train=data.train.subset(torch.arange(480)))
    with pytest.raises(ValueError, match="480 images now and had 512"):
        train(run, resume=True, data=fewer)


def test_a_full_disk_leaves_the_old_checkpoint_whole(run: Run, whole: Run, data: Splits) -> None:
    """The system itself refuses: this process may not write files of more than 20 kB for a while."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(tick: Tick) -> None:
        if tick.step == 15:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))

    try:
        with pytest.raises(NotSaved, match=r"cannot write .*step-22\.safetensors: File too large; what was there"):
            train(run, data=data, watch=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert step_of(run) == 11
    assert {path.name for path in (run.folder / "checkpoint").iterdir()} == {"checkpoint.json", "step-11.safetensors"}
    train(run, resume=True, data=data)
    assert_same(run, whole)


def test_a_second_process_on_one_run_is_refused(run: Run, data: Splits) -> None:
    with locked(run.folder), pytest.raises(ValueError, match=f"another process is at work in {run.folder}"):
        train(run, data=data)
    with pytest.raises(Crash):
        train(run, data=data, watch=crash_at(1))  # free again


def test_a_damaged_checkpoint_is_named(run: Run, data: Splits) -> None:
    with pytest.raises(Crash):
        train(run, data=data, watch=crash_at(12))
    tensors = run.folder / "checkpoint" / "step-11.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:1000])
    with pytest.raises(ValueError, match=f"the checkpoint in {run.folder / 'checkpoint'} cannot be read"):
        train(run, resume=True, data=data)
