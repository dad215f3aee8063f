"""What a trained space, or any embeddings, holds: section 4 of 2010.06682, and the floor that raw pixels give."""

from onca.analyse.agreement import Agreement, agreements
from onca.analyse.analysis import Analysis, read_analysis
from onca.analyse.classes import ClassPair, ClassPairs
from onca.analyse.consistency import HardFrequency
from onca.analyse.detectors import Calibrated, Detection, calibration, detectors
from onca.analyse.difficulty import Contrast
from onca.analyse.dots import Histogram
from onca.analyse.embed import embed
from onca.analyse.extremes import write_extremes
from onca.analyse.false_negatives import FalseNegatives, false_negatives
from onca.analyse.files import read_space
from onca.analyse.findings import Finding, findings
from onca.analyse.look import analyse
from onca.analyse.pixels import pixels
from onca.analyse.prior import Prior, Share, prior
from onca.analyse.record import Record, brief, read_record, write_record
from onca.analyse.space import Space, space
from onca.analyse.statistics import Interval
from onca.analyse.summary import summary

__all__ = [
    "Agreement",
    "Analysis",
    "Calibrated",
    "ClassPair",
    "ClassPairs",
    "Contrast",
    "Detection",
    "FalseNegatives",
    "Finding",
    "HardFrequency",
    "Histogram",
    "Interval",
    "Prior",
    "Record",
    "Share",
    "Space",
    "agreements",
    "analyse",
    "brief",
    "calibration",
    "detectors",
    "embed",
    "false_negatives",
    "findings",
    "pixels",
    "prior",
    "read_analysis",
    "read_record",
    "read_space",
    "space",
    "summary",
    "write_extremes",
    "write_record",
]
