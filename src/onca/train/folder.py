"""The folder of a run: what run.json holds, who may write there."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import MISSING, asdict
from pathlib import Path
from typing import Any

from onca.train.checkpoint import write_json
from onca.train.run import FREE, Run


def load_run(folder: Path) -> Run:
    """The run whose folder this is.

    Raises:
        ValueError: no such folder, or one that holds no run.
    """
    path = folder / "run.json"
    if not path.is_file():
        raise ValueError(f"{folder} is no run's folder: there is no run.json in it")
    try:
        record = json.loads(path.read_text())
        return Run(**{**record, "runs": str(folder.parent)})
    except (json.JSONDecodeError, TypeError) as problem:
        raise ValueError(f"{path} does not describe a run of this version: {problem}") from problem


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """What a resumed run must not change and did: "lr: 0.12 there, 0.06 here", empty where nothing."""
    keys = [key for key in {**old, **new} if key not in FREE and old.get(key, MISSING) != new.get(key, MISSING)]
    return "; ".join(f"{key}: {old.get(key, 'absent')!r} there, {new.get(key, 'absent')!r} here" for key in keys)


def record(run: Run) -> None:
    """Writes run.json; over an older one only where nothing but epochs and runs differs.

    Raises:
        ValueError: the folder holds a run with another configuration.
    """
    path = run.folder / "run.json"
    if path.exists():
        different = changes(json.loads(path.read_text()), asdict(run))
        if different:
            raise ValueError(f"{run.folder} holds a run with another configuration ({different})")
    write_json(path, asdict(run))


def refuse_new(run: Run) -> None:
    """Says why there is nothing to resume: how the most similar run in the same folder differs.

    Raises:
        ValueError: always.
    """
    others = [json.loads(path.read_text()) for path in sorted(Path(run.runs).glob("*/run.json"))]
    if not others:
        raise ValueError(f"nothing to resume: no run in {run.runs}; leave --resume out to start")
    differences = [changes(other, asdict(run)) for other in others]
    closest = min(range(len(others)), key=lambda place: differences[place].count(" there, "))
    raise ValueError(
        f"nothing to resume: no run with this configuration in {run.runs}; the most similar one differs in "
        f"{differences[closest]}. A resumed run may change only epochs; leave --resume out to start a new one"
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Holds the folder for this process. The lock ends with the process, however it ends.

    Raises:
        ValueError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"another process is at work in {folder}: wait for it, or choose another --runs") from None
        yield
