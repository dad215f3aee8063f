"""What frozen features are worth: nearest neighbours, a linear probe, and where the errors go."""

from onca.evaluate.assess import assess
from onca.evaluate.confusion import Confusion, confusions
from onca.evaluate.encode import features
from onca.evaluate.knn import knn, knn_top1
from onca.evaluate.linear import LinearProbe, linear_probe
from onca.evaluate.rotation import rotation_top1

__all__ = [
    "Confusion",
    "LinearProbe",
    "assess",
    "confusions",
    "features",
    "knn",
    "knn_top1",
    "linear_probe",
    "rotation_top1",
]
