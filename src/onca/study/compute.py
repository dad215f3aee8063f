"""What a run computes, in forward passes of an encoder, so that methods can be compared at equal compute."""

from __future__ import annotations

from dataclasses import replace

from onca.train import Run
from onca.views import Crop, as_crop

TRAINED = 3  # a backward pass costs two forward passes


def units(run: Run) -> int:
    """Forward passes of an encoder per image and step: a view that is trained on counts 3, any other 1.

    ===========  ==========================================================
    moco         one query (two if symmetric), as many keys
    simclr       two trained views
    npid         one trained view; its bank stands for keys
    cmc          one trained view in each of two encoders
    looc         one query, a key for each space and one for all
    ===========  ==========================================================

    Every support view is one pass more, whatever the host. What rules and losses cost is not counted.
    """
    trained, keys = {
        "moco": (2, 2) if run.symmetric else (1, 1),
        "simclr": (2, 0),
        "npid": (1, 0),
        "cmc": (2, 0),
        "looc": (1, len(run.kept) + 1),
    }[run.host]
    return TRAINED * trained + keys + run.support


def passes(run: Run) -> int:
    """Forward passes per training image in the whole run, with those in which crops look for their boxes."""
    return _passes(units(run), as_crop(run.crop), run.epochs)


def _passes(each: int, crop: Crop, epochs: int) -> int:
    return each * epochs + sum(crop.locates(epoch) for epoch in range(1, epochs))


def at_equal_compute(run: Run, base: Run) -> Run:
    """The run with as many epochs as come nearest to the compute of `base`, one at least; of two, the fewer."""
    wanted, each, crop = passes(base), units(run), as_crop(run.crop)
    lengths = range(1, max(1, -(-wanted // each)) + 1)
    return replace(run, epochs=min(lengths, key=lambda epochs: abs(_passes(each, crop, epochs) - wanted)))


def share(run: Run, base: Run) -> float:
    """The compute of a run as a share of that of `base`, on as many images."""
    return passes(run) / passes(base)
