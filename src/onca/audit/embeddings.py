"""The audit of nothing but embeddings: each row is a query, and all the others are its negatives. N rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from onca.audit.check import between, graded, percent, report
from onca.audit.collapse import Collapse
from onca.audit.copies import MANY, NearDuplicates
from onca.audit.finding import Finding
from onca.audit.interval import wilson
from onca.audit.labels import SameLabel
from onca.audit.sight import sight
from onca.neighbours import neighbours
from onca.objectives import infonce
from onca.pool import pool

if TYPE_CHECKING:
    from onca.analyse import Space

CLOSE = 0.2  # of what three quarters of the rows are closer to their nearest than
AT_ONCE = 64  # queries of a look


def audit_embeddings(
    path: str | Path,
    labels: str | Path | None = None,
    queries: int = 2000,
    watch: Callable[[int, int], None] | None = None,
) -> list[Finding]:
    """Near-duplicates by embedding, same-label share by difficulty, collapse, rows without a direction.

    path, labels: as `onca.analyse.read_space` takes them. queries: rows that are looked at, spread evenly. watch:
    called with the queries that are done and all of them.

    Raises:
        ValueError: a file that cannot be read, counts that differ.
    """
    from onca.analyse import read_space  # here, because it needs the packages of data and training

    broken = Finding("broken rows", "fine", "every row has a direction: none holds nan or inf, none is all zero")
    try:
        space = read_space(path, labels=labels)
    except ValueError as problem:
        space = read_space(path, labels=labels, bad="drop")  # raises again where it is not for such rows
        said = str(problem).partition(": mend")[0]
        why = "a row without a direction has the same cosine with all, or none; they were left out here"
        remedy = 'onca.analyse.read_space(path, bad="drop"), or mend what wrote them'
        broken = Finding("broken rows", "alarm", said, why=why, remedy=remedy, unit="rows")
    return [broken, *space_findings(space, queries, watch)]


def space_findings(space: Space, queries: int = 2000, watch: Callable[[int, int], None] | None = None) -> list[Finding]:
    """What is found in a space, each row against all others."""
    if len(space) < 2:
        return [Finding("near-duplicates", "unknown", f"there is {len(space)} row, and nothing to compare it with")]
    groups, place = twins(space.rows), torch.arange(len(space))
    checks = (NearDuplicates(), SameLabel(), Collapse())
    wanted = place[:: -(-len(space) // queries)]
    for number, rows in enumerate(torch.split(wanted, AT_ONCE)):
        made = pool(
            space.rows[rows],
            None,
            space.rows,
            label=space.label[rows],
            negative_label=space.label,
            index=rows,
            negative_index=place,
            normalize=False,
        )
        look = sight(made, infonce, number + 1, None, len(rows), groups)
        for check in checks[:2]:
            check.see(look)
        if watch:
            watch(min((number + 1) * AT_ONCE, len(wanted)), len(wanted))
    whole = pool(space.rows[wanted], None, space.rows[:1], normalize=False)
    checks[2].see(sight(whole, infonce, 1, None, 1, None))
    return [finding for check in checks for finding in check.findings()]


def twins(rows: Tensor) -> Tensor:
    """The group of each unit row [N,D]: rows that are joined by being each other's nearest or nearly so, int64 [N].

    Two rows are joined where one is the nearest of the other, at less than a fifth of the distance within which three
    quarters of the rows find theirs: encoders differ in how far apart they put different images, so that no cosine
    serves all of them.
    """
    from onca.data.duplicates import components

    place = torch.arange(len(rows))
    found = neighbours(rows, rows, 1, exclude=place)
    distance = (2 - 2 * found.score[:, 0].double()).clamp_min(0).sqrt()
    usual = distance.quantile(0.75) if len(distance) < 2**24 else distance[:: len(distance) >> 20].quantile(0.75)
    near = distance <= CLOSE * usual
    return components(len(rows), torch.stack([place[near], found.row[near, 0]], 1))


def twin_finding(rows: Tensor) -> Finding:
    """How many images have a twin in the space of an encoder: unit rows [N,D], one an image."""
    groups = twins(rows)
    sizes = groups.bincount()[groups]
    found = wilson(int((sizes > 1).sum()), len(sizes))
    said = f"{between(found)} of {len(sizes)} images have another at less than a fifth of the usual distance"
    largest = percent(int(sizes.max()) / len(sizes))
    said += f"; the largest group holds {largest} of them"
    why = "to the encoder they are one image: the same photograph, or what it cannot tell apart"
    remedy = "onca data duplicates SOURCE; chain(drop(near_duplicate), infonce)"
    return report(
        "alike to the encoder",
        graded(False, found.low > MANY),
        said,
        found,
        len(sizes),
        "images",
        why=why,
        remedy=remedy,
    )
