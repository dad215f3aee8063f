"""Near-duplicates: pictures of a set that show the same photograph. N images, P pairs, I the largest index + 1.

Two images are near-duplicates when their outlines are alike and so is the layout of their brightness: outlines (see
`descriptors`) do not care for colour, contrast and a pixel's shift, the hash does not care for fine detail. Identical
images always are. One of the two may be mirrored, left for right. All pairs are looked at, none by luck: see `_alike`.
New: in no paper.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from onca.data.descriptors import BLOCK, Images, each, hash_of, mirrored_outlines, mirrored_waves, outlines, waves
from onca.data.imageset import ImageSet

OUTLINE = 0.975  # least cosine of the outlines; docs/methods/near_duplicates.md shows what other values find
BITS = 16  # most bits of the 63 in which the hashes differ
LEADING = 63  # directions that the first look uses
ROWS = 1000  # images against all others at a time
SLACK = 1e-4  # above the rounding errors of a cosine in float32
STAGES = 3  # outlines, pairs, waves: what `watch` takes for equally long

Watch = Callable[[int, int], None]
"""Told how many images are done, of how many."""


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pairs of rows and why they are pairs; first row before second, in ascending order.

    Of images that are identical pixel by pixel only the first is compared with others; each of its copies stands in one
    pair, with it.
    """

    rows: Tensor  # int64 [P,2]
    outline: Tensor  # float32 [P] cosine of the outlines
    bits: Tensor  # int64 [P] bits of the hash that differ, of 63
    identical: Tensor  # bool [P] the same pixels
    mirrored: Tensor  # bool [P] alike when one of the two is mirrored, and only then: outline and bits are of that

    def __len__(self) -> int:
        return len(self.rows)


def near_duplicates(
    images: ImageSet,
    *,
    outline: float = OUTLINE,
    bits: int = BITS,
    mirrored: bool = True,
    watch: Watch | None = None,
) -> Tensor:
    """The group of each image, int64 [I] by image index: connected components of all pairs.

    A group is named by its smallest index, so that an image without a near-duplicate (or one that the set does not
    hold) is a group of its own. Errors: ValueError for thresholds out of range.
    """
    pairs = duplicate_pairs(images, outline=outline, bits=bits, mirrored=mirrored, watch=watch)
    first = components(len(images), pairs.rows)
    count = int(images.index.max()) + 1 if len(images) else 0
    least = torch.full((len(images),), count).scatter_reduce(0, first, images.index, "amin")
    group = torch.arange(count)
    group[images.index] = least[first]
    return group


def duplicate_pairs(
    images: Images,
    *,
    outline: float = OUTLINE,
    bits: int = BITS,
    mirrored: bool = True,
    watch: Watch | None = None,
) -> Pairs:
    """All pairs whose outlines have a cosine of at least `outline` and whose hashes differ in at most `bits` bits.

    mirrored: pairs of which one image must be mirrored for this count as well.

    One core takes about 20 s for 50,000 images, and four times as long for twice as many. An image without any edge has
    no outlines, and only its copies are its near-duplicates. Errors: ValueError for thresholds out of range.
    """
    if not 0 < outline <= 1 or not 0 <= bits <= 63:
        raise ValueError(f"outline={outline}, bits={bits}: outline is a cosine above 0 and up to 1, bits are 0 to 63")
    original = _originals(images)
    single = (original == torch.arange(len(original))).nonzero().flatten()
    copies = (original != torch.arange(len(original))).nonzero().flatten()
    outlined, paired, waved = (_stage(watch, number, len(images)) for number in range(STAGES))
    described = each(outlines, images, outlined)[single]
    rows, cosine, turned = _alike(described, mirrored_outlines(), outline, paired)
    low = each(waves, images, waved)[single]
    hashes = torch.stack([hash_of(low), hash_of(mirrored_waves(low))])
    differ = ((63 - (hashes[0, rows[:, 0]] * hashes[turned.long(), rows[:, 1]]).sum(1)) / 2).round().long()
    near = (differ <= bits) & (~turned | mirrored)
    pair = rows[:, 0] * len(single) + rows[:, 1]
    near &= ~(turned & torch.isin(pair, pair[near & ~turned]))
    pairs = torch.cat([single[rows[near]], torch.stack([original[copies], copies], 1)])
    order = torch.from_numpy(np.lexsort((pairs[:, 1], pairs[:, 0])))
    none = torch.zeros(len(copies), dtype=torch.int64)
    return Pairs(
        rows=pairs[order],
        outline=torch.cat([cosine[near], torch.ones(len(copies))])[order],
        bits=torch.cat([differ[near], none])[order],
        identical=torch.cat([torch.zeros(int(near.sum())), torch.ones(len(copies))]).bool()[order],
        mirrored=torch.cat([turned[near], none.bool()])[order],
    )


