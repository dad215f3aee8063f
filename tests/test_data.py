"""Sources, packs and folders: which image ends up where, and what bad input says."""

import hashlib
import io
import os
import pickle
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from onca.data import ImageSet, list_sources, load, pack, sheet
from onca.data import assemble as assembling
from onca.data.pictures import BadImage
from onca.data.split import part, spread

REAL = Path(os.environ.get("ONCA_DATA", Path(__file__).parents[2] / "shared" / "data"))


def picture(number: int, size: int = 8) -> NDArray[np.uint8]:
    """A picture that says its number: red holds number % 256, green number // 256, blue is a gradient."""
    pixels = np.zeros((size, size, 3), dtype=np.uint8)
    pixels[..., 0], pixels[..., 1] = number % 256, number // 256
    pixels[..., 2] = np.linspace(0, 255, size).astype(np.uint8)
    return pixels


def number_of(pixels: torch.Tensor) -> list[int]:
    """The numbers that [n,3,H,W] pictures say."""
    return (pixels[:, 0, 0, 0].long() + 256 * pixels[:, 1, 0, 0].long()).tolist()


def encode(pixels: NDArray[np.uint8], kind: str = "png") -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def write_pack(
    path: Path, label: list[int], names: list[str], blobs: list[bytes] | None = None, **more: object
) -> Path:
    """A pack of these labels; `more` adds arrays, replaces them, or leaves them out (None)."""
    blobs = [encode(picture(k)) for k in range(len(label))] if blobs is None else blobs
    arrays = {
        "data": np.frombuffer(b"".join(blobs), np.uint8),
        "offsets": np.cumsum([0, *map(len, blobs)]),
        "labels": np.array(label),
        "class_names": np.array(names),
        **more,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    return path


def all_parts(splits: object) -> list[ImageSet]:
    return [getattr(splits, name) for name in ("train", "validation", "test")]


ABC = [0] * 30 + [1] * 20 + [2] * 10  # sorted by class, as many packs are
NAMES = ["ant", "bee", "cat"]


# which image ends up where -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "files", [("train",), ("train", "test"), ("train", "val"), ("train", "val", "test"), ("only",)]
)
def test_parts_of_a_pack_folder(tmp_path: Path, files: tuple[str, ...]) -> None:
    for k, name in enumerate(files):
        blobs = [encode(picture(1000 * k + i)) for i in range(len(ABC))]
        write_pack(tmp_path / f"{name}.npz", ABC, NAMES, blobs)
    train, validation, test = all_parts(load(f"npz:{tmp_path}"))
    for images in (train, validation, test):
        numbers = number_of(images.pixels)
        assert [n % 1000 for n in numbers] == images.index.tolist()  # the index is the position in its file
        assert images.label.tolist() == [ABC[k] for k in images.index]
    file_of = [{n // 1000 for n in number_of(images.pixels)} for images in (train, validation, test)]
    expected = {
        ("train",): [{0}, {0}, {0}],
        ("only",): [{0}, {0}, {0}],
        ("train", "test"): [{0}, {0}, {1}],
        ("train", "val"): [{0}, {0}, {1}],
        ("train", "val", "test"): [{0}, {1}, {2}],
    }
    assert file_of == expected[files]
    from_train = [images.index for images, file in zip((train, validation, test), file_of, strict=True) if file == {0}]
    assert sorted(torch.cat(from_train).tolist()) == list(range(60))  # all of it, nothing twice
    if len(files) == 1:
        assert test.label.bincount().tolist() == [6, 4, 2]  # a fifth of each class
        assert validation.label.bincount().tolist() == [2, 2, 1]  # a tenth of the 24, 16, 8 that are left
    elif len(files) == 2:
        assert validation.label.bincount().tolist() == [3, 2, 1]


def test_what_is_carved_out_depends_on_the_seed_only(tmp_path: Path) -> None:
    path = write_pack(tmp_path / "all.npz", ABC, NAMES)
    index = [load(f"npz:{path}", seed=seed).test.index.tolist() for seed in (0, 0, 1)]
    assert index[0] == index[1] != index[2]


def test_fewer_images_are_spread_over_the_classes(tmp_path: Path) -> None:
    path = write_pack(tmp_path / "all.npz", ABC, NAMES)
    whole, some, other = (load(f"npz:{path}", images=n, seed=s) for n, s in ((None, 0), (11, 0), (11, 1)))
    assert len(some.train) == 11 and set(some.train.index.tolist()) < set(whole.train.index.tolist())
    expected = whole.train.label.bincount() * 11 / len(whole.train)
    assert float((some.train.label.bincount() - expected).abs().max()) <= 1
    assert some.train.index.tolist() != other.train.index.tolist()
    assert torch.equal(some.test.index, whole.test.index) and torch.equal(some.validation.index, whole.validation.index)
    assert len(load(f"npz:{path}", images=10_000).train) == len(whole.train)


def test_the_first_classes(tmp_path: Path) -> None:
    path = write_pack(tmp_path / "all.npz", ABC, NAMES)
    whole, some = load(f"npz:{path}"), load(f"npz:{path}", classes=2)
    parts = ("train", "validation", "test")
    for name in parts:
        images = getattr(some, name)
        assert images.names == tuple(NAMES[:2]) and set(images.label.tolist()) == {0, 1}
    shared = sum(len(getattr(some, name)) for name in parts)
    everything = torch.cat([getattr(whole, name).label for name in parts])
    assert shared == int((everything < 2).sum())
    assert len(load(f"npz:{path}", classes=2, images=5).train) == 5
    for classes in (1, len(NAMES) + 1):
        with pytest.raises(ValueError, match=f"classes={classes}: npz:.* has {len(NAMES)} classes"):
            load(f"npz:{path}", classes=classes)
    with pytest.raises(ValueError, match=r"classes=5: the classes of a world are its species, say world\("):
        load("world", classes=5)


def test_only_chosen_images_are_decoded(tmp_path: Path) -> None:
    good = write_pack(tmp_path / "good.npz", ABC, NAMES)
    chosen = {k for images in all_parts(load(f"npz:{good}", images=5)) for k in images.index.tolist()}
    blobs = [encode(picture(k)) if k in chosen else b"no image" for k in range(60)]
    write_pack(tmp_path / "bad.npz", ABC, NAMES, blobs)
    assert number_of(load(f"npz:{tmp_path}/bad.npz", images=5).train.pixels) == sorted(
        load(f"npz:{good}", images=5).train.index.tolist()
    )


def test_a_class_with_one_image_trains_and_is_said_once(tmp_path: Path) -> None:
    path = write_pack(tmp_path / "all.npz", [0] * 10 + [1] + [2] * 2, NAMES)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train, validation, test = all_parts(load(f"npz:{path}"))
    assert [str(w.message).count("1 classes have a single image ('bee'") for w in caught] == [1]
    assert (train.label == 1).sum() == 1 and not (torch.cat([validation.label, test.label]) == 1).any()
    assert (test.label == 2).sum() == 1  # of two images one tests
    write_pack(tmp_path / "pair" / "train.npz", [0, 0, 1, 2], NAMES)
    write_pack(tmp_path / "pair" / "val.npz", [0, 0], NAMES)
    write_pack(tmp_path / "pair" / "test.npz", [2], NAMES)  # a class may be missing in a part
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing needs two here
        assert len(load(f"npz:{tmp_path}/pair").train) == 4


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-1, 5), min_size=1, max_size=80), st.floats(0.05, 0.5), st.integers(0, 9))
def test_a_stratified_part_takes_its_share_of_each_class(labels: list[int], share: float, seed: int) -> None:
    label = torch.tensor(labels)
    taken = part(label, share, seed)
    for k in set(labels):
        of_class, got = labels.count(k), int(taken[label == k].sum())
        assert got == (0 if of_class == 1 else max(1, int(of_class * share + 0.5)))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-1, 5), min_size=1, max_size=80), st.integers(1, 90), st.integers(0, 9))
