"""The rows of the page as a table: one for each negative that is shown of each image at each checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from onca.report.explorer.series import Checkpoint, Series, each


def write_table(series: Sequence[Series], path: Path) -> Path:
    """Write parquet: run, epoch, source, query, query_class, negative, negative_class, zone, rank, percentile,
    similarity, lca_depth, age and a column for each flag. query and negative are indices; what is not known is null.

    Raises:
        ValueError: pyarrow is not installed.
    """
    arrow, parquet = pyarrow()
    with parquet.ParquetWriter(path, _schema(arrow), compression="zstd") as writer:
        for name, checkpoint in each(series):
            writer.write_table(arrow.table(_columns(name, checkpoint), schema=_schema(arrow)))
    return path


def pyarrow() -> tuple[Any, Any]:
    """pyarrow and its parquet module."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as missing:
        raise ValueError('parquet needs pyarrow: pip install "onca[analysis]"') from missing
    return pyarrow, parquet


def _schema(arrow: Any) -> Any:
    text = arrow.dictionary(arrow.int32(), arrow.string())
    flags = ("same_class", "near_duplicate", "anti_correlated", "consistently_hard")
    kinds = {
        "run": text, "epoch": arrow.float64(), "source": text, "query": arrow.int64(), "query_class": text,
        "negative": arrow.int64(), "negative_class": text, "zone": text, "rank": arrow.int64(),
        "percentile": arrow.float64(), "similarity": arrow.float32(), "lca_depth": arrow.int64(), "age": arrow.int64(),
        **dict.fromkeys(flags, arrow.bool_()),
    }  # fmt: skip
    return arrow.schema(list(kinds.items()))


def _columns(name: str, checkpoint: Checkpoint) -> dict[str, Any]:
    space, found = checkpoint.space, checkpoint.entries
    known = found.known.numpy()
    query, negative = (found.known.nonzero()[:, 0].numpy(), found.row.numpy()[known])
    index, rank, count = space.index.numpy(), found.rank.numpy()[known], int(known.sum())
    kind = np.array([space.names[k] if k >= 0 else None for k in space.label.tolist()], dtype=object)
    zones = np.array([checkpoint.layout.zone_of(rank) for rank in range(checkpoint.layout.negatives)], dtype=object)
    unknown = np.full(count, -1)
    optional = {
        "lca_depth": unknown if checkpoint.depth is None else checkpoint.depth.numpy()[known],
        "age": unknown if checkpoint.ages is None else checkpoint.ages.pair.numpy()[known],
    }
    return {
        "run": [name] * count,
        "epoch": [space.epoch] * count,
        "source": [space.source] * count,
        "query": index[query],
        "query_class": kind[query],
        "negative": index[negative],
        "negative_class": kind[negative],
        "zone": zones[rank],
        "rank": rank,
        "percentile": checkpoint.percentile.numpy()[known],
        "similarity": found.similarity.numpy()[known],
        **{column: _or_null(values) for column, values in optional.items()},
        **{flag: values.numpy()[known] for flag, values in checkpoint.flags().items()},
    }


def _or_null(values: Any) -> Any:
    """Whole numbers with null in place of -1."""
    out = values.astype(object)
    out[values < 0] = None
    return out
