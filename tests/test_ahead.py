"""Images that do not fit into memory: decoded ahead by threads, the same to the bit, no more than two batches."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from onca.data import ImageSet, Splits
from onca.data.ahead import TAKES, Ahead
from onca.data.pictures import BadImage, Files, Pictures, Undecoded
from onca.train import Interrupted, Run, load_data
from onca.train.loop import Training, fit, start


@dataclass(frozen=True)
class Counted:
    """Pictures that note which of them are opened, and wait a moment before, as a disk does."""

    values: NDArray[np.uint8]
    wait: float = 0.0
    opened: list[int] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.values)

    def open(self, place: int) -> Image.Image:
        self.opened.append(place)
        time.sleep(self.wait)
        return Image.fromarray(self.values[place])

    def name(self, place: int) -> str:
        return f"picture {place}"


def counted(count: int, wait: float = 0.0) -> Counted:
    values = np.random.default_rng(0).integers(0, 256, (count, 16, 16, 3), dtype=np.uint8)
    return Counted(values, wait)


def undecoded(pictures: Pictures) -> Undecoded:
    return Undecoded(pictures, torch.arange(len(pictures)), None, (16, 16))


def decoders() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("onca decodes")]


def test_takes_are_those_of_the_set_in_whatever_order_threads_finish() -> None:
    pictures = undecoded(counted(100, wait=1e-4))
    coming = torch.split(torch.randperm(100, generator=torch.Generator().manual_seed(1)), 23)
    with Ahead(pictures, coming, threads=4) as ahead:
        for rows in coming:
            assert torch.equal(ahead.take(rows), pictures.take(rows))
        assert torch.equal(ahead.take(coming[0]), pictures.take(coming[0]))  # more than was told of
    assert not decoders()


def test_rows_that_were_not_told_of_come_as_well_and_disturb_nothing() -> None:
    source = counted(60)
    coming = torch.split(torch.arange(60), 20)
    with Ahead(undecoded(source), coming, threads=2) as ahead:
        for rows in coming:
            assert torch.equal(ahead.take(torch.tensor([3, 3])), undecoded(source).take(torch.tensor([3, 3])))
            assert torch.equal(ahead.take(rows), undecoded(source).take(rows))


def test_no_more_than_two_batches_are_decoded_ahead_and_none_twice() -> None:
    source = counted(200)
    coming = torch.split(torch.arange(200), 20)
    with Ahead(undecoded(source), coming, threads=2) as ahead:
        for taken, rows in enumerate(coming, start=1):
            ahead.take(rows)
            time.sleep(0.01)
            assert set(source.opened) <= set(range(20 * (taken + TAKES)))
        assert sorted(source.opened) == list(range(200))


def test_a_bad_image_is_named_when_it_is_asked_for_and_not_before(tmp_path: Path) -> None:
    for place in range(40):
        Image.fromarray(counted(1).values[0]).save(tmp_path / f"{place:02}.png")
    for place in (27, 33):
        (tmp_path / f"{place}.png").write_bytes(b"no image")
    pictures = undecoded(Files(tuple(sorted(tmp_path.iterdir()))))
    coming = torch.split(torch.arange(40), 10)
    with Ahead(pictures, coming, threads=4) as ahead:
        ahead.take(coming[0])
        time.sleep(0.05)  # by now the third batch is decoded, and its error lies ready
        ahead.take(coming[1])
        with pytest.raises(BadImage, match=r"27\.png cannot be decoded"):
            ahead.take(coming[2])
    assert not decoders()


def test_an_end_does_not_wait_for_all_that_was_begun() -> None:
    source = counted(200, wait=0.01)
    with Ahead(undecoded(source), torch.split(torch.arange(200), 100), threads=1):
        pass
    assert len(source.opened) <= 8 and not decoders()


# In the training loop


@pytest.fixture
def tiny(tmp_path: Path) -> Run:
    return Run(encoder="small(4)", batch=16, queue=8, dim=8, epochs=2, runs=str(tmp_path))


def sets(source: Counted, frames: bool = False) -> tuple[ImageSet, ImageSet]:
    """The same images in memory, and to be decoded."""
    count = torch.arange(len(source))
    pixels = torch.from_numpy(source.values).permute(0, 3, 1, 2)
    held = ImageSet(pixels.contiguous(), count % 2, count, ("a", "b"), {}, "made up")
    if frames:
        held = replace(held, sequence=count // 10, frame=count % 10)
    return held, replace(held, pixels=None, undecoded=undecoded(source))


def begin(run: Run, images: ImageSet) -> Training:
    run.folder.mkdir(parents=True, exist_ok=True)
    return start(run, Splits(images, images, images))


def weights(run: Run, images: ImageSet) -> torch.Tensor:
    training = begin(run, images)
    fit(training)
    return torch.cat([value.flatten().double() for value in training.host.state_dict().values()])


@pytest.mark.parametrize("gap", [0, 2])
def test_a_run_that_decodes_ahead_is_the_run_in_memory_to_the_bit_and_decodes_once(tiny: Run, gap: int) -> None:
    source = counted(50)
    held, later = sets(source, frames=gap > 0)
    tiny = replace(tiny, gap=gap)
    expected = weights(tiny, held)
    assert not source.opened
    assert torch.equal(weights(replace(tiny, runs=tiny.runs + "/later"), later), expected)
    assert not decoders()
    takes = 2 if gap else 1
    assert len(source.opened) == 50 + 2 * 50 * takes  # pixel statistics, then two epochs: nothing for naught


def test_crops_that_follow_the_encoder_see_the_same_boxes(tiny: Run) -> None:
    held, later = sets(counted(50))
    tiny = replace(tiny, crop="contrastive_crop(warmup=1, interval=1)")
    assert torch.equal(weights(tiny, held), weights(replace(tiny, runs=tiny.runs + "/later"), later))


def test_an_interrupted_run_leaves_no_thread_and_goes_on_where_it_stood(tiny: Run) -> None:
    source = counted(50)
    _, later = sets(source)
    expected = weights(replace(tiny, runs=tiny.runs + "/whole"), later)
    training = begin(tiny, later)
    with pytest.raises(Interrupted):
        fit(training, watch=lambda tick: os.kill(os.getpid(), signal.SIGINT) if tick.step == 3 else None)
    assert training.step == 3 and not decoders()
    assert torch.equal(weights(tiny, later), expected)


def test_images_in_memory_need_no_thread(tiny: Run) -> None:
    held, _ = sets(counted(50))
    training = begin(tiny, held)
    fit(training, watch=lambda _: None if not decoders() else pytest.fail("a thread decodes what is decoded"))


def test_a_folder_too_large_for_memory_trains(tiny: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place, values in enumerate(counted(40).values):
        path = tmp_path / "images" / "ab"[place % 2] / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(path)
    run = replace(tiny, data=f"folder:{tmp_path / 'images'}", epochs=1)
    in_memory = weights(run, load_data(run).train)
    monkeypatch.setattr("onca.data.assemble.MEMORY", 1000)
    data = load_data(run)
    assert data.train.pixels is None
    assert torch.equal(weights(replace(run, runs=run.runs + "/later"), data.train), in_memory)