def _stage(watch: Watch | None, number: int, images: int) -> Callable[[float], None]:
    """Takes the share of one stage that is done, and tells `watch` of all of them."""

    def told(share: float) -> None:
        if watch is not None:
            watch(round((number + share) / STAGES * images), images)

    return told


def components(count: int, pairs: Tensor) -> Tensor:
    """The smallest row that each row is connected with by pairs [P,2], itself if with none; int64 [count]."""
    first, second = pairs.T.numpy()
    graph = coo_array((np.ones(len(pairs), np.int8), (first, second)), shape=(count, count))
    group = torch.from_numpy(connected_components(graph, directed=False)[1].astype(np.int64))
    least = torch.full((count,), count).scatter_reduce(0, group, torch.arange(count), "amin")
    return least[group]


def _originals(images: Images) -> Tensor:
    """The first row that holds the same pixels, int64 [N]."""
    first: dict[bytes, int] = {}
    rows: list[int] = []
    for block in torch.split(torch.arange(len(images)), BLOCK):
        for pixels in images.take(block):
            digest = hashlib.blake2b(pixels.numpy().tobytes(), digest_size=16).digest()
            rows.append(first.setdefault(digest, len(rows)))
    return torch.tensor(rows, dtype=torch.int64)


def _alike(
    rows: Tensor, mirror: Tensor, least: float, told: Callable[[float], None] = lambda share: None
) -> tuple[Tensor, Tensor, Tensor]:
    """All pairs i < j of unit or zero rows [N,F] whose cosine is at least `least`, and those with j mirrored.

    mirror: where the entries of a row stand when it is mirrored, int64 [F]; twice mirrored is as before. Returns the
    pairs [P,2], their cosines [P], and which are of j mirrored, bool [P]; a pair can be there in both ways.

    A first look takes a few numbers a row: its parts p along directions that mirroring leaves as they are, its parts q
    along directions that mirroring turns round, those in which the rows vary most, and the length r of the rest. A
    cosine is at most p.p' + q.q' + r r' (Cauchy and Schwarz), the mirrored one at most p.p' - q.q' + r r', so that no
    pair is lost; the few pairs that get through are computed in full.
    """
    even, odd = (rows @ kept for kept in _directions(rows, mirror))
    rest = (rows.square().sum(1) - even.square().sum(1) - odd.square().sum(1)).clamp_min(0).sqrt()
    even = torch.cat([even, rest[:, None]], 1)
    pairs, cosines, mirrored = [torch.empty(0, 2, dtype=torch.int64)], [torch.empty(0)], [torch.empty(0).bool()]
    for start in range(0, len(rows), ROWS):
        bound = (odd[start : start + ROWS] @ odd[start:].T).abs_().addmm_(even[start : start + ROWS], even[start:].T)
        found = (bound >= least - SLACK).nonzero()
        for some in torch.split(start + found[found[:, 0] < found[:, 1]], ROWS * 100):
            first, second = rows[some[:, 0]], rows[some[:, 1]]
            for turned, other in ((False, second), (True, second[:, mirror])):
                cosine = (first * other).sum(1)
                pairs.append(some[cosine >= least])
                cosines.append(cosine[cosine >= least])
                mirrored.append(torch.full((len(pairs[-1]),), turned))
        left = 1 - min(start + ROWS, len(rows)) / len(rows)
        told(1 - left**2)  # of the pairs
    return torch.cat(pairs), torch.cat(cosines), torch.cat(mirrored)


def _directions(rows: Tensor, mirror: Tensor) -> tuple[Tensor, Tensor]:
    """Those that mirroring leaves as they are [F,a], and those that it turns round [F,b]: the a + b = LEADING (at most)
    of all such in which the rows vary most."""
    sign, basis = torch.linalg.eigh(torch.eye(len(mirror))[mirror])
    gram, found = rows.T @ rows, []
    for side in (basis[:, sign > 0], basis[:, sign < 0]):
        variance, directions = torch.linalg.eigh(side.T @ gram @ side)
        found.append((variance, side @ directions))
    every = torch.cat([variance for variance, _ in found])
    least = every.topk(min(LEADING, len(every))).values[-1]
    (kept, even), (turned, odd) = found
    return even[:, kept >= least], odd[:, turned >= least]
