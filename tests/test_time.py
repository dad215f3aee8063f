"""Sequences: frames stay together, neighbours are what loops say, and the world's animals move smoothly."""

import re
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_data import NAMES, all_parts, encode, number_of, picture, write_pack

from onca.data import ImageSet, load
from onca.data.split import spread, units
from onca.data.time import neighbour_frames
from onca.data.world import World, render


def moving(sequence: list[int], frame: list[int]) -> ImageSet:
    count = len(sequence)
    return ImageSet(
        torch.zeros(count, 3, 1, 1, dtype=torch.uint8), torch.full((count,), -1), torch.arange(count), (), {}, "moving",
        sequence=torch.tensor(sequence), frame=torch.tensor(frame),
    )  # fmt: skip


# neighbours ----------------------------------------------------------------------------------------

FRAMES = st.lists(st.tuples(st.integers(-1, 3), st.integers(0, 9)), min_size=1, max_size=30, unique=True)


@settings(max_examples=150, deadline=None)
@given(FRAMES, st.integers(0, 12), st.integers(0, 2**32 - 1))
def test_neighbours_by_loops(frames: list[tuple[int, int]], gap: int, seed: int) -> None:
    """Every frame that may come does, none that may not, and by equal shares of the draws."""
    images = moving([s for s, _ in frames], [f if s >= 0 else -1 for s, f in frames])
    draws = torch.rand(len(frames), generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    chosen = neighbour_frames(images, torch.arange(len(frames)), gap, draws).tolist()
    for row, (sequence, frame) in enumerate(frames):
        others = [k for k, (s, f) in enumerate(frames) if s == sequence >= 0 and abs(f - frame) <= gap and k != row]
        others.sort(key=lambda k: frames[k][1])
        expected = others[int(float(draws[row]) * len(others))] if others and gap else row
        assert chosen[row] == expected


def test_all_draws_and_rows_in_any_order() -> None:
    images = moving([5] * 7 + [2] * 7, [*range(7), *range(7)])
    rows = torch.full((400,), 10)  # frame 3 of sequence 2
    found = neighbour_frames(images, rows, 2, torch.linspace(0, 1, 400))
    assert found.unique().tolist() == [8, 9, 11, 12] and found.bincount()[[8, 9, 11, 12]].tolist() == [
        100,
        100,
        100,
        100,
    ]
    some, draws = torch.tensor([13, 0, 6]), torch.tensor([0.0, 0.999, 0.5])
    assert neighbour_frames(images, some, 1, draws).tolist() == [12, 1, 5]
    assert neighbour_frames(images.subset(torch.tensor([0, 3, 6])), torch.arange(3), 2, torch.rand(3)).tolist() == [
        0,
        1,
        2,
    ]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"gap": -1}, "gap=-1: frames are 0 or more apart"),
        ({"draws": torch.rand(3)}, "draws must be one number a row, [2]; they are [3]"),
        ({"images": load("world", images=4).train}, "has no sequences: positives in time need a set with sequence"),
    ],
)
def test_bad_calls_are_refused(change: dict[str, object], says: str) -> None:
    call: dict[str, object] = {
        "images": moving([0, 0], [0, 1]),
        "rows": torch.arange(2),
        "gap": 1,
        "draws": torch.rand(2),
    }
    with pytest.raises(ValueError, match=re.escape(says)):
        neighbour_frames(**{**call, **change})


def test_sets_with_half_of_it_are_refused() -> None:
    with pytest.raises(ValueError, match="belong together"):
        ImageSet(torch.zeros(2, 3, 1, 1, dtype=torch.uint8), torch.zeros(2).long(), torch.arange(2), ("a",), {}, "x",
                 sequence=torch.zeros(2).long())  # fmt: skip
    with pytest.raises(ValueError, match=re.escape("frame must be [2], one number an image; it is [3]")):
        ImageSet(torch.zeros(2, 3, 1, 1, dtype=torch.uint8), torch.zeros(2).long(), torch.arange(2), ("a",), {}, "x",
                 sequence=torch.zeros(2).long(), frame=torch.zeros(3).long())  # fmt: skip


# packs and splits ----------------------------------------------------------------------------------

CLIPS = [k // 4 for k in range(48)] + [-1] * 12  # twelve sequences of four frames, then single images
LABELS = [clip % 3 for clip in CLIPS[:48]] + [k % 3 for k in range(12)]


def clips(path: Path, **more: object) -> Path:
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0)).tolist()  # frames lie anywhere in the file
    arrays = {
        "sequence": torch.tensor(CLIPS)[order].numpy(),
        "frame": torch.tensor([k % 4 if k < 48 else -1 for k in order]).numpy(),
        **more,
    }
    return write_pack(path, [LABELS[k] for k in order], NAMES, [encode(picture(k)) for k in order], **arrays)


@pytest.mark.parametrize("images", [None, 30, 7])
def test_frames_of_a_sequence_stay_in_one_part(tmp_path: Path, images: int | None) -> None:
    parts = all_parts(load(f"npz:{clips(tmp_path / 'clips.npz')}", images=images))
    held = []
    for part in parts:
        assert part.sequence is not None and part.frame is not None
        numbers = number_of(part.pixels)
        assert part.sequence.tolist() == [CLIPS[k] for k in numbers]
        assert part.frame.tolist() == [k % 4 if k < 48 else -1 for k in numbers]
        counts = part.sequence[part.sequence >= 0].bincount()
        assert set(counts.tolist()) <= {0, 4}  # whole sequences
        held += part.sequence[part.sequence >= 0].unique().tolist()
    assert len(held) == len(set(held))
    assert images is None or 0 < len(parts[0]) <= images
    assert len(parts[2]) > 0 and len(parts[1]) > 0


