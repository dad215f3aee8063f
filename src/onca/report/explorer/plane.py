"""Spaces laid out flat. N images, D dimensions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Kind = Literal["pca", "umap"]


@dataclass(frozen=True, eq=False)
class Plane:
    """A point for each image, float32 [N,2], and in words what the axes are."""

    points: Tensor
    axes: str


def planes(spaces: Sequence[Tensor], kind: Kind = "pca") -> list[Plane]:
    """Rows [N,D] of the same images in several spaces, each turned (and mirrored) to lie on the one before it.

    Raises:
        ValueError: another kind, or umap-learn is not installed.
    """
    if kind not in ("pca", "umap"):
        raise ValueError(f'a map is "pca" or "umap"; got {kind!r}')
    found: list[Plane] = []
    for rows in spaces:
        plane = pca(rows) if kind == "pca" else umap(rows)
        points = onto(plane.points, found[-1].points) if found else plane.points
        found.append(Plane(points, plane.axes))
    return found


def pca(rows: Tensor) -> Plane:
    """The two directions in which the rows vary most."""
    centred = rows.double() - rows.double().mean(0)
    variance, direction = torch.linalg.eigh(centred.T @ centred)  # ascending
    best = direction[:, -2:].flip(1)
    best = best * best.gather(0, best.abs().argmax(0, keepdim=True)).sign()
    share = 100 * float(variance[-2:].sum() / variance.sum().clamp_min(1e-300))
    return Plane((centred @ best).float(), f"two principal components, {share:.0f} % of the variance")


def umap(rows: Tensor) -> Plane:
    """UMAP (1802.03426) by cosine, from seed 0."""
    try:
        from umap import UMAP  # type: ignore[import-not-found,unused-ignore]  # only some have it
    except ImportError as missing:
        raise ValueError('map="umap" needs a package: pip install umap-learn; map="pca" needs none') from missing
    points = UMAP(metric="cosine", random_state=0, n_neighbors=min(15, len(rows) - 1)).fit_transform(rows.numpy())
    return Plane(torch.from_numpy(points).float(), "UMAP: only who is near whom means something")


def onto(points: Tensor, other: Tensor) -> Tensor:
    """The points, centred and turned or mirrored as lies nearest to the other ones (orthogonal Procrustes)."""
    points, other = points - points.mean(0), other - other.mean(0)
    left, _, right = torch.linalg.svd(points.double().T @ other.double())
    turned: Tensor = points.double() @ left @ right
    return turned.float()
