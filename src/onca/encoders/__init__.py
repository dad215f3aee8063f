"""Encoders by name: a backbone that turns images into features, and a head that turns features into embeddings."""

from onca.encoders.colour_split import ColourSplit, lab, ycbcr
from onca.encoders.encoder import Encoder, make
from onca.encoders.spaces import Spaces
from onca.encoders.split_norm import SplitBatchNorm2d, split_batch_norm

__all__ = ["ColourSplit", "Encoder", "Spaces", "SplitBatchNorm2d", "lab", "make", "split_batch_norm", "ycbcr"]
