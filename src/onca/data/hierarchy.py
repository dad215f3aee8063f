"""Hierarchies of classes: how deep the lowest common ancestor of two classes lies. C classes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """Depths of lowest common ancestors, the root at 0; -1 where a class is not in the hierarchy.

    depth_max   int64 [C,C]: a node's depth is its longest path to the root; of the common ancestors, the two classes
                among them, the deepest counts. The default of all analyses
    depth_min   int64 [C,C]: the same with shortest paths. The two differ where a node has several parents (WordNet)
    source      what it was made from
    """

    depth_max: Tensor
    depth_min: Tensor
    source: str

    @property
    def known(self) -> Tensor:
        """Which classes are in it, bool [C]."""
        return self.depth_max.diagonal() >= 0
