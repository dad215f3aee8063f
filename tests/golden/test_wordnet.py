"""Depths of lowest common ancestors against values computed from the WordNet files themselves."""

import json

import pytest

from onca.data.hierarchy import hierarchy_of, lowest_common


@pytest.mark.golden("wordnet", "lca", suffix=".json")
def test_lca_pairs(golden):
    pairs = json.loads(golden.path.read_text(encoding="utf-8"))["pairs"]
    ids = sorted({pair[end] for pair in pairs for end in "ab"})
    found = hierarchy_of("wordnet", ids)
    assert pairs and bool(found.known.all())
    for pair in pairs:
        a, b = ids.index(pair["a"]), ids.index(pair["b"])
        assert (int(found.depth_max[a, b]), int(found.depth_min[a, b])) == (pair["depth_max"], pair["depth_min"]), pair
        assert lowest_common(pair["a"], pair["b"], "max") == (pair["depth_max"], tuple(pair["lca_max"]))
        assert lowest_common(pair["a"], pair["b"], "min") == (pair["depth_min"], tuple(pair["lca_min"]))
