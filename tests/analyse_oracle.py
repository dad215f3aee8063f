"""Section 4 of 2010.06682 by plain loops in float64, importing nothing of onca; and data whose curves are known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np


def order(rows: np.ndarray, index: Sequence[int], query: int, negatives: Sequence[int]) -> list[tuple[int, float]]:
    """Places among the negatives and dot products, hardest first; equal ones in their order."""
    found = []
    for place, row in enumerate(negatives):
        if index[row] != index[query]:
            found.append((place, float(sum(a * b for a, b in zip(rows[query], rows[row], strict=True)))))
    return sorted(found, key=lambda entry: (-entry[1], entry[0]))


def edge(count: int, numerator: int, denominator: int) -> int:
    """floor(count * numerator / denominator + 1/2) in whole numbers."""
    return (2 * count * numerator + denominator) // (2 * denominator)


def analysis(
    rows: np.ndarray,
    index: Sequence[int],
    label: Sequence[int],
    depth: np.ndarray | None,
    queries: Sequence[int],
    negatives: Sequence[int],
    bins: int,
) -> dict[str, Any]:
    """Means over pairs by bin, easiest first; of the hardest 5 percent and the rest; frequencies; all dot products."""
    by_bin: list[list[tuple[int, int, float]]] = [[] for _ in range(bins)]
    hard, rest = [], []
    per_query: list[tuple[float, float]] = []
    hits, dots = [0] * len(negatives), []
    for query in queries:
        ranked = [
            (label[query], label[negatives[place]], score, place)
            for place, score in order(rows, index, query, negatives)
        ]
        count = len(ranked)
        dots += [score for _, _, score, _ in ranked]
        for number in range(bins):
            low, high = edge(count, number, bins), edge(count, number + 1, bins)
            by_bin[bins - 1 - number] += [entry[:3] for entry in ranked[low:high]]
        cut = edge(count, 5, 100)
        hard += [entry[:3] for entry in ranked[:cut]]
        rest += [entry[:3] for entry in ranked[cut:]]
        per_query.append((same_share([e[:3] for e in ranked[:cut]]), same_share([e[:3] for e in ranked[cut:]])))
        for *_, place in ranked[:cut]:
            hits[place] += 1
    found: dict[str, Any] = {
        "mean_similarity": [mean([score for _, _, score in entries]) for entries in by_bin],
        "same_class_share": [same_share(entries) for entries in by_bin],
        "same_class": (same_share(hard), same_share(rest)),
        "per_query": per_query,
        "hits": hits,
        "dots": dots,
        "uniformity": math.log(mean([math.exp(-2 * (2 - 2 * score)) for score in dots])),
    }
    if depth is not None:
        found["lca_depth_max_all"] = [mean_depth(entries, depth, True) for entries in by_bin]
        found["lca_depth_max_other_class"] = [mean_depth(entries, depth, False) for entries in by_bin]
        found["lca_max"] = (mean_depth(hard, depth, True), mean_depth(rest, depth, True))
    return found


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan


def same_share(entries: Sequence[tuple[int, int, float]]) -> float:
    known = [(a, b) for a, b, _ in entries if a >= 0 and b >= 0]
    return mean([float(a == b) for a, b in known])


def mean_depth(entries: Sequence[tuple[int, int, float]], depth: np.ndarray, within: bool) -> float:
    known = [(a, b) for a, b, _ in entries if a >= 0 and b >= 0 and depth[a, b] >= 0 and (within or a != b)]
    return mean([float(depth[a, b]) for a, b in known])


def signs(count: int, seed: int) -> np.ndarray:
    """Unit rows [count,16] of +-1/4: their dot products are exact in any precision, and many are equal."""
    return np.random.default_rng(seed).choice([-0.25, 0.25], (count, 16))


def tree(classes: int = 8) -> np.ndarray:
    """Depths of a binary tree over 8 classes: 3 within a class, 2 and 1 for neighbours, 0 across the root."""
    places = np.arange(classes)
    return sum((places[:, None] >> level == places >> level).astype(int) for level in range(3))


def nested(each: int, noise: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Rows and labels of 8 classes whose dot products follow `tree`: about 0, 1/4, 1/2 and 3/4 and, less the noise."""
    axes = np.eye(14 + 8 * each)
    draw = np.random.default_rng(seed)
    label = np.repeat(np.arange(8), each)
    rows = axes[label // 4] + axes[2 + label // 2] + axes[6 + label]
    own = axes[14 + np.arange(len(label))] * (1 + noise * draw.random((len(label), 1)))
    return (rows + own) / np.sqrt(4), label
