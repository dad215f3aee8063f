"""Encoders by name: a backbone that turns images into features, and a head that turns features into embeddings."""

from onca.encoders.encoder import Encoder, make
from onca.encoders.split_norm import SplitBatchNorm2d, split_batch_norm

__all__ = ["Encoder", "SplitBatchNorm2d", "make", "split_batch_norm"]