def test_a_spread_is_proportional(labels: list[int], most: int, seed: int) -> None:
    label = torch.tensor(labels)
    rows = spread(label, most, seed).tolist()
    assert rows == sorted(set(rows)) and len(rows) == min(most, len(labels))
    for k in set(labels):
        assert abs(sum(labels[r] == k for r in rows) - labels.count(k) * len(rows) / len(labels)) <= 6


# levels, sizes, memory -----------------------------------------------------------------------------


def test_levels_are_ordered_by_their_number_of_names(tmp_path: Path) -> None:
    more = {
        "fine_labels": np.arange(60),
        "fine_names": np.array([f"f{k}" for k in range(60)]),
        "coarse_labels": np.array([0] * 30 + [1] * 30),
        "coarse_names": np.array(["early", "late"]),
        "noisy_labels": np.zeros(60, np.int8),  # without names: no level
        "odd_names": np.array(["without labels"]),
    }
    train = load(f"npz:{write_pack(tmp_path / 'all.npz', ABC, NAMES, **more)}").train
    assert list(train.levels) == ["coarse", "class", "fine"]
    assert train.levels["class"][1] == train.names == tuple(NAMES)
    assert torch.equal(train.levels["class"][0], train.label) and torch.equal(train.levels["fine"][0], train.index)
    assert train.levels["coarse"][0].tolist() == [int(k >= 30) for k in train.index]


