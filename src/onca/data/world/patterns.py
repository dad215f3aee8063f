"""The coats: what family, genus and species mean as geometry.

A coat is two functions. The *field* of a genus says where its elements are: at each point of the skin -1 in the middle
of an element, 0 on its edge, positive outside. The *detail* of a species turns the field into ink: 0 is bare coat, 1 is
full pattern.
Lengths are in cells: elements stand about 1 apart. n images, P points.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

SIDE = 7  # sites repeat their disorder after so many rows and columns: more than a picture shows
FREE = 2 * SIDE * SIDE  # numbers in 0..1 that make each animal of a genus another one

Field = Callable[[Tensor, Tensor, Tensor], Tensor]  # u [n,P], v [n,P], free [n,FREE] -> field [n,P]
Detail = Callable[[Tensor, float], Tensor]  # field [n,P], width of a soft edge -> ink [n,P] in 0..1


# Spots: discs --------------------------------------------------------------------------------------


def scattered(u: Tensor, v: Tensor, free: Tensor) -> Tensor:
    return nearest_site(u, v, free, spacing=1.0, disorder=0.5).distance / 0.36 - 1


def ringed(u: Tensor, v: Tensor, free: Tensor) -> Tensor:
    """A disc with six small ones around it."""
    site = nearest_site(u, v, free, spacing=1.3, disorder=0.2)
    small = site.to_circle_of(6, radius=0.54, turn=free[:, :1]) + 0.2
    return torch.minimum(site.distance, small) / 0.33 - 1


def clustered(u: Tensor, v: Tensor, free: Tensor) -> Tensor:
    """Three discs that touch, then a gap."""
    site = nearest_site(u, v, free, spacing=1.35, disorder=0.2)
    return site.to_circle_of(3, radius=0.3, turn=free[:, :1]) / 0.25 - 1


def elongated(u: Tensor, v: Tensor, free: Tensor) -> Tensor:
    return scattered(1.5 * u, 0.6 * v, free)


# Stripes: lines ------------------------------------------------------------------------------------


def straight(u: Tensor, v: Tensor, free: Tensor) -> Tensor:
    return bands(u + 0.08 * torch.sin(3 * v + math.tau * free[:, :1]))


def concentric(u: Tensor, v: Tensor, free: Tensor) -> Tensor:
    return bands(torch.hypot(u - free[:, 0:1] + 0.5, v - free[:, 1:2] + 0.5) + free[:, 2:3])


def paired(u: Tensor, v: Tensor, free: Tensor) -> Tensor:
    """Two lines close together, then a gap."""
    across = (0.72 * u).remainder(1) - 0.5
    return (across.abs() - 0.19).abs() / 0.15 - 1


def zigzag(u: Tensor, v: Tensor, free: Tensor) -> Tensor:
    return bands(u + 1.6 * ((0.8 * v).remainder(1) - 0.5).abs())


def bands(across: Tensor) -> Tensor:
    """Lines 1 apart, at right angles to `across`."""
    return (across.remainder(1) - 0.5).abs() / 0.26 - 1


# Cells: plates with bare seams between them --------------------------------------------------------


def irregular(u: Tensor, v: Tensor, free: Tensor) -> Tensor:
    return plate(nearest_site(u, v, free, spacing=1.1, disorder=0.6))


def scaly(u: Tensor, v: Tensor, free: Tensor) -> Tensor:
    """Rows of round scales, each row lying over the next."""
    depth = torch.full_like(u, -1.0)
    for behind in (1, 0, -1):  # what is in front is drawn last
        row = (v / 0.55).floor() - behind
        x = (u - 0.5 * row.remainder(2)).remainder(1) - 0.5
        inside = 0.6 - torch.hypot(x, v - 0.55 * row - 0.1)
        depth = torch.where(inside > 0, inside, depth)
    return (0.09 - depth) / 0.3


def mixed(u: Tensor, v: Tensor, free: Tensor) -> Tensor:
    """Large plates among small ones."""
    return plate(nearest_site(u, v, free, spacing=0.95, disorder=0.2, lead=0.3))


def bricks(u: Tensor, v: Tensor, free: Tensor) -> Tensor:
    return irregular(1.5 * u, 0.6 * v, free)


def plate(site: "Site") -> Tensor:
    """The part of a Voronoi cell that is away from its border."""
    return (0.10 - (site.second - site.distance) / 2) / 0.3


# Blotches: without a shape of their own ------------------------------------------------------------


def islands(u: Tensor, v: Tensor, free: Tensor) -> Tensor:
    return 0.1 - waves(u, v, free)


def streaks(u: Tensor, v: Tensor, free: Tensor) -> Tensor:
    return 0.1 - waves(1.7 * u, 0.5 * v, free)


def labyrinth(u: Tensor, v: Tensor, free: Tensor) -> Tensor:
    return waves(u, v, free).abs() / 0.45 - 1


def marbled(u: Tensor, v: Tensor, free: Tensor) -> Tensor:
    return bands(0.8 * waves(0.7 * u, 0.7 * v, free) + 0.7 * u)


def waves(u: Tensor, v: Tensor, free: Tensor, count: int = 6) -> Tensor:
    """A few plane waves in all directions: smooth, mean 0, about 0.7 large."""
    total = torch.zeros_like(u)
    for wave in range(count):
        direction, rate, phase = (free[:, 3 * wave + k, None] for k in range(3))
        turn = math.pi * (wave + direction) / count
        rate = math.tau * (0.45 + 0.25 * rate)
        total += torch.cos(rate * (u * turn.cos() + v * turn.sin()) + math.tau * phase)
    return total / math.sqrt(count)


# Sites of spots and cells --------------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """For each point: distance to the nearest and the second nearest site, and the way from the nearest; all [n,P]."""

    distance: Tensor
    second: Tensor
    du: Tensor
    dv: Tensor

    def to_circle_of(self, count: int, radius: float, turn: Tensor) -> Tensor:
        """Distance to the nearest of `count` points that stand on a circle around the site."""
        sector = (torch.atan2(self.dv, self.du) / math.tau + turn) * count  # 1 = from one of the points to the next
        angle = math.tau / count * (sector.remainder(1) - 0.5)
        reach = torch.hypot(self.du, self.dv)
        return torch.hypot(reach * angle.cos() - radius, reach * angle.sin())


def nearest_site(u: Tensor, v: Tensor, free: Tensor, spacing: float, disorder: float, lead: float = 0.0) -> Site:
    """Sites stand in rows, every other row shifted by half, each moved by up to `disorder` / 2.

    One site in three, no two of them neighbours, is nearer by `lead` than it looks, so that its cell is larger.
    """
    moved = disorder * (free - 0.5)
    height = 0.87 * spacing  # of a row: equilateral triangles
    distance, second = torch.full_like(u, 1e3), torch.full_like(u, 1e3)
    du, dv = torch.zeros_like(u), torch.zeros_like(u)
    for row_step in (-1, 0, 1):
        row = (v / height).round() + row_step
        odd = 0.5 * row.remainder(2)
        for column_step in (-1, 0, 1):
            column = (u / spacing - odd).round() + column_step
            place = (row.remainder(SIDE) * SIDE + column.remainder(SIDE)).long()
            x = u - spacing * (column + odd) - moved.gather(1, place)
            y = v - height * row - moved.gather(1, place + SIDE * SIDE)
            d = torch.hypot(x, y)
            if lead:
                d = d - lead * ((column - (row / 2).floor() - row).remainder(3) == 0)
            closer = d < distance
            second = torch.minimum(second, torch.maximum(distance, d))
            distance = torch.minimum(distance, d)
            du, dv = torch.where(closer, x, du), torch.where(closer, y, dv)
    return Site(distance, second, du, dv)


FAMILIES: dict[str, tuple[Field, ...]] = {
    "spots": (scattered, ringed, clustered, elongated),
    "stripes": (straight, concentric, paired, zigzag),
    "cells": (irregular, scaly, mixed, bricks),
    "blotches": (islands, streaks, labyrinth, marbled),
}


# Species: the same element with another inside -----------------------------------------------------
# The levels are chosen so that all cover about the same area: how dark an animal is tells little about its species.


def filled(field: Tensor, edge: float) -> Tensor:
    return inside(field, -0.12, edge)


def hollow(field: Tensor, edge: float) -> Tensor:
    return inside(field, 0.08, edge) - inside(field, -0.42, edge)


def cored(field: Tensor, edge: float) -> Tensor:
    """A rim with a dot in the middle: the jaguar's rosette."""
    return inside(field, 0.10, edge) - inside(field, -0.30, edge) + inside(field, -0.68, edge)


def haloed(field: Tensor, edge: float) -> Tensor:
    """A small element with a line around it."""
    return inside(field, -0.38, edge) + inside(field, 0.42, edge) - inside(field, 0.12, edge)


def inside(field: Tensor, level: float, edge: float) -> Tensor:
    return torch.sigmoid((level - field) / edge)


DETAILS: tuple[Detail, ...] = (filled, hollow, cored, haloed)
