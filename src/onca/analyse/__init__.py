"""What a trained space, or any embeddings, holds: section 4 of 2010.06682, and the floor that raw pixels give."""

from onca.analyse.space import Space, space

__all__ = ["Space", "space"]