def test_a_pack_without_labels(tmp_path: Path) -> None:
    path = write_pack(tmp_path / "all.npz", ABC, NAMES, labels=None, class_names=None)
    train, validation, test = all_parts(load(f"npz:{path}"))
    assert (len(train), len(validation), len(test)) == (43, 5, 12) and not train.names and not train.levels
    assert (train.label == -1).all()


def test_images_are_brought_to_size_as_pillow_does_it(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 40, 64, 3), dtype=np.uint8)
    blobs = [encode(noise[0]), encode(noise[1, :, :40]), encode(noise[2, :20, :20]), encode(noise[3, :16, :16])]
    write_pack(tmp_path / "train.npz", [0] * 4, ["it"], blobs)
    write_pack(tmp_path / "test.npz", [0] * 4, ["it"], blobs)
    test = load(f"npz:{tmp_path}", size=16).test
    squares = [noise[0, :, 12:52], noise[1, :, :40], noise[2, :20, :20], noise[3, :16, :16]]
    for got, square in zip(test.pixels, squares, strict=True):
        want = np.asarray(Image.fromarray(np.ascontiguousarray(square)).resize((16, 16), Image.Resampling.LANCZOS))
        assert np.abs(got.permute(1, 2, 0).numpy().astype(int) - want).max() <= 1
    with pytest.raises(ValueError, match=r"images differ in size: .* pixels, others .*--size"):
        load(f"npz:{tmp_path}")


def test_grey_and_palette_images_become_rgb(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(8, dtype=np.uint8) * 30, (8, 1))
    blobs = [encode(ramp), encode(ramp, "jpeg"), encode(np.dstack([ramp] * 3)), encode(ramp, "gif")]
    write_pack(tmp_path / "train.npz", [0] * 4, ["it"], blobs)
    write_pack(tmp_path / "test.npz", [0] * 4, ["it"], blobs)
    for image in load(f"npz:{tmp_path}").test.pixels:
        assert np.abs(image.numpy().astype(int) - ramp).max() <= 4  # JPEG may lose a little


def test_what_does_not_fit_is_decoded_when_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_pack(tmp_path / "all.npz", ABC, NAMES)
    eager = load(f"npz:{path}", size=6).train
    monkeypatch.setattr(assembling, "MEMORY", 0)
    lazy = load(f"npz:{path}", size=6).train
    assert lazy.pixels is None and lazy.shape == eager.shape == (6, 6) and len(lazy) == len(eager)
    rows = torch.tensor([5, 0, 5, 30])
    assert torch.equal(lazy.take(rows), eager.take(rows))
    for images in (lazy, eager):
        subset = images.subset(rows)
        assert torch.equal(subset.index, images.index[rows]) and torch.equal(subset.label, images.label[rows])
        assert torch.equal(subset.take(torch.tensor([1])), eager.take(torch.tensor([0])))
        assert torch.equal(subset.levels["class"][0], subset.label)


