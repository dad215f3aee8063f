"""The depth of the lowest common ancestor of two labels, from the levels of a set."""

import re

import numpy as np
import pytest
import torch
from test_data import real

import onca
from onca.data import ImageSet, load
from onca.data.levels import depth_table


def leveled(label: list[int], names: int, **levels: tuple[list[int], int]) -> ImageSet:
    def level(name: str, values: list[int], count: int) -> tuple[torch.Tensor, tuple[str, ...]]:
        return torch.tensor(values), tuple(f"{name} {k}" for k in range(count))

    made = {name: level(name, *given) for name, given in levels.items()}
    own = level("class", label, names)
    pixels = torch.zeros(len(label), 3, 1, 1, dtype=torch.uint8)
    return ImageSet(pixels, *own[:1], torch.arange(len(label)), own[1], {**made, "class": own}, "leveled")


def test_the_world_by_names() -> None:
    """family/genus/detail: the depth is the number of words that two names begin with alike."""
    train = load("world(families=3, genera=2, species=3)", images=36).train
    depth = depth_table(train)
    for a, first in enumerate(train.names):
        for b, second in enumerate(train.names):
            words = [x == y for x, y in zip(first.split("/"), second.split("/"), strict=True)]
            assert int(depth[a, b]) == sum(all(words[: k + 1]) for k in range(3)), (first, second)
    assert depth.dtype == torch.int64 and depth.unique().tolist() == [0, 1, 2, 3]


def test_order_of_levels_does_not_matter_and_finer_levels_do_not_count() -> None:
    label, coarse, top = [0, 1, 2, 3, 0, 3], [0, 0, 1, 2, 0, 2], [0, 0, 1, 1, 0, 1]
    parts = list(range(6))
    expected = [[3, 2, 0, 0], [2, 3, 0, 0], [0, 0, 3, 1], [0, 0, 1, 3]]
    for order in (("coarse", "top"), ("top", "coarse")):
        given = {"coarse": (coarse, 3), "top": (top, 2), "part": (parts, 6)}
        images = leveled(label, 4, **{name: given[name] for name in (*order, "part")})
        assert depth_table(images).tolist() == expected


def test_unknown_labels_and_classes_without_images() -> None:
    images = leveled([0, 1, -1, 1, 0], 4, coarse=([0, 0, 1, -1, -1], 2))
    assert depth_table(images).tolist() == [[2, 1, 0, 0], [1, 2, 0, 0], [0, 0, 2, 0], [0, 0, 0, 2]]


def test_what_two_classes_share_counts_even_where_nobody_says_what_stands_above() -> None:
    images = leveled([0, 1, 2, 3], 4, top=([-1, -1, 0, 1], 2), coarse=([0, 0, 1, 2], 3))
    assert depth_table(images)[0].tolist() == [3, 2, 0, 0]


def test_sets_without_a_hierarchy_are_refused() -> None:
    with pytest.raises(ValueError, match=re.escape("leveled has no level above its labels")):
        depth_table(leveled([0, 1], 2))


def test_levels_that_cross_are_refused() -> None:
    with pytest.raises(
        ValueError, match=re.escape("level 'label' does not divide level 'coarse': 'class 1' has images in")
    ):
        depth_table(leveled([0, 1, 1, 2], 3, coarse=([0, 0, 1, 1], 2)))
    crossed = leveled([0, 1, 2, 3], 4, top=([0, 1, 0, 1], 2), coarse=([0, 0, 1, 2], 3))
    with pytest.raises(
        ValueError, match=re.escape("level 'coarse' does not divide level 'top': 'coarse 0' has images in")
    ):
        depth_table(crossed)


def test_label_distance_ranks_by_it() -> None:
    """Of a query of class 0, the entry of the same coarse class is the hardest, whatever its cosine."""
    depth = depth_table(leveled([0, 1, 2], 3, coarse=([0, 1, 0], 2)))
    query, keys = torch.eye(3)[:1], torch.tensor([[0.9, 0.1, 0.0], [0.0, 1.0, 0.0]])
    more = {"label": torch.tensor([0]), "negative_label": torch.tensor([1, 2]), "depth": depth}
    method = "chain(drop(hardest(50, by=label_distance)), infonce)"
    assert float(onca.contrast(query, query, keys, method, **more)) == pytest.approx(
        float(onca.contrast(query, query, keys[:1]))
    )


@pytest.mark.realdata
def test_cifar100_by_its_file() -> None:
    folder = real("cifar100")
    depth = depth_table(load(f"npz:{folder}", images=2000).train)
    with np.load(folder / "train.npz", allow_pickle=False) as archive:
        parent = dict(zip(archive["labels"].tolist(), archive["coarse_labels"].tolist(), strict=True))
    for a in range(100):
        for b in range(100):
            assert int(depth[a, b]) == (2 if a == b else int(parent[a] == parent[b]))
