"""Embeddings of any encoder, from a file. N rows, D dimensions, C classes."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from onca.analyse.space import Space, space
from onca.data import ImageSet
from onca.data.hierarchy import hierarchy_of

Array = NDArray[Any]

SUFFIXES = (".npy", ".npz", ".parquet")


def read_space(
    path: str | Path,
    *,
    labels: str | Path | None = None,
    hierarchy: str | None = None,
    images: ImageSet | None = None,
    bad: Literal["refuse", "drop"] = "refuse",
) -> Space:
    """A space of the embeddings in a file.

    .npy      [N,D]
    .npz      `embeddings` [N,D], and what there is of `labels` [N] (numbers or text), `names` [C], `index` [N],
              `wnids` [C]
    .parquet  a column `embedding` of lists of numbers, and what there is of `label` (numbers or text) and `index`

    Args:
        labels: a file of labels for them: .npy, .npz (`labels`, `names`) or text, a label a line (numbers or names).
            -1 and an empty line are unknown.
        hierarchy: as `onca.data.hierarchy.hierarchy_of` takes it.
        images: the images that they are of, by `index` (else in their order); their labels hold where none are given.
        bad: rows without a direction (nan, inf, all zero): "refuse" or "drop" them.

    Raises:
        ValueError: a file that cannot be read so, counts that differ, a row without a direction.
    """
    found = _arrays(Path(path))
    embeddings = found.get("embeddings", np.empty(0))
    if embeddings.ndim != 2 or embeddings.dtype.kind not in "fiu":
        raise ValueError(f"{path}: embeddings must be numbers [N,D]; they are {embeddings.dtype} {embeddings.shape}")
    if labels is not None:
        found = {**_without(found, "labels", "names", "wnids"), **_labels(Path(labels))}
    index = torch.from_numpy(found["index"].astype(np.int64)) if "index" in found else None
    if images is not None:
        images = _matched(str(path), images, index, len(embeddings))
        index = images.index
    label, names = _classes(found, images)
    if hierarchy is not None and not names:
        raise ValueError(f"{path} has no labels, so that a hierarchy of classes says nothing: give labels too")
    wnids = [str(wnid) for wnid in found.get("wnids", np.empty(0)).tolist()]
    same = images is not None and names == images.names
    return space(
        torch.from_numpy(embeddings.astype(np.float32)),
        label,
        names,
        index=index,
        bad=bad,
        source=str(path),
        images=images,
        hierarchy=hierarchy_of(hierarchy, names, wnids=wnids, images=images if same else None) if names else None,
    )


def _arrays(path: Path) -> dict[str, Array]:
    if path.suffix not in SUFFIXES:
        raise ValueError(f"{path} cannot be read as embeddings: give one of {', '.join(SUFFIXES)}")
    if path.suffix == ".parquet":
        return _parquet(path)
    found = _numpy(path, "embeddings")
    if "embeddings" not in found:
        raise ValueError(f"{path} holds {', '.join(found) or 'nothing'}, and no array `embeddings`")
    return found


def _numpy(path: Path, name: str) -> dict[str, Array]:
    """The arrays of a .npz, or the one of a .npy under `name`."""
    try:
        loaded = np.load(path, allow_pickle=False)
        if isinstance(loaded, np.ndarray):
            return {name: loaded}
        with loaded as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as problem:
        raise ValueError(f"{path} cannot be read ({problem}): give a .npy or a .npz file without pickles") from None


def _parquet(path: Path) -> dict[str, Array]:
    try:
        import pyarrow.parquet as parquet
        from pyarrow import ArrowException
    except ImportError:
        raise ValueError(f'{path}: reading parquet needs pyarrow: pip install "onca[analysis]"') from None
    try:
        table = parquet.read_table(path)
    except (OSError, ArrowException) as problem:
        raise ValueError(f"{path} cannot be read as parquet ({problem})") from None
    if "embedding" not in table.column_names:
        raise ValueError(f"{path} has the columns {', '.join(table.column_names)}, and none called `embedding`")
    rows = table["embedding"].to_pylist()
    if len({len(row) for row in rows if row is not None}) != 1 or None in rows:
        raise ValueError(f"{path}: the lists in column `embedding` must all be there and of one length")
    named = {"label": "labels", "index": "index"}
    columns = {to: np.array(table[name].to_pylist()) for name, to in named.items() if name in table.column_names}
    return {"embeddings": np.array(rows, dtype=np.float32), **columns}


def _labels(path: Path) -> dict[str, Array]:
    if path.suffix in (".npy", ".npz"):
        found = _numpy(path, "labels")
        if "labels" not in found:
            raise ValueError(f"{path} holds {', '.join(found) or 'nothing'}, and no array `labels`")
        return {name: found[name] for name in ("labels", "names", "wnids") if name in found}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as problem:
        raise ValueError(f"{path} cannot be read as labels ({problem}): give .npy, .npz or a label a line") from None
    numbers = all(line.strip().lstrip("-").isdecimal() for line in lines)
    return {"labels": np.array([int(line) if numbers else line.strip() for line in lines])}


def _classes(found: dict[str, Array], images: ImageSet | None) -> tuple[Tensor | None, tuple[str, ...]]:
    """Labels int64 [N] and names of the classes; text becomes classes in the order of the alphabet."""
    if "labels" not in found:
        return (None, ()) if images is None else (images.label, images.names)
    labels = found["labels"]
    names = tuple(str(name) for name in found.get("names", np.empty(0)).tolist())
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise ValueError(f"labels must be whole numbers or text, one a row; they are {labels.dtype} {labels.shape}")
    if labels.dtype.kind == "U":
        names = names or tuple(sorted({*labels.tolist()} - {""}))
        return torch.tensor(_numbered(labels.tolist(), names)), names
    if not names and images is not None and len(labels) and int(labels.max()) < len(images.names):
        names = images.names
    return torch.from_numpy(labels.astype(np.int64)), names or tuple(map(str, range(int(labels.max(initial=-1)) + 1)))


def _numbered(labels: Sequence[str], names: Sequence[str]) -> list[int]:
    places = {name: place for place, name in enumerate(names)} | {"": -1}
    unknown = next((label for label in labels if label not in places), None)
    if unknown is not None:
        raise ValueError(f"label {unknown!r} is none of the {len(names)} names")
    return [places[label] for label in labels]


def _matched(path: str, images: ImageSet, index: Tensor | None, count: int) -> ImageSet:
    """The images of the rows, by index or by order."""
    if index is None:
        if len(images) != count:
            raise ValueError(
                f"{path} has {count} rows for {len(images)} images of {images.source}: say which by `index`"
            )
        return images
    order = images.index.argsort()
    place = torch.searchsorted(images.index[order], index).clamp_max(len(order) - 1)
    missing = index[images.index[order][place] != index]
    if len(missing):
        raise ValueError(f"{path}: {images.source} has no image of index {int(missing[0])} ({len(missing)} such rows)")
    return images.subset(order[place])


def _without(found: dict[str, Array], *names: str) -> dict[str, Array]:
    return {name: value for name, value in found.items() if name not in names}