def test_an_image_set_checks_what_it_is_given() -> None:
    pixels, label, index = torch.zeros(2, 3, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), torch.arange(2)
    ImageSet(pixels, label, index, ("a", "b"), {}, "here")
    for bad, says in (
        ((pixels.float(), label, index, ("a", "b"), {}, "here"), "must be uint8"),
        ((pixels, label, index, ("a",), {}, "here"), "labels 0 to 1, but there are 1 names"),
        ((pixels, label[:1], index, ("a", "b"), {}, "here"), "2 images, 1 labels"),
        ((None, label, index, ("a", "b"), {}, "here"), "either pixels or undecoded"),
    ):
        with pytest.raises(ValueError, match=says):
            ImageSet(*bad)


# folders and packing -------------------------------------------------------------------------------


def write_folder(folder: Path, classes: dict[str, int], start: int = 0) -> None:
    for name, count in classes.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for k in range(count):
            (folder / name / f"{k:03}.png").write_bytes(encode(picture(start + k)))


def test_a_folder_of_classes(tmp_path: Path) -> None:
    write_folder(tmp_path, {"bee": 10, "ant": 20})
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "ant" / "notes.txt").write_text("no image")
    parts = all_parts(load(f"folder:{tmp_path}"))
    assert parts[0].names == ("ant", "bee")
    assert [images.label.bincount().tolist() for images in parts] == [[14, 7], [2, 1], [4, 2]]
    for images in parts:  # index = place among all files in order, and the file's number starts again with each class
        assert number_of(images.pixels) == [k if k < 20 else k - 20 for k in images.index.tolist()]


def test_a_flat_folder_has_no_labels(tmp_path: Path) -> None:
    write_folder(tmp_path, {".": 10})
    train, validation, test = all_parts(load(f"folder:{tmp_path}"))
    assert (len(train), len(validation), len(test)) == (7, 1, 2) and train.names == () and (train.label == -1).all()


def test_a_folder_of_parts_shares_its_classes(tmp_path: Path) -> None:
    write_folder(tmp_path / "train", {"cat": 3, "ant": 3})
    write_folder(tmp_path / "val", {"cat": 2, "bee": 1}, start=100)
    splits = load(f"folder:{tmp_path}")
    assert splits.test.names == splits.train.names == ("ant", "bee", "cat")
    assert splits.test.label.tolist() == [1, 2, 2] and number_of(splits.test.pixels) == [100, 100, 101]
    assert sorted([*splits.train.index.tolist(), *splits.validation.index.tolist()]) == list(range(6))


def test_packing_a_folder_keeps_bytes_and_pictures(tmp_path: Path) -> None:
    folder, file = tmp_path / "pictures", tmp_path / "pictures.npz"
    write_folder(folder, {"bee": 10, "ant": 20})
    assert pack(folder, file) == {"images": 30, "classes": 2, "skipped": 0, "bytes": file_bytes(folder)}
    with np.load(file, allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for k, name in enumerate(arrays["source_names"]):
        blob = arrays["data"][arrays["offsets"][k] : arrays["offsets"][k + 1]].tobytes()
        assert blob == (folder / str(name)).read_bytes()
    for packed, loose in zip(all_parts(load(f"npz:{file}")), all_parts(load(f"folder:{folder}")), strict=True):
        assert torch.equal(packed.pixels, loose.pixels) and torch.equal(packed.label, loose.label)
        assert packed.names == loose.names and torch.equal(packed.index, loose.index)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "pictures",
        "pictures.npz",
    ]  # nothing half-written is left


def file_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*.png"))


