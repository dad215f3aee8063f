"""Hierarchies of classes: WordNet's tables, a user's own file, levels of a set."""

import os
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from onca.data import load
from onca.data.hierarchy import from_edges, hierarchy_of, lowest_common, synset, wordnet

DATA = Path(os.environ.get("ONCA_DATA", Path(__file__).parents[2] / "shared" / "data"))
DIAMOND = "child,parent\ncar,vehicle\nbus,vehicle\nvehicle,thing\ncat,animal\npet,animal\ncat,pet\nanimal,thing\n"


def write(folder, text, name="edges.csv"):
    path = folder / name
    path.write_text(text)
    return path


def test_depths_of_a_graph_in_which_a_class_has_two_parents(tmp_path):
    found = hierarchy_of(str(write(tmp_path, DIAMOND)), ["car", "bus", "cat", "pet"])
    assert found.depth_max.tolist() == [[2, 1, 0, 0], [1, 2, 0, 0], [0, 0, 3, 2], [0, 0, 2, 2]]
    assert found.depth_min.tolist() == [[2, 1, 0, 0], [1, 2, 0, 0], [0, 0, 2, 2], [0, 0, 2, 2]]


def test_tabs_no_heading_and_several_roots(tmp_path):
    path = write(tmp_path, "a\tx\nb\tx\nc\ty\n")
    assert from_edges(path, ["a", "b", "c"]).depth_max.tolist() == [[2, 1, 0], [1, 2, 0], [0, 0, 2]]


def test_a_file_that_covers_a_part_of_the_classes(tmp_path):
    found = from_edges(write(tmp_path, DIAMOND), ["car", "tree"])
    assert found.known.tolist() == [True, False]
    assert found.depth_max.tolist() == [[2, -1], [-1, -1]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a,b\nb,c\nc,a\n", "circle: .*a.*b.*c"),
        ("a,b,c\n", "line 1"),
        ("x,y\n", "none of the 2 classes"),
        ("", "none of the 2 classes"),
        ("a,b\n\nb,\n", "line 3"),
    ],
)
def test_files_that_are_no_hierarchy(tmp_path, text, said):
    with pytest.raises(ValueError, match=said):
        from_edges(write(tmp_path, text), ["a", "b"])


def test_no_file():
    with pytest.raises(ValueError, match=r"nowhere\.csv.*child,parent"):
        hierarchy_of("nowhere.csv", ["a"])


def test_wordnet_by_ids_and_by_the_names_of_cifar():
    assert hierarchy_of(None, ["n02691156", "n02958343"]).source == "WordNet 3.0"
    by_name = hierarchy_of("wordnet", ["airplane", "automobile", "bird"])
    assert torch.equal(by_name.depth_max, wordnet(["n02691156", "n02958343", "n01503061"]).depth_max)
    with pytest.raises(ValueError, match=r"1 WordNet ids.*'n00000001'"):
        wordnet(["n02691156", "n00000001"])
    with pytest.raises(ValueError, match="needs an id"):
        hierarchy_of("wordnet", ["coat", "hat"])
    assert hierarchy_of(None, ["coat", "hat"]) is None
    assert hierarchy_of("none", ["n02691156"]) is None
    with pytest.raises(ValueError, match="only embeddings"):
        hierarchy_of("levels", ["coat", "hat"])


def test_dogs_differ_between_the_two_conventions():
    """dog.n.01 is also a domestic animal: its shortest path is shorter than that of canine.n.02, which then wins."""
    poodle, beagle = "n02113799", "n02088364"
    assert lowest_common(poodle, beagle, "min") == (12, ("n02083346",))
    assert synset("n02083346") == "canine.n.02"
    assert lowest_common(poodle, beagle, "max")[0] >= 13


def test_levels_of_the_world_are_a_tree():
    images = load("world", images=200, size=16).train
    found = hierarchy_of(None, images.names, images=images)
    assert "levels" in found.source
    assert torch.equal(found.depth_max, found.depth_min)
    assert int(found.depth_max.max()) == len([n for _, n in images.levels.values() if len(n) < len(images.names)]) + 1


@pytest.mark.realdata
@pytest.mark.parametrize("part", ["train", "val"])
def test_packs_bring_their_ids(part):
    source = DATA / "tinyimagenet_a" / f"{part}.npz"
    if not source.exists():
        pytest.skip(f"no {source}")
    images = load(f"npz:{source}", images=200).train
    found = hierarchy_of(None, images.names, images=images)
    assert bool(found.known.all()) and len(images.wnids) == len(images.names)
    other = ~torch.eye(len(images.names), dtype=torch.bool)
    # /data/README.md of the data: mean 3.66 over pairs of classes, 4.3 % of them at 8 or more
    assert float(found.depth_max[other].double().mean()) == pytest.approx(3.66, abs=0.01)
    assert float((found.depth_max[other] >= 8).double().mean()) == pytest.approx(0.043, abs=0.001)


def test_depths_against_walks_over_all_paths(tmp_path):
    """A random graph without circles: depth by listing every path, common ancestors by listing every ancestor."""
    random = torch.Generator().manual_seed(3)
    edges = [("1", "0")]
    for node in range(2, 14):
        above = torch.randperm(node, generator=random)[: 1 + int(torch.randint(2, (), generator=random))]
        edges += [(str(node), str(int(parent))) for parent in above]
    path = write(tmp_path, "".join(f"{child},{parent}\n" for child, parent in edges))

    def paths(node):
        up = [parent for child, parent in edges if child == node]
        return [[node, *rest] for parent in up for rest in paths(parent)] or [[node]]

    assert all((child, parent) in edges for way in paths("13") for child, parent in pairwise(way))
    names = [str(node) for node in range(14)]
    found = from_edges(path, names)
    for choose, table in ((max, found.depth_max), (min, found.depth_min)):
        depth = {name: choose(len(way) - 1 for way in paths(name)) for name in names}
        for a in names:
            for b in names:
                shared = {n for way in paths(a) for n in way} & {n for way in paths(b) for n in way}
                assert int(table[int(a), int(b)]) == max(depth[node] for node in shared)
