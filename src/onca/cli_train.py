"""The commands that train an encoder, and evaluate it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

from onca import train as training
from onca.train import Run
from onca.train.assemble import check

if TYPE_CHECKING:
    from onca.audit import Audit
    from onca.data import Splits


def train(
    run: Annotated[Run, tyro.conf.arg(name="")] = Run(),  # noqa: B008 - frozen, and tyro shows its defaults
    resume: bool = False,
    save_every: float = 60.0,
    audit: bool = False,
    ledger: bool = False,
    snapshots: int | None = None,
) -> dict[str, Any]:
    """Train an encoder, and evaluate it once after the last epoch.

    RUNS/<hash> receives run.json, metrics.jsonl, checkpoint/ and result.json.

    For example:
      onca train
      onca train --data cifar100 --method "chain(keep(hardest(5)), infonce)"
      onca train --host simclr --temperature 0.2 --epochs 20
      onca train --epochs 20 --resume
      onca train --epochs 20 --audit --ledger --snapshots 5

    Args:
        run: what to train.
        resume: go on with a run that was cut off, or with more --epochs.
        save_every: seconds between checkpoints inside an epoch.
        audit: look who the negatives are while it trains; RUN/audit.json.
        ledger: keep a sampled record of what was contrasted with what, in
            RUN/ledger.
        snapshots: keep the encoders' weights every so many epochs, in RUN/snapshots.
    """
    observers = Observers(run, audit, ledger)
    with training.Bar(run.name) as bar:
        result = training.train(
            run,
            resume=resume,
            save_seconds=save_every,
            watch=bar,
            data=observers.data,
            observers=observers.all,
            snapshots=snapshots,
        )
    if result["linear_top1"] is None:
        print("trained; the images have no labels to evaluate with: try onca evaluate RUN --on DATA")
    else:
        accuracies = {"linear top-1": "linear_top1", "top-5": "linear_top5", "kNN": "knn_top1"}
        print(", ".join(f"{words} {result[name]:.2f} %" for words, name in accuracies.items()))
        print(f"on {result['images']} images of the {result['split']} part")
    observers.report()
    print(f"{result['seconds']:.0f} s: {run.folder}")
    return result


def evaluate(
    run: tyro.conf.Positional[str],
    on: str | None = None,
    level: str | None = None,
    split: Literal["test", "validation"] = "test",
    layer: Literal["backbone", "head", "spaces"] = "backbone",
) -> dict[str, Any]:
    """Evaluate a trained encoder by kNN and a linear probe.

    Features are frozen. Prints the numbers and adds them to RUN/evaluations.jsonl.

    For example:
      onca evaluate runs/3f2a90c417de --on npz:../data/cifar10
      onca evaluate runs/3f2a90c417de --level genus

    Args:
        run: folder of a run.
        on: another data source than the run's own; its training part fits the probe.
        level: another level of the labels' hierarchy.
        split: what is classified: test for reporting, validation for choosing.
        layer: whose features: backbone, head (the embedding), spaces (the heads of a LooC run: LooC++).
    """
    found = training.evaluate(run, on=on, level=level, split=split, layer=layer)
    with (Path(run) / "evaluations.jsonl").open("a") as file:
        file.write(json.dumps(found) + "\n")
    print(json.dumps(found, indent=2))
    return found


class Observers:
    """What looks on while a run trains, as flags ask for it."""

    def __init__(self, run: Run, audit: bool, ledger: bool) -> None:
        self.run = run
        self.all: list[training.Observer] = []
        self.audit: Audit | None = None
        self.data: Splits | None = None  # loaded here where the audit needs it before training does
        if ledger:
            from onca.ledger import Ledger

            self.all.append(Ledger(run.folder / "ledger", seed=run.seed, epochs=run.epochs))
        if audit:
            from onca.analyse.progress import progress
            from onca.audit import of_run

            check(run)
            self.data = training.load_data(run)
            with progress("looking for near-duplicates", "images") as watch:
                self.audit = of_run(run, self.data, watch)
            self.all.append(self.audit)

    def report(self) -> None:
        """Prints what the audit has found, if it has seen a step."""
        if self.audit is None or self.data is None or not self.audit.seen:
            return
        from onca.audit import finish, text

        print(text(finish(self.audit, self.run, self.data)))