def test_packing_bad_folders(tmp_path: Path) -> None:
    write_folder(tmp_path / "two" / "train", {"ant": 2})
    write_folder(tmp_path / "two" / "test", {"ant": 2})
    write_folder(tmp_path / "one", {"ant": 3})
    (tmp_path / "one" / "ant" / "001.png").write_bytes(b"")
    with pytest.raises(ValueError, match="pack each into a file of its own"):
        pack(tmp_path / "two", tmp_path / "two.npz")
    with pytest.raises(ValueError, match=r"ends in \.npz"):
        pack(tmp_path / "one", tmp_path / "one.zip")
    with pytest.raises(BadImage, match=r"001\.png cannot be decoded \(the file is empty\)"):
        pack(tmp_path / "one", tmp_path / "one.npz")
    assert not list(tmp_path.glob("*.npz*"))
    assert pack(tmp_path / "one", tmp_path / "one.npz", bad="skip")["skipped"] == 1
    assert len(load(f"npz:{tmp_path}/one.npz").train) == 1


def test_a_sheet_shows_the_pictures(tmp_path: Path) -> None:
    write_folder(tmp_path / "pictures", {"ant": 20, "bee": 20})
    path = sheet(f"folder:{tmp_path}/pictures", tmp_path / "sheet.png", each=2)
    shown = {colour for _, colour in Image.open(path).convert("RGB").getcolors(1 << 20)}
    train = load(f"folder:{tmp_path}/pictures").train
    for label in (0, 1):
        for row in (train.label == label).nonzero().flatten()[:2]:
            assert tuple(train.pixels[row, :, 4, 4].tolist()) in shown
    for wrong in ({"path": tmp_path / "sheet.jpg"}, {"path": path, "each": 0}):
        with pytest.raises(ValueError, match=r"must end in \.png|at least 1"):
            sheet("world", **wrong)


# damaged files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("blob", "says"),
    [
        (b"", "the file is empty"),
        (b"no image at all", "cannot identify"),
        (encode(picture(1, 64), "jpeg")[:-300], "[Tt]runcated"),
    ],
)
def test_a_damaged_image_is_named_or_skipped(tmp_path: Path, blob: bytes, says: str) -> None:
    write_folder(tmp_path, {"ant": 20, "bee": 20})
    (tmp_path / "bee" / "004.png").write_bytes(blob)
    with pytest.raises(ValueError, match=rf"bee/004\.png cannot be decoded \(.*{says}.*bad='skip'"):
        load(f"folder:{tmp_path}")
    with pytest.warns(UserWarning, match=r"left out 1 images that cannot be decoded, the first is .*bee/004\.png"):
        splits = load(f"folder:{tmp_path}", bad="skip")
    assert [name for images in all_parts(splits) for name in images.skipped] == [str(tmp_path / "bee" / "004.png")]
    index = sorted(k for images in all_parts(splits) for k in images.index.tolist())
    assert index == [k for k in range(40) if k != 24]  # the others keep their identity


def test_a_png_with_a_flipped_byte_is_refused(tmp_path: Path) -> None:
    blob = bytearray(encode(np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)))
    blob[60] ^= 0xFF
    write_pack(tmp_path / "all.npz", [0], ["it"], [bytes(blob)])
    with pytest.raises(BadImage, match=r"image 0 of .*all\.npz cannot be decoded"):
        load(f"npz:{tmp_path}/all.npz")


