"""The command line, generated from the functions below and from `Run`. Python can call every verb as well."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from onca import cli_analyse, cli_audit, cli_data, cli_explore, cli_train
from onca import train as training
from onca.engine import engine as use
from onca.explain import table
from onca.part import nearest

if TYPE_CHECKING:
    from onca.study import Grid, Outcome

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130  # exit codes besides 0


def study(
    name: tyro.conf.Positional[str],
    preset: Literal["demo", "small", "paper"] = "demo",
    ask: str | None = None,
    data: str | None = None,
    host: Literal["moco", "simclr"] = "moco",
    seeds: int | tuple[int, ...] | None = None,
    runs: str = "runs",
    dry_run: bool = False,
    workers: int | None = None,
    epochs: int | None = None,
    images: int | None = None,
    encoder: str | None = None,
    batch: int | None = None,
    queue: int | None = None,
) -> int:
    """Compare conditions with replicates, and report verdicts.

    cai2020 repeats a paper's claims; methods sets all methods side by side.

    What is done is skipped, what was cut off goes on: give the same command again.

    For example:
      onca study cai2020
      onca study cai2020 --preset demo --data npz:../data/cifar100 --seeds 5
      onca study methods --preset demo
      onca study methods --ask looc
      onca study cai2020 --preset paper --dry-run

    Args:
        name: of the study: cai2020 (2010.06682, are all negatives created equal?), methods (all of them, at equal
            compute).
        preset: demo (minutes on two cores), small (one GPU, hours), paper (its setting).
        ask: one of the further questions of the study methods: classes, crop, precision,
            time, looc, cause, curricula, memory, frames.
        data: another source of images than the preset's.
        host: moco or simclr.
        seeds: replicates: 3 means seeds 0, 1, 2 (None: as many as the study takes).
        runs: folder in which runs and the study's folder are made.
        dry_run: only say what would be run, and what it costs.
        workers: runs side by side (None: one a core, or one on a GPU).
        epochs: another number than the preset's; so are the following.
        images: at most so many training images.
        encoder: another encoder.
        batch: another batch size.
        queue: another length of MoCo's queue.
    """
    from onca import study as studies  # here, so that the other verbs start without scipy and the chart library

    asked = {"epochs": epochs, "images": images, "encoder": encoder, "batch": batch, "queue": queue}
    changes: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    plan = studies.grid(name, preset, data, host, seeds, runs, ask, **changes)
    if dry_run:
        print(studies.describe(plan, workers))
        return 0
    todo = studies.unfinished(plan)
    try:
        with studies.StudyBar(f"{name} {preset}", len(todo)) as bar:
            outcome = studies.run_study(plan, bar, workers)
    except KeyboardInterrupt:
        _write(plan, studies.gather(plan))
        raise training.Interrupted("stopped, with checkpoints. To go on, give the same command again") from None
    _write(plan, outcome)
    if outcome.failures:
        print(f"onca: {len(outcome.failures)} of {len(todo)} runs failed; see {plan.folder / 'logs'}", file=sys.stderr)
    return FAILED if outcome.failures else 0


def report(folder: tyro.conf.Positional[str]) -> Path:
    """Write the page of a run, a study or an analysis anew.

    For example:
      onca report runs/3f2a90c417de
      onca report runs/cai2020-demo-0b1c2d3e
      onca report vectors

    Args:
        folder: of a run, of a study, or one that onca analyse --out filled.
    """
    from onca import report as pages

    place = Path(folder)
    if (place / "run.json").exists():
        page = pages.run_page(place)
    elif (place / "analysis.json").exists():
        page = pages.analysis_page(place)
    else:
        page = pages.write_study(place, pages.read_study(place))
    print(page)
    return page


def explain(
    method: tyro.conf.Positional[str], engine: Literal["auto", "torch", "native", "triton"] = "auto", epoch: float = 0.0
) -> int:
    """Show which engine serves which part of a method.

    kth finds a rank; lse and mean sum; count, rows and hits are of sets.

    For example:
      onca explain "chain(keep(hardest(5)), infonce)"
      onca explain "hcl(beta=1)" --engine torch

    Args:
        method: an expression.
        engine: what is asked to serve.
        epoch: at which schedules are looked at.
    """
    with use(engine):
        print(table(method, epoch))
    return 0


VERBS: dict[str, Callable[..., Any]] = {
    "train": cli_train.train,
    "evaluate": cli_train.evaluate,
    "study": study,
    "analyse": cli_analyse.analyse,
    "audit": cli_audit.audit,
    "explore": cli_explore.explore,
    "report": report,
    "explain": explain,
    "data list": cli_data.list_all,
    "data sheet": cli_data.sheet,
    "data pack": cli_data.pack_folder,
    "data duplicates": cli_data.duplicates,
}
"""What stands after `onca`: one word or two."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and gives its exit code: 0; 1 something failed; 2 bad input; 130 interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    warnings.showwarning = _show_warning
    verb = next((verb for verb in (" ".join(given[:2]), *given[:1]) if verb in VERBS), None)
    if verb is None:
        return _help(given)
    try:
        result = tyro.cli(
            VERBS[verb],
            prog=f"onca {verb}",
            args=given[len(verb.split()) :],
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff, tyro.conf.PositionalMetavarFromFieldName),
        )
    except KeyboardInterrupt as stopped:
        print(f"onca: {stopped or 'interrupted'}", file=sys.stderr)
        return INTERRUPTED
    except (ValueError, OSError) as problem:
        print(f"onca: {problem}", file=sys.stderr)
        return BAD_INPUT
    return result if isinstance(result, int) else 0


def _help(given: Sequence[str]) -> int:
    """What `onca` and `onca --help` print; for a verb that is not known, what was meant."""
    words = [word for word in given if not word.startswith("-")]
    if words and words != ["data"]:
        print(f"onca: no command {' '.join(words[:2])!r}; {nearest(words[0], VERBS)}", file=sys.stderr)
        return BAD_INPUT
    print("usage: onca COMMAND ...\n\nA workbench for the negatives and positives of contrastive learning.\n")
    for verb, function in VERBS.items():
        print(f"  {verb:<16}{(function.__doc__ or '').splitlines()[0]}")
    print("\n`onca COMMAND --help` shows examples and every flag. Start with:\n  onca study cai2020")
    return 0


def _write(plan: Grid, outcome: Outcome) -> None:
    """Writes the study's files and prints the verdicts and where the report is."""
    if not outcome.rows:
        return
    from onca import report as pages

    inside = plan.inside
    if inside is not None and (inside.folder / "analysis").exists() and not (inside.folder / pages.EXPLORER).exists():
        cli_explore.explore(inside.folder)
    result = pages.StudyResult(**vars(outcome))
    page = pages.write_study(plan.folder, result)
    for line in result.spoken():
        print(line)
    print(page)


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    print(f"onca: {message}", file=sys.stderr)
