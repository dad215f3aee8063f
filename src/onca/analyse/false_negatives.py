"""False negatives of a space in one value: estimated without labels, and how well detectors find them."""

from __future__ import annotations

from dataclasses import dataclass

from onca.analyse.detectors import Calibrated, Detection, calibration, detectors
from onca.analyse.prior import LEAST, Prior, prior
from onca.analyse.space import Space


@dataclass(frozen=True)
class FalseNegatives:
    """prior: without labels. detections, calibration: (), where there are no labels, or no views for the latter. epoch:
    of the checkpoint, None where there is none."""

    epoch: float | None
    prior: Prior
    detections: tuple[Detection, ...] = ()
    calibration: tuple[Calibrated, ...] = ()


def false_negatives(space: Space, *, seed: int = 0) -> FalseNegatives | None:
    """What `prior`, `detectors` and `calibration` say of a space; None where it holds too few images."""
    if len(space) < LEAST:
        return None
    labelled = bool((space.label >= 0).any())
    return FalseNegatives(
        epoch=space.epoch,
        prior=prior(space, seed=seed),
        detections=tuple(detectors(space, seed=seed)) if labelled else (),
        calibration=tuple(calibration(space, seed=seed)) if labelled and space.views is not None else (),
    )