def test_damaged_archives(tmp_path: Path) -> None:
    path = write_pack(tmp_path / "all.npz", ABC, NAMES)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"all\.npz is cut off or damaged"):
        load(f"npz:{path}")
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 0xFF
    path.write_bytes(flipped)
    with pytest.raises(ValueError, match=r"all\.npz is cut off or damaged"):
        load(f"npz:{path}")
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"all\.npz is cut off or damaged"):
        load(f"npz:{path}")
    np.savez(path, data=np.array([{"pickled": 1}], dtype=object), offsets=np.array([0]))
    with pytest.raises(ValueError, match=r"all\.npz is no image pack .*allow_pickle"):
        load(f"npz:{path}")
    path.write_bytes(pickle.dumps({"data": 1}))
    with pytest.raises(ValueError, match=r"all\.npz is no image pack"):
        load(f"npz:{path}")
    np.savez(path, something=np.zeros(3))
    with pytest.raises(ValueError, match=r"it has no array 'data'"):
        load(f"npz:{path}")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": np.array([0] * 59 + [3])}, r"labels\[59\] is 3, but class_names has 3 names"),
        ({"labels": np.array([-2] + [0] * 59)}, r"labels\[0\] is -2"),
        ({"labels": np.zeros(59, int)}, r"labels must be 60 integers"),
        ({"labels": np.zeros(60)}, r"labels must be 60 integers.*float64"),
        ({"class_names": None}, r"labels and class_names belong together"),
        ({"labels": None}, r"labels and class_names belong together"),
        ({"offsets": np.arange(61)}, r"offsets must start at 0, never fall and end at"),
        ({"offsets": np.zeros(0, int)}, r"offsets must start at 0"),
        ({"data": np.zeros((2, 2), np.uint8)}, r"data must be uint8 and offsets integers, both of one dimension"),
        ({"offsets": np.zeros(61)}, r"data must be uint8 and offsets integers.*float64"),
        ({"coarse_labels": np.full(60, 9), "coarse_names": np.array(["a"])}, r"coarse_labels\[0\] is 9"),
    ],
)
def test_bad_arrays_are_named(tmp_path: Path, change: dict[str, object], says: str) -> None:
    path = write_pack(tmp_path / "all.npz", ABC, NAMES, **change)
    with pytest.raises(ValueError, match=rf"all\.npz: {says}"):
        load(f"npz:{path}")


@pytest.mark.parametrize("fault", ["start", "fall", "end"])
def test_bad_offsets(tmp_path: Path, fault: str) -> None:
    blobs = [encode(picture(k)) for k in range(60)]
    offsets = np.cumsum([0, *map(len, blobs)])
    if fault == "start":
        offsets[0] = 1
    elif fault == "fall":
        offsets[[3, 4]] = offsets[[4, 3]]
    else:
        offsets[-1] += 1
    path = write_pack(tmp_path / "all.npz", ABC, NAMES, blobs, offsets=offsets)
    with pytest.raises(ValueError, match="offsets must start at 0, never fall and end at"):
        load(f"npz:{path}")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["ant", "wasp", "dog"], r"number 1 is 'bee' in .*train\.npz and 'wasp' in .*test\.npz"),
        (["ant", "bee", "cat", "dog"], r"number 3 is missing in .*train\.npz and 'dog' in .*test\.npz"),
    ],
)
def test_class_names_must_agree(tmp_path: Path, names: list[str], says: str) -> None:
    write_pack(tmp_path / "train.npz", ABC, NAMES)
    write_pack(tmp_path / "test.npz", ABC, names)
    with pytest.raises(ValueError, match=f"names of level 'class' differ: {says}"):
        load(f"npz:{tmp_path}")


def test_folders_without_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no pack and no folder .*nowhere"):
        load(f"npz:{tmp_path}/nowhere")
    with pytest.raises(ValueError, match=r"no folder .*nowhere"):
        load(f"folder:{tmp_path}/nowhere")
    with pytest.raises(ValueError, match=r"holds no \.npz file.*folder:"):
        load(f"npz:{tmp_path}")
    with pytest.raises(ValueError, match=r"holds no image \("):
        load(f"folder:{tmp_path}")
    for name in ("a", "b"):
        write_pack(tmp_path / f"{name}.npz", ABC, NAMES)
    with pytest.raises(ValueError, match=r"has no train\.npz\. Name one of its packs.*a\.npz, b\.npz"):
        load(f"npz:{tmp_path}")
    write_folder(tmp_path / "mixed", {".": 2, "ant": 2})
    with pytest.raises(ValueError, match=r"has images \(000\.png \.\.\.\) beside sub-folders \(ant"):
        load(f"folder:{tmp_path}/mixed")


# sources -------------------------------------------------------------------------------------------


