"""Parts of a ledger on disk: parquet files, each written whole and renamed into place."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow

COLUMNS = {
    "step": "int32",  # from 1
    "epoch": "float64",  # passes over the images before this step
    "pool": "text",  # its name
    "query": "int64",  # image; null: unknown
    "negative": "int64",  # image; null: unknown, or a mixed point
    "rank": "int32",  # 0 is the hardest of the entries that were there; null: takes part in no rank
    "percentile": "float64",  # 100 is the hardest; in window(low, high) when low <= percentile < high
    "similarity": "float32",  # cosine
    "weight": "float32",  # what the entry counts after all rules; null: the method does not say
    "gradient_share": "float32",  # of the sum of |d loss / d score| over the query's negatives
    "age": "int32",  # steps since the entry came into its memory; null: unknown
    "role": "text",  # memory, batch, same image, mixed, positive
    "flags": "words",  # of FLAGS
    "stands_for": "float32",  # entries of the query that this row stands for in the sample, itself included
}
"""What a ledger holds of each entry that it samples."""

FOLDER = "ledger"
NAME = re.compile(r"part-(\d{6})\.parquet")


def arrow() -> ModuleType:
    """pyarrow. Raises ValueError where it is not installed, saying how it is."""
    try:
        import_module("pyarrow.parquet")
        return import_module("pyarrow")
    except ImportError:
        raise ValueError('a ledger needs pyarrow: pip install "onca[analysis]"') from None


def read(folder: str | Path, columns: Sequence[str] | None = None) -> pyarrow.Table:
    """All rows of a ledger, in the order in which they were seen, as far as it is written.

    folder: of a run, or its `ledger`. columns: only those. A part that was cut off in mid-write is named in a warning
    and left out.

    Raises:
        ValueError: no ledger there, no part of it that can be read, a column that it does not have; no pyarrow.
    """
    place = Path(folder) / FOLDER if (Path(folder) / FOLDER).is_dir() else Path(folder)
    if unknown := [name for name in columns or () if name not in COLUMNS]:
        raise ValueError(f"a ledger has no column {unknown[0]}; it has {', '.join(COLUMNS)}")
    pa = arrow()
    found = parts(place)
    if not found:
        raise ValueError(f"{place} holds no ledger: train with --ledger to have one")
    tables, damaged = [], [path.name for path in sorted(place.glob("*.parquet.part"))]
    for path in found:
        try:
            tables.append(pa.parquet.read_table(path, columns=columns))
        except (pa.ArrowInvalid, OSError):
            damaged.append(path.name)
    if damaged:
        warnings.warn(f"{place}: cut off in mid-write and left out: {', '.join(damaged)}", stacklevel=2)
    if not tables:
        raise ValueError(f"{place}: none of its {len(found)} parts can be read; remove the folder, and train again")
    return pa.concat_tables(tables)


def parts(folder: Path) -> list[Path]:
    """The files of a ledger's parts, in order."""
    return sorted(path for path in folder.glob("part-*.parquet") if NAME.fullmatch(path.name))


def path_of(folder: Path, number: int) -> Path:
    return folder / f"part-{number:06d}.parquet"


def number_of(path: Path) -> int:
    return int(path.stem.removeprefix("part-"))


def read_part(path: Path) -> pyarrow.Table:
    """A part, with what it says of how it was made."""
    pa = arrow()
    table = pa.parquet.ParquetFile(path).read()
    return pa.table(table.columns, schema=schema(facts_of(path)))  # without what parquet adds to a schema of its own


def before(table: pyarrow.Table, step: int) -> pyarrow.Table:
    """The rows of earlier steps."""
    return table.slice(0, int((table["step"].to_numpy() < step).sum()))


def schema(facts: Mapping[str, str] | None = None) -> pyarrow.Schema:
    pa = arrow()
    kinds = {"text": pa.string(), "words": pa.list_(pa.string())}
    fields = [(name, kinds[kind] if kind in kinds else getattr(pa, kind)()) for name, kind in COLUMNS.items()]
    return pa.schema(fields, metadata=facts)


def empty(facts: Mapping[str, str]) -> pyarrow.Table:
    """A part without rows. facts: how it is made, in words."""
    return schema(facts).empty_table()


def extended(table: pyarrow.Table, rows: Sequence[Mapping[str, Any]]) -> pyarrow.Table:
    """The table and more rows: columns of arrays in which nan, or -1, is unknown."""
    pa = arrow()

    def column(field: pyarrow.Field, values: Any) -> pyarrow.Array:
        if isinstance(values, list) or values.dtype.kind == "U":
            return pa.array(values, field.type)
        unknown = np.isnan(values) if values.dtype.kind == "f" else values < 0
        return pa.array(values, mask=unknown).cast(field.type)

    shape = table.schema
    more = [pa.table([column(field, part[field.name]) for field in shape], schema=shape) for part in rows]
    return pa.concat_tables([table, *more]).combine_chunks()


def write_part(path: Path, table: pyarrow.Table) -> None:
    """Writes a part in one step: readers, and a crash, see the old file or the new one, nothing between.

    Raises:
        OSError: the disk refuses; what was there before is whole.
    """
    pa = arrow()
    beside = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with beside.open("wb") as file:
            pa.parquet.write_table(table, file, compression="zstd")
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def facts_of(path: Path) -> dict[str, str]:
    """What a part says of how it was made.

    Raises:
        ValueError: it cannot be read.
    """
    pa = arrow()
    try:
        found: dict[bytes, bytes] = pa.parquet.read_schema(path).metadata or {}
    except (pa.ArrowInvalid, OSError) as problem:
        raise ValueError(f"{path} cannot be read ({problem}); remove it to go on without its rows") from problem
    return {name.decode(): value.decode() for name, value in found.items()}
