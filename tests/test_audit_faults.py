"""Faults planted in real runs, one by one: each is named, and no other is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from audit_runs import alarms_of, audited, little_run, little_world, with_copies
from torch import Tensor

from onca.audit.leak import leak
from onca.hosts import Batch, MoCo
from onca.memory import Queue
from onca.objectives import Objective
from onca.pool import Pool
from onca.train.loop import Training

SEEN: dict[str, Any] = {"views": "moco_v1", "crop_low": 0.8, "encoder": "small(8)", "dim": 32, "lr": 0.01}


class Early(MoCo):
    """Puts the keys of a batch into the queue before it is used, and tells it no images."""

    def pools(self, batch: Batch) -> list[Pool]:
        self.memory.enqueue(self.encode_keys(batch, 1))
        return super().pools(batch)

    def after_step(self) -> None:
        self._keys, self._pools = [], []


class Offset(MoCo):
    """The positive of query i is the key of query i + 8, as on a process that takes its rank for another."""

    def _pool(self, batch: Batch, view: int, keys: Tensor, more: Tensor | None, place: int) -> Pool:
        return super()._pool(batch, view, keys.roll(-8, 0), more, place)


class Tailless(Queue):
    """What does not fit before the end is dropped, and the next keys go to the beginning."""

    def _room(self, number: int) -> Tensor:
        start = int(self.position)
        kept = min(number, len(self.keys) - start)
        self.position.fill_(0 if start + number >= len(self.keys) else start + number)
        return torch.arange(start, start + kept)

    def enqueue(self, keys: Tensor, index: Tensor | None = None, label: Tensor | None = None, view: int = -1) -> None:
        kept = min(len(keys), len(self.keys) - int(self.position))
        place = int(self.position)
        super().enqueue(keys[:kept], None if index is None else index[:kept], None if label is None else label[:kept])
        self.position.fill_(0 if place + len(keys) >= len(self.keys) else place + len(keys))


class Pull(Objective):
    """Positives and nothing else: everything falls into one point."""

    def __call__(self, pool: Pool) -> Tensor:
        return -pool.positives.mean() * pool.scale


def test_keys_appended_before_they_are_used(tmp_path: Path) -> None:
    def plant(training: Training) -> None:
        training.host.__class__ = Early

    found, _ = audited(little_run(tmp_path), little_world(), plant)
    assert set(alarms_of(found)) == {"self-hits"}
    assert found["self-hits"].number == 1.0 and "own positive key" in found["self-hits"].sentence


def test_a_wrong_rank_offset(tmp_path: Path) -> None:
    def plant(training: Training) -> None:
        training.host.__class__ = Offset

    found, _ = audited(little_run(tmp_path, **SEEN), little_world(size=32), plant)
    assert set(alarms_of(found)) == {"wrong positives"}
    assert "the key 24 places after" in found["wrong positives"].sentence


def test_the_same_run_without_the_offset_has_its_own_positives(tmp_path: Path) -> None:
    found, _ = audited(little_run(tmp_path, **SEEN), little_world(size=32))
    assert not alarms_of(found) and found["wrong positives"].outcome == "fine"


def test_duplicated_images(tmp_path: Path) -> None:
    data = with_copies(little_world(), 48)
    found, _ = audited(little_run(tmp_path), data)
    assert set(alarms_of(found)) == {"near-duplicates"}
    low, high = found["near-duplicates"].low, found["near-duplicates"].high
    assert low is not None and high is not None and low <= 2 * 48 / 320 <= high


def test_a_queue_longer_than_the_data(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="older keys of the query's own image"):
        found, _ = audited(little_run(tmp_path, queue=512), little_world())
    assert set(alarms_of(found)) == {"long queue"}
    assert found["long queue"].number == 512 / 320 and found["repeats"].number > 0


def test_batch_statistics_that_give_the_positive_away(tmp_path: Path) -> None:
    """Small batches, one part: after some epochs the encoder has found out. With parts it cannot."""
    small = {"encoder": "small(8)", "batch": 8, "queue": 32, "temperature": 0.05, "lr": 0.1, "epochs": 8}
    _, plain = audited(little_run(tmp_path, splits=1, **small), little_world(), every=1000)
    found = leak(plain)
    assert found.outcome == "alarm" and found.low is not None and found.low > 1 / 8
    _, split = audited(little_run(tmp_path), little_world())
    found = leak(split)
    assert found.outcome == "fine" and found.low is not None and found.low < 1 / 8


def test_collapse(tmp_path: Path) -> None:
    def plant(training: Training) -> None:
        training.method = Pull()

    found, _ = audited(little_run(tmp_path, host="simclr"), little_world(), plant)
    assert set(alarms_of(found)) == {"collapse"}


def test_a_memory_that_drops_what_does_not_fit_its_end(tmp_path: Path) -> None:
    def plant(training: Training) -> None:
        assert isinstance(training.host, MoCo)
        training.host.memory.__class__ = Tailless

    found, _ = audited(little_run(tmp_path, queue=120), little_world(), plant)
    assert set(alarms_of(found)) == {"lost keys"}
    pushes = 29  # of 30 steps, the last one's keys are never looked for; each fourth push of 32 finds room for 24
    assert found["lost keys"].number == (pushes // 4) * 8 / (pushes * 32)


def test_a_queue_that_was_not_restored(tmp_path: Path) -> None:
    data = little_world()
    audited(little_run(tmp_path, epochs=2), data)

    def plant(training: Training) -> None:
        assert isinstance(training.host, MoCo) and training.step == 20
        fresh = Queue(128, 16)
        training.host.memory.load_state_dict(fresh.state_dict())

    found, _ = audited(little_run(tmp_path, epochs=4), data, plant)
    assert set(alarms_of(found)) == {"unrestored memory"}
    assert "before step 21 the memory held 0 keys" in found["unrestored memory"].sentence


def test_a_queue_that_was_restored_is_fine(tmp_path: Path) -> None:
    data = little_world()
    audited(little_run(tmp_path, epochs=2), data)
    found, _ = audited(little_run(tmp_path, epochs=4), data)
    assert not alarms_of(found) and found["unrestored memory"].number is not None