def test_unknown_sources_offer_the_nearest(tmp_path: Path) -> None:
    for source, near in (("cifra10", "cifar10"), ("imagnet", "imagenet"), ("nzp:x", "npz:PATH"), ("npz", "npz:PATH")):
        with pytest.raises(ValueError, match=rf"unknown data source '{source}'.*Did you mean '{near}'\?"):
            load(source)
    write_pack(tmp_path / "train.npz", ABC, NAMES)
    (tmp_path / "images").mkdir()
    with pytest.raises(ValueError, match=re.escape(f"For the files there: npz:{tmp_path}")):
        load(str(tmp_path))
    with pytest.raises(ValueError, match=re.escape(f"For the files there: folder:{tmp_path}/images")):
        load(f"{tmp_path}/images")


@pytest.mark.parametrize(
    ("options", "says"), [({"size": 0}, "size=0"), ({"images": 0}, "images=0"), ({"bad": "ignore"}, "bad='ignore'")]
)
def test_bad_options(options: dict[str, int], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load("world", **options)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "stl10"])
def test_no_download_says_what_to_do(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONCA_DATA_HOME", str(tmp_path))
    for proxy in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(proxy, "http://127.0.0.1:9")  # nobody listens on the discard port
    monkeypatch.delenv("no_proxy", raising=False)
    with pytest.raises(
        ValueError, match=rf"{name}: not in {tmp_path}, and downloading it failed \(.*npz:PATH or folder:"
    ):
        load(name)


def test_imagenet_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONCA_DATA_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"imagenet: there is no folder .*Place its class folders in"):
        load("imagenet")
    write_folder(tmp_path / "imagenet" / "train", {"n01": 20, "n02": 20})
    write_folder(tmp_path / "imagenet" / "val", {"n01": 2, "n02": 2})
    train, validation, test = all_parts(load("imagenet"))
    assert (len(train), len(validation), len(test)) == (36, 4, 4) and train.names == ("n01", "n02")
    assert {row.source: row.where for row in list_sources()}["imagenet"] == f"in {tmp_path}/imagenet"


def test_cifar_as_torchvision_stores_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import CIFAR10

    monkeypatch.setenv("ONCA_DATA_HOME", str(tmp_path))
    folder = tmp_path / CIFAR10.base_folder
    folder.mkdir()

    def store(file: str, content: dict[str, object]) -> str:
        (folder / file).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / file).read_bytes()).hexdigest()

    def batch(count: int, start: int) -> dict[str, object]:
        pictures = np.stack([picture(start + k, 32) for k in range(count)])
        labels = [k % 2 for k in range(count)]
        return {"data": pictures.transpose(0, 3, 1, 2).reshape(count, -1), "labels": labels}

    monkeypatch.setattr(CIFAR10, "train_list", [["one", store("one", batch(40, 0))]])
    monkeypatch.setattr(CIFAR10, "test_list", [["two", store("two", batch(6, 300))]])
    meta = {"filename": "meta", "key": "label_names", "md5": store("meta", {"label_names": ["even", "odd"]})}
    monkeypatch.setattr(CIFAR10, "meta", meta)
    train, validation, test = all_parts(load("cifar10"))
    assert (len(train), len(validation), len(test)) == (36, 4, 6) and train.names == ("even", "odd")
    for images, start in ((train, 0), (validation, 0), (test, 300)):
        assert number_of(images.pixels) == [start + k for k in images.index.tolist()]
        assert images.label.tolist() == [k % 2 for k in images.index.tolist()]
        assert images.pixels[0, 2, 0].tolist() == picture(0, 32)[0, :, 2].tolist()  # neither turned nor mirrored
    assert {row.source: row.where for row in list_sources()}["cifar10"] == f"in {tmp_path}"


