"""Near-duplicates against what a person judged (ciFAIR, arXiv 1902.00423).

The lists have no licence: they are read where they lie, in the folder `near_duplicates` of ONCA_GOLDEN (else: the
one beside the real data), and are never copied. A file is `<data set>_<split a>_<split b>.csv`, with the rows of a
pair, and its judgement: 0 exact copy, 1 the same photograph, 2 another photograph that is very alike. It names at
most one partner of each image, the nearest in those authors' features, so that most pairs that are in no list are right
as well (docs/methods/near_duplicates.md). Precision is therefore the share of 0 and 1 among the pairs that were judged;
the share among all that were found, and among the best of each image, are printed beside it.
"""

import csv
import os
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from onca.data import ImageSet
from onca.data.duplicates import components, duplicate_pairs
from onca.data.packs import read_pack
from onca.data.pictures import decode

SHARED = Path(__file__).parents[3] / "shared"
ASKED = Path(os.environ.get("ONCA_GOLDEN", "")) / "near_duplicates"
LISTS = ASKED if "ONCA_GOLDEN" in os.environ and ASKED.is_dir() else SHARED / "golden" / "near_duplicates"
DATA = Path(os.environ.get("ONCA_DATA") or SHARED / "data")
FILES = sorted(LISTS.glob("*.csv"))

Pair = tuple[int, int]


@dataclass(frozen=True)
class Lists:
    """Pairs of rows in the first and the second split, with their judgements, and the images, the first split first."""

    judged: dict[Pair, int]
    pixels: torch.Tensor
    first: int  # images of the first split
    same: bool  # one split, against itself

    def crossing(self, rows: torch.Tensor) -> torch.Tensor:
        """Which pairs [P,2] of rows, the smaller one first, go from the first split to the second."""
        if self.same:
            return torch.ones(len(rows), dtype=torch.bool)
        return (rows[:, 0] < self.first) & (rows[:, 1] >= self.first)

    def named(self, rows: torch.Tensor) -> list[Pair]:
        return [(i, j if self.same else j - self.first) for i, j in rows.tolist()]


@cache
def images(folder: str, split: str) -> torch.Tensor:
    raw = read_pack(DATA / folder / f"{split}.npz")
    height, width = raw.pictures.open(0).size[::-1]
    return decode(raw.pictures, range(len(raw.label)), None, (height, width))


def read(path: Path) -> Lists:
    folder, first, second = path.stem.rsplit("_", 2)
    with path.open(newline="") as stream:
        rows = [(int(r[f"{first}_index"]), int(r["other_index"]), int(r["judgment"])) for r in csv.DictReader(stream)]
    parts = [images(folder, split) for split in ([first] if first == second else [first, second])]
    ordered = {(min(i, j), max(i, j)) if first == second else (i, j): judged for i, j, judged in rows}
    return Lists(ordered, torch.cat(parts), len(parts[0]), first == second)


def by_correlation(lists: Lists) -> tuple[list[Pair], list[float]]:
    """The pairs whose raw pixels at 16 x 16 correlate with at least 0.96, and how much."""
    small = torch.nn.functional.adaptive_avg_pool2d(lists.pixels.float(), 16).flatten(1)
    small -= small.mean(1, keepdim=True)
    small /= small.norm(dim=1, keepdim=True).clamp_min(1e-6)
    other = small if lists.same else small[lists.first :]
    pairs, values = [], []
    for start in range(0, lists.first, 1000):
        score = small[start : min(start + 1000, lists.first)] @ other.T
        for i, j in (score >= 0.96).nonzero().tolist():
            if not lists.same or start + i < j:
                pairs.append((start + i, j))
                values.append(float(score[i, j]))
    return pairs, values


