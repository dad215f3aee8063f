"""Observers and snapshots: what looks on, and what is kept, change nothing of a run."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from little_runs import Crash, crash_at, state

import onca
from onca.data import Splits
from onca.train import Run, load_snapshot, snapshot_facts, snapshots, train


@pytest.fixture
def run(source: str, tmp_path: Path) -> Run:
    return Run(data=source, encoder="small(4)", batch=64, queue=128, dim=8, epochs=3, runs=str(tmp_path / "runs"))


class Looks:
    """Does what an observer might do: draws at random, puts the method to the pools again, and asks for slopes."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, float]] = []
        self.saved: list[int] = []

    def see(self, pools: Sequence[onca.Pool], method: onca.Method, step: int, epoch: float) -> None:
        torch.randn(3)
        (pool,) = pools
        query = pool.negatives.query.detach().requires_grad_()
        bags = {name: replace(getattr(pool, name), query=query) for name in ("positives", "negatives")}
        torch.autograd.grad(method(replace(pool, notes={}, **bags)).sum(), query)
        assert pool.epoch == epoch and pool.step == step - 1
        self.steps.append((step, epoch))

    def save(self, step: int) -> None:
        self.saved.append(step)


def test_a_run_has_the_same_bits_with_observers_and_snapshots(run: Run, data: Splits, tmp_path: Path) -> None:
    plain = replace(run, runs=str(tmp_path / "plain"))
    train(plain, data=data)
    looks = Looks()
    train(run, data=data, observers=[looks], snapshots=2)
    one, other = state(plain), state(run)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    assert looks.steps == [(step, (step - 1) / 8) for step in range(1, 25)]
    assert looks.saved == [8, 16, 24]


def test_snapshots_are_the_first_every_so_many_and_the_last(run: Run, data: Splits) -> None:
    train(run, data=data, snapshots=2)
    assert snapshots(run.folder) == [0, 2, 3]
    assert snapshot_facts(run.folder, 2) == {"epoch": 2, "step": 16, "images": 512, "size": 12}
    pictures = torch.rand(5, 3, 12, 12)
    for encoder in ("query", "momentum"):
        last, kept = (load_snapshot(run.folder, epoch, encoder) for epoch in (3, None))
        assert torch.equal(last(pictures), kept(pictures)) and not last.training
        assert not torch.equal(last(pictures), load_snapshot(run.folder, 2, encoder)(pictures))
    first = [load_snapshot(run.folder, 0, encoder)(pictures) for encoder in ("query", "momentum")]
    assert torch.equal(*first)  # untrained, the key encoder is a copy
    assert not torch.equal(
        load_snapshot(run.folder, 3, "query")(pictures), load_snapshot(run.folder, 3, "momentum")(pictures)
    )


def test_snapshots_of_a_run_that_was_cut_off_are_those_of_one_that_was_not(
    run: Run, data: Splits, tmp_path: Path
) -> None:
    whole = replace(run, runs=str(tmp_path / "whole"))
    train(whole, data=data, snapshots=1)
    with pytest.raises(Crash):
        train(run, data=data, watch=crash_at(13), snapshots=1)
    assert snapshots(run.folder) == [0, 1]
    train(run, data=data, resume=True, snapshots=1)
    assert snapshots(run.folder) == snapshots(whole.folder) == [0, 1, 2, 3]
    for epoch in snapshots(run.folder):
        files = [each.folder / "snapshots" / f"epoch-{epoch:04d}.safetensors" for each in (run, whole)]
        assert files[0].read_bytes() == files[1].read_bytes()


def test_what_is_not_there_is_said_with_what_is(run: Run, data: Splits) -> None:
    simclr = replace(run, host="simclr", epochs=1)
    with pytest.raises(ValueError, match="--snapshots is a number of epochs, 1 or more; got 0"):
        train(simclr, data=data, snapshots=0)
    train(simclr, data=data, snapshots=1)
    with pytest.raises(ValueError, match="no snapshot of epoch 4; there are those of epochs 0, 1"):
        load_snapshot(simclr.folder, 4)
    with pytest.raises(ValueError, match="host simclr has no momentum encoder"):
        load_snapshot(simclr.folder, 1, "momentum")
    path = simclr.folder / "snapshots" / "epoch-0001.safetensors"
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match=r"the snapshot .*epoch-0001\.safetensors cannot be read"):
        load_snapshot(simclr.folder, 1)
    shutil.rmtree(path.parent)
    assert snapshots(simclr.folder) == []
    with pytest.raises(ValueError, match="it has none: train with --snapshots 1"):
        load_snapshot(simclr.folder, 1)


def test_a_run_that_is_trained_already_says_that_nothing_is_recorded(run: Run, data: Splits) -> None:
    once = replace(run, epochs=1)
    train(once, data=data)
    with pytest.warns(UserWarning, match="is trained already: nothing was recorded"):
        train(once, data=data, snapshots=1)
    with pytest.warns(UserWarning, match="is trained already: nothing was recorded"):
        train(once, data=data, observers=[Looks()])