def test_stl_as_torchvision_stores_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision.datasets import STL10

    monkeypatch.setenv("ONCA_DATA_HOME", str(tmp_path))
    folder = tmp_path / STL10.base_folder
    folder.mkdir()

    def store(file: str, content: bytes) -> list[str]:
        (folder / file).write_bytes(content)
        return [file, hashlib.md5(content).hexdigest()]

    def pictures(count: int) -> bytes:  # column by column, channel by channel
        return np.stack([picture(k, 96) for k in range(count)]).transpose(0, 3, 2, 1).tobytes()

    def labels(count: int) -> bytes:
        return bytes(1 + k % 2 for k in range(count))

    store("class_names.txt", b"even\nodd\n")
    train_list = [store("train_X.bin", pictures(20)), store("train_y.bin", labels(20)), store("unlabeled_X.bin", b"")]
    monkeypatch.setattr(STL10, "train_list", train_list)
    monkeypatch.setattr(STL10, "test_list", [store("test_X.bin", pictures(4)), store("test_y.bin", labels(4))])
    train, validation, test = all_parts(load("stl10"))
    assert (len(train), len(validation), len(test)) == (18, 2, 4) and train.names == ("even", "odd")
    assert number_of(test.pixels) == [0, 1, 2, 3] and test.label.tolist() == [0, 1, 0, 1]
    assert test.pixels[0, 2, 0].tolist() == picture(0, 96)[0, :, 2].tolist()


def test_every_source_is_listed() -> None:
    assert [row.source.split("(")[0].split(":")[0] for row in list_sources()] == [
        "world", "npz", "folder", "cifar10", "cifar100", "stl10", "imagenet"
    ]  # fmt: skip


# real packs ----------------------------------------------------------------------------------------


def real(folder: str) -> Path:
    if not (REAL / folder).is_dir():
        pytest.skip(f"no real data: there is no {REAL / folder} (ONCA_DATA names the folder)")
    return REAL / folder


@pytest.mark.realdata
def test_cifar100_pack() -> None:
    folder = real("cifar100")
    splits = load(f"npz:{folder}", images=2000)
    train = splits.train
    assert (len(train), len(splits.validation), len(splits.test)) == (2000, 5000, 10_000)
    assert train.label.bincount().tolist() == [20] * 100 and splits.validation.label.bincount().tolist() == [50] * 100
    assert [(level, len(names)) for level, (_, names) in train.levels.items()] == [("coarse", 20), ("class", 100)]
    with np.load(folder / "train.npz", allow_pickle=False) as archive:
        labels, coarse = archive["labels"], archive["coarse_labels"]
        data, offsets = archive["data"], archive["offsets"]
    assert train.label.tolist() == labels[train.index].tolist()
    assert train.levels["coarse"][0].tolist() == coarse[train.index].tolist()
    for row in (0, 999, 1999):
        place = int(train.index[row])
        image = Image.open(io.BytesIO(data[offsets[place] : offsets[place + 1]].tobytes())).convert("RGB")
        assert np.abs(np.asarray(image).astype(int) - train.pixels[row].permute(1, 2, 0).numpy()).max() <= 4
    mean = splits.test.pixels.float().mean((0, 2, 3)) / 255
    assert mean.tolist() == pytest.approx([0.507, 0.486, 0.441], abs=0.01)  # as the pack's page says of train


@pytest.mark.realdata
def test_tiny_imagenet_pack_is_sorted_and_holds_grey_images() -> None:
    splits = load(f"npz:{real('tinyimagenet_a')}", images=1000, size=32)
    assert splits.train.pixels.shape == (1000, 3, 32, 32) and splits.train.label.bincount().tolist() == [10] * 100
    assert len(splits.validation) == 2000 and len(splits.test) == 5000  # val.npz tests, validation is carved out
    grey = (splits.train.pixels[:, 0] == splits.train.pixels[:, 1]).all((1, 2)).sum()
    assert 3 <= int(grey) <= 50  # 367 of 20,000 are stored grey


@pytest.mark.realdata
def test_one_image_a_class_trains_only() -> None:
    with pytest.warns(UserWarning, match="1000 classes have a single image"):
        splits = load(f"npz:{real('imagenet1k_sample')}")
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (1000, 0, 0)
    assert splits.test.shape == splits.train.shape == (64, 64)
