"""Label-free estimates and detectors of false negatives, on data whose truth is planted."""

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import normalize

from onca.analyse.detectors import calibration, detectors, viewed
from onca.analyse.pairs import by_turns
from onca.analyse.prior import prior
from onca.analyse.space import space


def clusters(classes, spread, count=1500, dim=64, seed=0):
    """Images scattered around the middles of their classes."""
    draw = torch.Generator().manual_seed(seed)
    middle = normalize(torch.randn(classes, dim, generator=draw), dim=1)
    label = torch.arange(count) % classes
    return space(middle[label] + spread * torch.randn(count, dim, generator=draw), label)


@pytest.mark.parametrize(("classes", "spread"), [(10, 0.16), (20, 0.16), (50, 0.1)])
def test_the_prior_of_a_space_that_shows_its_classes(classes, spread):
    """Within a point: it finds 1 % where nothing is related (below), and a few middles are never symmetric."""
    found = prior(clusters(classes, spread), queries=300)
    assert found.labelled.value == pytest.approx(1 / classes, rel=0.05)
    assert found.tau_plus.value == pytest.approx(found.labelled.value, abs=0.01)
    assert found.tau_plus.low <= found.tau_plus.value <= found.tau_plus.high
    hard = {share.percent: share for share in found.hardest}
    assert hard[1.0].estimated.value == pytest.approx(hard[1.0].labelled.value, abs=0.05)
    assert hard[20.0].estimated.value == pytest.approx(hard[20.0].labelled.value, abs=0.05)


def test_the_prior_stays_below_where_classes_are_blurred_and_near_nothing_where_there_are_none():
    blurred = prior(clusters(10, 0.3), queries=300)
    assert 0.005 < blurred.tau_plus.value < 0.06 < blurred.labelled.value
    noise = torch.randn(1500, 64, generator=torch.Generator().manual_seed(1))
    nothing = prior(space(noise), queries=300)
    assert nothing.tau_plus.value < 0.015
    assert nothing.labelled.value is None


def test_the_prior_needs_no_labels():
    """Labels are put beside the estimate and do not enter it."""
    known = clusters(10, 0.16)
    assert prior(space(known.rows), queries=200).tau_plus == prior(known, queries=200).tau_plus


def test_too_few_images():
    with pytest.raises(ValueError, match="50 images are too few"):
        prior(clusters(10, 0.1, count=50))


def test_detectors_against_double_loops():
    seen = clusters(7, 0.4, count=120, dim=16)
    label = seen.label.clone()
    label[::11] = -1
    seen = space(seen.rows, label)
    found = {one.detector: one for one in detectors(seen, ["hardest(5)", "above(0.2)", "nearest(3)"], queries=200)}
    rows = [row for row in range(120) if label[row] >= 0]
    scores = seen.rows.double() @ seen.rows.double().T
    chosen = {"hardest(5)": [], "above(0.2)": [], "nearest(3)": []}
    there = 0
    for row in rows:
        others = sorted((j for j in range(120) if j != row), key=lambda j: -float(scores[row, j]))
        there += sum(int(label[j] == label[row]) for j in others)
        chosen["hardest(5)"] += [(row, j) for j in others[:6]]  # 5 % of 119, rounded
        chosen["nearest(3)"] += [(row, j) for j in others[:3]]
        chosen["above(0.2)"] += [(row, j) for j in others if scores[row, j] > 0.2]
    for name, pairs in chosen.items():
        right = sum(int(label[i] == label[j]) for i, j in pairs)
        one = found[name]
        assert one.chosen.value == pytest.approx(len(pairs) / len(rows) / 119)
        assert one.precision.value == pytest.approx(right / len(pairs))
        assert one.recall.value == pytest.approx(right / there)
        assert one.precision.low <= one.precision.value <= one.precision.high


def test_an_oracle_finds_all_and_a_detector_that_chooses_nothing_has_no_precision():
    seen = clusters(5, 0.3, count=100)
    oracle, nothing = detectors(seen, ["same_class", "above(2)"])
    assert (oracle.precision.value, oracle.recall.value) == (1.0, 1.0)
    assert oracle.chosen.value == oracle.base.value
    assert (nothing.precision.value, nothing.recall.value, nothing.chosen.value) == (None, 0.0, 0.0)


def test_views_let_fnc_and_likely_in_and_likely_means_what_it_says():
    """Views that scatter as classmates do are what `likely` takes them for. Labels go round, as `by_turns` orders."""
    seen = clusters(20, 0.16, count=1500)
    draw = torch.Generator().manual_seed(5)
    mates = [seen.rows[torch.randint(75, (1500,), generator=draw) * 20 + torch.arange(1500) % 20] for _ in range(2)]
    seen = replace(seen, views=(mates[0], mates[1]))
    names = [one.detector for one in detectors(seen, queries=100)]
    assert any("support_max" in name for name in names) and any("likely" in name for name in names)
    right = [one.right for one in calibration(seen, tau_plus=0.05, queries=500)]
    sure = [one.value for one in right if one.value is not None]
    assert sure[-1] > 0.9  # from a certainty of 0.9 on


def test_only_images_with_views_are_looked_at_where_some_have_them():
    seen = clusters(5, 0.3, count=100)
    order = by_turns(seen.label)[:40]
    few, views = viewed(replace(seen, views=(seen.rows[order], seen.rows[order])))
    assert torch.equal(few.rows, views[:, 0]) and torch.equal(few.label, seen.label[order])


def test_what_is_refused():
    seen = clusters(5, 0.3, count=100)
    with pytest.raises(ValueError, match="has no labels"):
        detectors(space(seen.rows))
    with pytest.raises(ValueError, match="has no views"):
        calibration(seen)
    with pytest.raises(ValueError, match="a detector is a selector"):
        detectors(seen, ["infonce"])
    with pytest.raises(ValueError, match="support"):
        detectors(seen, ["nearest(10, by=support_max)"])
