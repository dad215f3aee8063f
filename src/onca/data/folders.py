"""Folders of image files: one sub-folder per class, or flat without labels; perhaps within train, val, test."""

from pathlib import Path

import torch

from onca.data.assemble import Raw
from onca.data.pictures import SUFFIXES, Files

PARTS = {"train": "train", "val": "val", "validation": "val", "test": "test"}  # name of a folder -> the part it is


def read_folder(path: Path) -> dict[str, Raw]:
    """The parts of `folder:PATH`: its sub-folders train, val and test if there are any, else all of it as "train".

    Classes are the names of the sub-folders in sorted order, of all parts together.
    Errors: ValueError naming folder and cause.
    """
    if not path.is_dir():
        raise ValueError(f"there is no folder {path}")
    folders = {PARTS[child.name]: child for child in _folders(path) if child.name in PARTS}
    if "train" not in folders:
        folders = {"train": path}
    names = tuple(sorted({child.name for folder in folders.values() for child in _folders(folder)}))
    return {part: _read(folder, names) for part, folder in folders.items()}


def _read(folder: Path, names: tuple[str, ...]) -> Raw:
    paths = _images(folder)
    label = torch.full((len(paths),), -1)
    if names:
        if paths:
            raise ValueError(
                f"{folder} has images ({paths[0].name} ...) beside sub-folders ({names[0]} ...): "
                "either put every image into the sub-folder of its class, or have no sub-folders"
            )
        by_class = [_images(folder / name) for name in names]
        paths = [path for images in by_class for path in images]
        label = torch.arange(len(names)).repeat_interleave(torch.tensor([len(images) for images in by_class]))
    if not paths:
        raise ValueError(
            f"{folder} holds no image ({', '.join(sorted(SUFFIXES))}), neither itself nor in one sub-folder per class"
        )
    return Raw(Files(tuple(paths)), label, names, {"class": (label, names)} if names else {})


def _folders(path: Path) -> list[Path]:
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _images(path: Path) -> list[Path]:
    if not path.is_dir():  # a class that this part does not have
        return []
    return sorted(
        child for child in path.iterdir() if child.suffix.lower() in SUFFIXES and not child.name.startswith(".")
    )
