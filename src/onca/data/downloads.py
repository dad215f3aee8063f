"""Data sets that torchvision knows: cifar10, cifar100 and stl10 (downloaded where there is internet), imagenet."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from onca.data.assemble import Raw
from onca.data.folders import read_folder
from onca.data.pictures import Array


@dataclass(frozen=True)
class Download:
    """A data set as torchvision stores it: name of its class there, its splits, and what to place by hand."""

    kind: str
    train: dict[str, object]
    test: dict[str, object]
    files: str
    holds: str


DOWNLOADS = {
    "cifar10": Download(
        "CIFAR10",
        {"train": True},
        {"train": False},
        "cifar-10-batches-py",
        "50,000 + 10,000 images of 32 px, 10 classes",
    ),
    "cifar100": Download(
        "CIFAR100",
        {"train": True},
        {"train": False},
        "cifar-100-python",
        "50,000 + 10,000 images of 32 px, 100 classes",
    ),
    "stl10": Download(
        "STL10",
        {"split": "train"},
        {"split": "test"},
        "stl10_binary",
        "5,000 + 8,000 labelled images of 96 px, 10 classes",
    ),
}


def home() -> Path:
    """Where downloads lie: the folder named by ONCA_DATA_HOME, else ~/.cache/onca."""
    return Path(os.environ.get("ONCA_DATA_HOME") or "~/.cache/onca").expanduser()


def read_download(name: str) -> dict[str, Raw]:
    """Training and test part of a data set that lies in `home()`, or is downloaded to there.

    Errors: ValueError that says what was tried and what to do.
    """
    import torchvision.datasets

    download = DOWNLOADS[name]
    make: Callable[..., Any] = getattr(torchvision.datasets, download.kind)
    return {part: _raw(name, make, options) for part, options in (("train", download.train), ("test", download.test))}


def read_imagenet() -> dict[str, Raw]:
    """ImageNet's folders train/<wnid> and val/<wnid> under `home()`/imagenet. Errors: ValueError where they are not."""
    folder = home() / "imagenet"
    if not (folder / "train").is_dir():
        raise ValueError(
            f"imagenet: there is no folder {folder / 'train'}, and ImageNet cannot be downloaded without an account at "
            f"image-net.org. Place its class folders in {folder}/train and {folder}/val (ONCA_DATA_HOME names another "
            "folder than the present one), or name the folder that holds train and val: folder:PATH"
        )
    return read_folder(folder)


def _raw(name: str, make: Callable[..., Any], options: dict[str, object]) -> Raw:
    data = _find(name, make, options)
    values = np.asarray(data.data)
    if values.shape[1] == 3:  # STL-10 is stored channels first
        values = values.transpose(0, 2, 3, 1)
    label = torch.as_tensor(np.asarray(getattr(data, "targets", None) or data.labels), dtype=torch.int64)
    names = tuple(data.classes)
    return Raw(Array(np.ascontiguousarray(values), name), label, names, {"class": (label, names)})


def _find(name: str, make: Callable[..., Any], options: dict[str, object]) -> Any:  # data, and targets or labels
    try:
        return make(str(home()), download=False, **options)
    except RuntimeError:  # torchvision's word for "not there, or not whole"
        pass
    try:
        return make(str(home()), download=True, **options)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"{name}: not in {home()}, and downloading it failed ({error}). Place {DOWNLOADS[name].files}/ in {home()} "
            f"(ONCA_DATA_HOME names another folder), or use the images from elsewhere: npz:PATH or folder:PATH"
        ) from error
