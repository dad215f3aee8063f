"""Embeddings of images from a file: what an encoder of one's own, trained elsewhere and frozen, says of them."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

REMEDY = (
    "give one row for each image of the part that trains, in its order, or a .npz whose array `index` names the image "
    "of each row of its array `embeddings`"
)


def read_embeddings(path: Path, images: Tensor) -> Tensor:
    """Rows float32 [n,F] of the images with these indices (int64 [n]).

    A .npy [M,F]: row i is that of the image whose index is i, its place in the part of the data that trains
    (train.npz, say, whatever was left out of it). A .npz: the same in its array `embeddings`, or, with an array
    `index` [M], the rows of the images named there.

    Raises:
        ValueError: no such file, no rows of finite numbers, or an image without a row.
    """
    rows, index = _arrays(path)
    if rows.ndim != 2 or rows.dtype.kind not in "fiu":
        raise ValueError(f"{path}: embeddings must be numbers [M,F], one row an image, not {rows.dtype} {rows.shape}")
    place = images
    if index is not None:
        place = _places(path, index, len(rows), images)
    elif len(images) and int(images.max()) >= len(rows):
        raise ValueError(f"{path} has {len(rows)} rows and none for the image of index {int(images.max())}: {REMEDY}")
    found = torch.from_numpy(rows[place.numpy()].astype(np.float32))
    finite = found.isfinite().all(1)
    if not bool(finite.all()):
        raise ValueError(f"{path}: row {int(place[~finite][0])} of the embeddings is not finite")
    return found


def _places(path: Path, index: NDArray[Any], count: int, images: Tensor) -> Tensor:
    """In which rows these images stand."""
    if index.shape != (count,) or index.dtype.kind not in "iu":
        raise ValueError(f"{path}: index must be {count} integers, one a row, not {index.dtype} {index.shape}")
    known = torch.from_numpy(index.astype(np.int64))
    order = known.argsort()
    place = torch.searchsorted(known[order], images).clamp_max(max(count - 1, 0))
    missing = images[known[order][place] != images] if count else images
    if len(missing):
        raise ValueError(
            f"{path} has no row for {len(missing)} images, first that of index {int(missing[0])}: {REMEDY}"
        )
    return order[place]


def _arrays(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None]:
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return loaded, None
        with loaded as archive:
            if "embeddings" not in archive.files:
                held = ", ".join(archive.files) or "nothing"
                raise ValueError(f"it holds {held}, and no array `embeddings`")
            return archive["embeddings"], archive["index"] if "index" in archive.files else None
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise ValueError(
            f'{path} cannot be read as embeddings ({error}): name "descriptors", a .npy or a .npz file'
        ) from None