def test_units_and_their_first_rows() -> None:
    unit, first = units(torch.tensor([7, -1, 2, 7, -1, 2, 2]), 7)
    assert unit.tolist() == [0, 1, 2, 0, 3, 2, 2] and first.tolist() == [0, 1, 2, 4]
    assert [x.tolist() for x in units(None, 3)] == [[0, 1, 2]] * 2


def test_a_cap_counts_images_not_sequences() -> None:
    label, size = torch.zeros(6).long(), torch.tensor([5, 1, 2, 9, 3, 4])
    for most in range(5, 24):
        chosen = spread(label, most, 0, size)
        assert len(chosen) >= 1 and (int(size[chosen].sum()) <= most or len(chosen) == 1)
    assert spread(label, 24, 0, size).tolist() == list(range(6))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"frame": None}, "sequence and frame belong together, it has only sequence"),
        ({"sequence": [0] * 59}, "sequence must be 60 whole numbers from -1"),
        ({"frame": [0.5] * 60}, "frame must be 60 whole numbers from -1"),
        ({"sequence": [-2] * 60}, "sequence must be 60 whole numbers from -1"),
    ],
)
def test_bad_times_in_packs_are_refused(tmp_path: Path, more: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        load(f"npz:{clips(tmp_path / 'clips.npz', **more)}")


# the world moves -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def film() -> torch.Tensor:
    """[64 animals, 8 frames, 3, 32, 32]"""
    return World(frames=8).images(torch.arange(512)).view(64, 8, 3, 32, 32).float()


def test_the_first_frame_is_the_still_picture(film: torch.Tensor) -> None:
    still = World().images(torch.arange(64)).float()
    assert float((film[:, 0] - still).abs().max()) <= 1  # the last bit may depend on the batch
    assert str(World(frames=8)).endswith(", seed=0, frames=8)") and "frames" not in str(World())


def test_animals_move_little_by_little_and_not_back_at_once(film: torch.Tensor) -> None:
    by_gap = [(film[:, gap:] - film[:, :-gap]).abs().mean() for gap in (1, 2, 3, 4)]
    assert all(a < b for a, b in pairwise(by_gap))
    others = (film[:, 0] - film[:, 0].roll(1, 0)).abs().mean()
    assert by_gap[0] < 0.6 * others
    assert (
        float((film[:, 1:] - film[:, :-1]).abs().mean((2, 3, 4)).min()) > 2.5
    )  # none stands still; noise alone is less


def test_noise_is_new_in_every_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Animals that are held still: what differs is the noise alone, a standard deviation of 0.02 twice over."""
    for movement in ("STEP_ASIDE", "STEP_UP", "SWAY", "APPROACH", "GAIT", "CLOUD"):
        monkeypatch.setattr(render, movement, 0.0)
    held = World(frames=4).images(torch.arange(64)).view(16, 4, 3, 32, 32).float()
    for gap in (1, 2, 3):
        difference = (held[:, gap:] - held[:, :-gap])[(held[:, gap:] > 10) & (held[:, gap:] < 245)]
        assert float(difference.std()) == pytest.approx(255 * 0.02 * 2**0.5, rel=0.1)


def test_identity_and_scene_persist(film: torch.Tensor) -> None:
    """The mean colours of two frames of an animal are far more alike than those of two animals."""
    mean = film.mean((3, 4))
    within, between = mean.var(1).mean(), mean.mean(1).var(0).mean()
    assert float(within) < 0.35 * float(between)


def test_sequences_of_the_world() -> None:
    splits = load("world(frames=8, families=2)", images=100)
    assert [len(part) for part in all_parts(splits)] == [100, 2000, 4000]
    for part in all_parts(splits):
        count = len(part)
        assert part.sequence.tolist() == [k // 8 for k in range(count)] and part.frame.tolist() == [
            k % 8 for k in range(count)
        ]
        assert part.label[::8].repeat_interleave(8)[:count].tolist() == part.label.tolist()
        assert int(part.label[::8].bincount().max() - part.label[::8].bincount().min()) <= 1
        chosen = neighbour_frames(part, torch.arange(96), 3, torch.rand(96))
        assert bool((chosen // 8 == torch.arange(96) // 8).all()) and not bool((chosen == torch.arange(96)).any())
    pictures = torch.cat([part.pixels[:96] for part in all_parts(splits)]).flatten(1)
    assert len(pictures.unique(dim=0)) == len(pictures)
    again = World(families=2, frames=8).images(torch.arange(100))
    assert torch.equal(splits.train.pixels, again)


def test_still_sets_have_no_time() -> None:
    assert load("world", images=4).train.sequence is None
    for source, says in (("world(frames=0)", "frames must be 1 to 64"), ("world(frames=65)", "frames must be 1 to 64")):
        with pytest.raises(ValueError, match=says):
            load(source, images=1)
