"""Image packs: one .npz file of encoded images with labels, read and written without pickle.

Arrays of a pack: `data` uint8, all image files one after the other; `offsets` int64 [N+1], image i is
data[offsets[i]:offsets[i+1]]; `labels` int64 [N], -1 unknown, with `class_names`; any further `X_labels` with `X_names`
is a level of the hierarchy; `sequence` with `frame`, int64 [N], say which images follow each other in time, -1 none;
`wnids` is the WordNet id of each class.
The rest is ignored.
"""

import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onca.data.assemble import Raw
from onca.data.folders import read_folder
from onca.data.imageset import Levels
from onca.data.pictures import Bad, Files, Packed, read, readable

PARTS = ("train", "val", "test")
Arrays = dict[str, NDArray[Any]]


def read_packs(path: Path) -> dict[str, Raw]:
    """The parts of `npz:PATH`: a folder with train.npz and perhaps val.npz, test.npz; or one pack, all "train".

    Errors: ValueError naming file and cause.
    """
    files = {"train": path} if path.is_file() else _in_folder(path)
    parts = {part: read_pack(file) for part, file in files.items()}
    for part, file in files.items():
        _agree(files["train"], parts["train"], file, parts[part])
    return parts


def read_pack(path: Path) -> Raw:
    arrays = _arrays(path)
    if missing := [name for name in ("data", "offsets") if name not in arrays]:
        raise ValueError(
            f"{path} is no image pack: it has no array {missing[0]!r}. Make packs with: onca data pack FOLDER FILE"
        )
    data, offsets = arrays["data"], arrays["offsets"]
    if data.dtype != np.uint8 or data.ndim != 1 or offsets.ndim != 1 or not np.issubdtype(offsets.dtype, np.integer):
        raise ValueError(
            f"{path}: data must be uint8 and offsets integers, both of one dimension, "
            f"not {data.dtype} {data.shape} and {offsets.dtype} {offsets.shape}"
        )
    offsets = offsets.astype(np.int64)
    if len(offsets) < 1 or offsets[0] != 0 or offsets[-1] != len(data) or (np.diff(offsets) < 0).any():
        raise ValueError(f"{path}: offsets must start at 0, never fall and end at {len(data)}, the length of data")
    count = len(offsets) - 1
    label, names = torch.full((count,), -1), tuple[str, ...]()
    if "labels" in arrays or "class_names" in arrays:
        label, names = _level(arrays, "labels", "class_names", count, path)
    return Raw(
        Packed(data.astype(np.uint8, copy=False), offsets, path),
        label,
        names,
        _levels(arrays, label, names, path),
        *_times(arrays, count, path),
        wnids=_wnids(arrays, names, path),
    )


def pack(folder: str | Path, file: str | Path, *, bad: Bad = "refuse") -> dict[str, int]:
    """Pack the images of a folder (one sub-folder per class, or flat without labels), bytes unchanged.

    Returns the numbers of images, classes, skipped images and bytes. Every image is decoded once to see that it can be.
    A folder of train/val/test folders is packed part by part.
    Errors: ValueError for a damaged image, unless bad is "skip".
    """
    folder, file = Path(folder).expanduser(), Path(file).expanduser()
    if file.suffix != ".npz":
        raise ValueError(f"a pack's name ends in .npz, {file} does not")
    parts = read_folder(folder)
    if len(parts) > 1:
        raise ValueError(
            f"{folder} holds {' and '.join(parts)}: pack each into a file of its own, "
            f"{folder / 'train'} into train.npz and so on"
        )
    raw = parts["train"]
    assert isinstance(raw.pictures, Files)
    places, skipped = list(range(len(raw.label))), tuple[str, ...]()
    if bad == "skip":
        places, skipped = readable(raw.pictures, places, None)
    blobs = []
    for place in places:
        read(raw.pictures, place, None)
        blobs.append(raw.pictures.paths[place].read_bytes())
    arrays: Arrays = {
        "data": np.frombuffer(b"".join(blobs), dtype=np.uint8),
        "offsets": np.cumsum([0, *map(len, blobs)], dtype=np.int64),
        "source_names": np.array(
            [raw.pictures.paths[place].relative_to(folder).as_posix() for place in places], dtype=np.str_
        ),
    }
    if raw.names:
        arrays |= {"labels": raw.label[places].numpy(), "class_names": np.array(raw.names, dtype=np.str_)}
    _write(file, arrays)
    return {"images": len(places), "classes": len(raw.names), "skipped": len(skipped), "bytes": len(arrays["data"])}