def by_outlines(lists: Lists) -> tuple[list[Pair], list[float], torch.Tensor]:
    """The pairs that onca finds, with each copy in the place of its original as well; and the group of each image."""
    count = len(lists.pixels)
    unknown = torch.full((count,), -1)
    pairs = duplicate_pairs(ImageSet(lists.pixels, unknown, torch.arange(count), (), {}, "both splits"))
    alike: dict[int, list[int]] = {}
    for original, copy in pairs.rows[pairs.identical].tolist():
        alike.setdefault(original, [original]).append(copy)
    found = {}
    for (i, j), value in zip(
        pairs.rows[~pairs.identical].tolist(), pairs.outline[~pairs.identical].tolist(), strict=True
    ):
        found |= {(min(a, b), max(a, b)): value for a in alike.get(i, [i]) for b in alike.get(j, [j])}
    found |= {(a, b): 1.0 for same in alike.values() for a in same for b in same if a < b}
    rows = torch.tensor(list(found), dtype=torch.int64).view(-1, 2)
    inside = lists.crossing(rows)
    values = torch.tensor(list(found.values()))[inside].tolist()
    return lists.named(rows[inside]), values, components(count, pairs.rows)


def best_only(pairs: list[Pair], values: list[float]) -> list[Pair]:
    """Of each image's pairs the one with the largest value: the lists know no other."""
    best: dict[int, tuple[float, Pair]] = {}
    for pair, value in zip(pairs, values, strict=True):
        best[pair[0]] = max(best.get(pair[0], (value, pair)), (value, pair))
    return [pair for _, pair in best.values()]


def count(pairs: list[Pair], judged: dict[Pair, int]) -> list[int]:
    """How many of the pairs are judged 0, 1, 2."""
    found = [judged[pair] for pair in pairs if pair in judged]
    return [found.count(k) for k in range(3)]


def precisions(pairs: list[Pair], values: list[float], judged: dict[Pair, int]) -> list[float]:
    right, best = count(pairs, judged), best_only(pairs, values)
    shares = ((sum(right[:2]), sum(right)), (sum(right[:2]), len(pairs)), (sum(count(best, judged)[:2]), len(best)))
    return [a / b if b else 1.0 for a, b in shares]


@pytest.mark.realdata
@pytest.mark.parametrize(
    "path", FILES or [None], ids=lambda path: f"near_duplicates/{path.stem if path else 'missing'}"
)
def test_judged_pairs(path: Path | None, capsys: pytest.CaptureFixture[str]) -> None:
    if path is None:
        pytest.fail(f"no golden file *.csv in {LISTS} (ONCA_GOLDEN names the folder above)")
    lists = read(path)
    found, values, group = by_outlines(lists)
    plain, plain_values = by_correlation(lists)
    ours, theirs = (count(pairs, lists.judged) for pairs in (found, plain))
    shares, plain_shares = precisions(found, values, lists.judged), precisions(plain, plain_values, lists.judged)
    listed = [list(lists.judged.values()).count(k) for k in range(3)]
    with capsys.disabled():
        print(f"\n{path.stem}: pairs judged 0, 1, 2: {listed}; precision of judged, of all, of each best")
        print(f"  onca          found {ours} in {len(found)} pairs, precision {', '.join(f'{p:.3f}' for p in shares)}")
        print(f"  pixels, 0.96  found {theirs} in {len(plain)} pairs, {', '.join(f'{p:.3f}' for p in plain_shares)}")
    assert all(int(group[a]) == int(group[b]) for a, b in identical(lists.pixels))
    assert sum(ours[:2]) >= sum(theirs[:2])
    assert shares[0] >= plain_shares[0]


def identical(pixels: torch.Tensor) -> list[Pair]:
    """Each image with the one before it, in an order that puts the same pixels next to each other."""
    flat = pixels.flatten(1).numpy()
    rows = [image.tobytes() for image in flat]
    order = sorted(range(len(rows)), key=rows.__getitem__)
    return [(a, b) for a, b in pairwise(order) if rows[a] == rows[b]]