def _in_folder(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ValueError(f"there is no pack and no folder {folder}")
    files = {part: folder / f"{part}.npz" for part in PARTS if (folder / f"{part}.npz").is_file()}
    if "train" in files:
        return files
    packs = sorted(folder.glob("*.npz"))
    if len(packs) == 1:
        return {"train": packs[0]}
    if not packs:
        raise ValueError(f"{folder} holds no .npz file. A folder of image files is folder:{folder}")
    found = ", ".join(file.name for file in packs)
    raise ValueError(f"{folder} has no train.npz. Name one of its packs, npz:{folder}/FILE.npz: {found}")


def _arrays(path: Path) -> Arrays:
    """Every array of the archive, each unpacked once: every access to an open archive unpacks again."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it is a single array")
            return {name: archive[name] for name in archive.files}
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise ValueError(f"{path} is cut off or damaged ({error}): copy it again") from error
    except ValueError as error:  # pickled objects, which would run code when loaded, or no numpy file at all
        raise ValueError(f"{path} is no image pack ({error}). Make packs with: onca data pack FOLDER FILE") from error


def _levels(arrays: Arrays, label: Tensor, names: tuple[str, ...], path: Path) -> Levels:
    levels = {"class": (label, names)} if names else {}
    for key in arrays:
        level = key.removesuffix("_labels")
        if level != key and f"{level}_names" in arrays:
            levels[level] = _level(arrays, key, f"{level}_names", len(label), path)
    return dict(sorted(levels.items(), key=lambda item: len(item[1][1])))


def _level(arrays: Arrays, labels: str, class_names: str, count: int, path: Path) -> tuple[Tensor, tuple[str, ...]]:
    if labels not in arrays or class_names not in arrays:
        raise ValueError(f"{path}: {labels} and {class_names} belong together, one of them is missing")
    values, names = arrays[labels], tuple(str(name) for name in arrays[class_names].tolist())
    if values.shape != (count,) or not np.issubdtype(values.dtype, np.integer):
        raise ValueError(f"{path}: {labels} must be {count} integers, one an image, not {values.dtype} {values.shape}")
    if count and not -1 <= values.min() <= values.max() < len(names):
        worst = int(np.flatnonzero((values < -1) | (values >= len(names)))[0])
        raise ValueError(
            f"{path}: {labels}[{worst}] is {values[worst]}, but {class_names} has {len(names)} names "
            f"(0 to {len(names) - 1}; -1 is unknown)"
        )
    return torch.from_numpy(values.astype(np.int64)), names


def _times(arrays: Arrays, count: int, path: Path) -> tuple[Tensor | None, Tensor | None]:
    """Sequence and frame of each image. Errors: ValueError where one is missing or no list of whole numbers."""
    held = [name for name in ("sequence", "frame") if name in arrays]
    if not held:
        return None, None
    if len(held) == 1:
        raise ValueError(f"{path}: sequence and frame belong together, it has only {held[0]}")
    for name in held:
        values = arrays[name]
        if values.shape != (count,) or not np.issubdtype(values.dtype, np.integer) or (values < -1).any():
            raise ValueError(
                f"{path}: {name} must be {count} whole numbers from -1 (none), one an image, "
                f"not {values.dtype} {values.shape}"
            )
    return torch.from_numpy(arrays["sequence"].astype(np.int64)), torch.from_numpy(arrays["frame"].astype(np.int64))


def _wnids(arrays: Arrays, names: tuple[str, ...], path: Path) -> tuple[str, ...]:
    found = tuple(str(wnid) for wnid in arrays.get("wnids", np.empty(0)).tolist())
    if found and len(found) != len(names):
        raise ValueError(f"{path}: {len(found)} wnids and {len(names)} class_names: there must be as many")
    return found


def _agree(file: Path, first: Raw, other_file: Path, other: Raw) -> None:
    """Errors: ValueError naming the first class that differs between two packs."""
    levels, others = (
        {"class": (first.label, first.names), **first.levels},
        {"class": (other.label, other.names), **other.levels},
    )
    if set(levels) != set(others):
        raise ValueError(
            f"{file} has the levels {', '.join(levels)}, {other_file} has {', '.join(others)}: they must be the same"
        )
    for level, (_, names) in levels.items():
        other_names = others[level][1]
        for k in range(max(len(names), len(other_names))):
            ours, theirs = names[k : k + 1], other_names[k : k + 1]
            if ours != theirs:
                raise ValueError(
                    f"names of level {level!r} differ: number {k} is {_quote(ours)} in {file} and {_quote(theirs)} in "
                    f"{other_file}. Both packs must list the same classes in the same order"
                )


def _quote(name: tuple[str, ...]) -> str:
    return repr(name[0]) if name else "missing"


def _write(file: Path, arrays: Arrays) -> None:
    """Whole or not at all: a pack that was cut off never has the name of a pack."""
    partial = file.with_name(file.name + ".partial")
    try:
        with partial.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]  # mypy sees that a name might be allow_pickle; none is
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
