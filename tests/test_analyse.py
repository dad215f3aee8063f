"""Analyses of a space: against loops in float64, and on data made so that each figure's curve is known."""

from __future__ import annotations

import json
import math
from pathlib import Path

import analyse_oracle as oracle
import numpy as np
import pytest
import torch
from scipy import stats

from onca.analyse import Space, agreements, analyse, findings, pixels, read_analysis, space
from onca.analyse import pairs as slices
from onca.analyse.geometry import alignment, effective_rank
from onca.analyse.statistics import interval, mean_interval, resample, unpaired
from onca.data import ImageSet
from onca.data.hierarchy import Hierarchy

TREE = Hierarchy(torch.from_numpy(oracle.tree()), torch.from_numpy(oracle.tree()), "a binary tree")


def made(rows: np.ndarray, label: np.ndarray | None, hierarchy: Hierarchy | None = None, **more: object) -> Space:
    names = () if hierarchy is None else tuple("abcdefgh")
    given = None if label is None else torch.from_numpy(label)
    return space(torch.from_numpy(rows), given, names, hierarchy=hierarchy, **more)


def close(found: object, wanted: object, within: float = 1e-6) -> None:
    both = [np.array([np.nan if v is None else v for v in values], dtype=float) for values in (found, wanted)]
    np.testing.assert_allclose(both[0], both[1], rtol=0, atol=within)


# --- against loops ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ["all", "apart", "views of images", "unknown labels", "part of a hierarchy", "uneven"])
def test_every_curve_is_that_of_plain_loops(case: str) -> None:
    count, bins, depth = 90, 7 if case == "uneven" else 10, oracle.tree()
    rows = oracle.signs(count, 1)
    draw = np.random.default_rng(2)
    label, index = draw.integers(0, 8, count), np.arange(count)
    queries, negatives = range(count), range(count)
    if case == "apart":
        queries, negatives = draw.permutation(count)[:31], draw.permutation(count)[:50]
    if case == "views of images":
        index = draw.integers(0, 70, count)
    if case == "unknown labels":
        label[::5] = -1
    if case == "part of a hierarchy":
        depth[2, :] = depth[:, 2] = -1
    tables = torch.from_numpy(depth)
    given = made(rows, label, Hierarchy(tables, tables, "loops"), index=torch.from_numpy(index))
    chosen = [torch.tensor(list(some)) for some in (queries, negatives)]
    found = analyse(given, queries=chosen[0], negatives=chosen[1], bins=bins)
    wanted = oracle.analysis(rows, index, label, depth, queries, negatives, bins)
    for name in ("mean_similarity", "same_class_share", "lca_depth_max_all", "lca_depth_max_other_class"):
        close(getattr(found, name), wanted[name])
    assert found.lca_depth_min_all == found.lca_depth_max_all
    for name in ("same_class", "lca_max"):
        close(found.hardest5_vs_rest[name], wanted[name])
    asked = np.array([sum(index[n] != index[q] for q in queries) for n in negatives])
    close(found.hard_frequency.frequency, np.array(wanted["hits"]) / asked)
    dots = np.array(wanted["dots"])
    assert found.n_pairs == len(dots) and found.uniformity == pytest.approx(wanted["uniformity"], abs=1e-5)
    assert found.fraction_negative_similarity == pytest.approx((dots < 0).mean())
    assert (found.min_similarity, found.max_similarity) == (dots.min(), dots.max())
    edges = np.array(found.histogram.edges)
    close(found.histogram.share, np.histogram(np.minimum(dots, 1 - 1e-9), edges - 1e-7)[0] / len(dots))
    contrast = found.contrast("same_class")
    assert contrast is not None
    hard, rest = (np.array(side) for side in zip(*wanted["per_query"], strict=True))
    test = stats.ttest_ind(hard[~np.isnan(hard)], rest[~np.isnan(rest)])
    close([contrast.t, contrast.p], [test.statistic, test.pvalue])


def test_slices_of_any_height_and_threads_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    given = made(oracle.signs(200, 3), np.random.default_rng(4).integers(0, 8, 200), TREE)
    whole = analyse(given)
    monkeypatch.setattr(slices, "SLICE", 1000)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        sliced = analyse(given)
    finally:
        torch.set_num_threads(threads)
    assert sliced.same_class_share == whole.same_class_share and sliced.intervals == whole.intervals
    assert sliced.hard_frequency == whole.hard_frequency and sliced.histogram == whole.histogram
    assert sliced.uniformity == pytest.approx(whole.uniformity, rel=1e-12)


def test_equal_scores_are_ranked_in_their_order_and_negative_zero_is_zero() -> None:
    rows = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, -0.0, 1], [1, 0, 0], [0, -1, 0], [-1, 0, 0]])
    rows[1, 0], rows[4, 0] = -0.0, 0.0
    chosen = slices.choose(space(rows), torch.tensor([0]), torch.tensor([1, 2, 3, 4, 5]), "all", 0)
    (seen,) = slices.ranked(chosen)
    assert seen.place.tolist() == [[2, 0, 1, 3, 4]]
    assert seen.score.tolist() == [[1, 0, 0, 0, -1]]


# --- planted curves --------------------------------------------------------------------------------------------------


def test_same_class_and_depth_step_down_where_they_were_planted() -> None:
    rows, label = oracle.nested(each=13, noise=0.01)  # of 103 others: 12 of the class, 13 cousins, 26, then 52
    found = analyse(made(rows, label, TREE), bins=103)  # a bin is a rank
    by_rank = [1.0] * 12 + [0.0] * 91
    close(found.same_class_share, by_rank[::-1])
    close(found.lca_depth_max_all, ([3] * 12 + [2] * 13 + [1] * 26 + [0] * 52)[::-1])
    close(found.lca_depth_max_other_class, ([None] * 12 + [2] * 13 + [1] * 26 + [0] * 52)[::-1])
    for cut, share in ((1, 1.0), (5, 1.0), (10, 1.0), (50, 12 / 52)):
        contrast = found.contrast("same_class", cut=cut)
        assert contrast is not None and contrast.end.value == pytest.approx(share)
    assert [f.verdict for f in findings(found) if f.name in ("same class", "related")] == ["as in the paper"] * 2
    pairs = found.class_pairs
    assert pairs.lca_correlated == pytest.approx(1.4) and pairs.p_correlated < 0.01  # 4 at depth 2, then 6 at depth 1


def test_an_anti_correlated_end_that_is_related_is_found_and_one_that_is_not_is_not() -> None:
    axes, label = np.eye(4), np.repeat(np.arange(8), 20)
    rows = axes[label // 2] * np.where(label % 2, -1, 1)[:, None]  # cousins look the other way
    rows = np.concatenate([rows, 0.3 * np.random.default_rng(0).standard_normal((160, 12))], 1)
    found = {side: analyse(made(rows, kind, TREE)) for side, kind in (("related", label), ("other", (3 * label) % 8))}
    assert found["related"].mean_similarity[0] < -0.5
    verdicts = {
        side: next(f for f in findings(analysis) if f.name == "easiest").verdict for side, analysis in found.items()
    }
    assert verdicts == {"related": "as in the paper", "other": "contrary to the paper"}
    low = found["related"].histogram
    end = [depth for depth, share in zip(low.lca_max_other, low.share, strict=True) if share][:5]
    assert all(depth == 2 for depth in end)
    pairs = found["related"].class_pairs
    assert {frozenset((p.query, p.negative)) for p in pairs.anticorrelated[:4]} == set(
        map(frozenset, ("ab", "cd", "ef", "gh"))
    )
    assert pairs.lca_anticorrelated > pairs.lca_all


def test_unrelated_labels_show_nothing() -> None:
    draw = np.random.default_rng(5)
    rows = draw.standard_normal((400, 400))
    found = analyse(made(rows, draw.integers(0, 8, 400), TREE), queries=200, negatives=200)
    shown = {f.name: f.verdict for f in findings(found)}
    assert {shown[name] for name in ("same class", "related", "pairs of classes")} == {"not shown"}
    assert found.hard_frequency.variance_ratio == pytest.approx(1, abs=0.7)
    assert abs(found.hard_frequency.split_half) < 0.2


def test_means_of_classes_are_those_of_their_pairs() -> None:
    rows, label = np.random.default_rng(6).standard_normal((60, 5)), np.arange(60) % 8
    found = analyse(made(rows, label, TREE)).class_pairs
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    means = {
        (a, b): np.mean([unit[i] @ unit[j] for i in np.flatnonzero(label == a) for j in np.flatnonzero(label == b)])
        for a in range(8)
        for b in range(a + 1, 8)
    }
    order = sorted(means.items(), key=lambda item: item[1])
    name = "abcdefgh"
    assert [(p.query, p.negative) for p in found.anticorrelated] == [(name[a], name[b]) for (a, b), _ in order[:10]]
    close([p.similarity for p in found.correlated], [value for _, value in order[:-11:-1]])
    close([p.similarity for p in found.zero], sorted(means.values(), key=abs)[:10])
    assert found.class_pairs == 28 and found.lca_all == pytest.approx(np.mean([oracle.tree()[k] for k in means]))


def test_a_hub_is_hard_for_everyone_and_chance_is_that_of_a_shuffle() -> None:
    draw = np.random.default_rng(7)
    rows = draw.standard_normal((300, 40))
    rows[:, 0] = 10
    rows[250] = np.eye(40)[0] * 9  # looks where all look
    rows[251] = -rows[250]
    found = analyse(made(rows, None), queries=torch.arange(100), negatives=torch.arange(100, 300)).hard_frequency
    assert found.hardest[0] == 250 and found.frequency[150] == 1 and found.max == 1
    assert found.easiest[0] == 251 and found.easy[151] == 1 and found.percentile[151] == 0
    assert found.mean == pytest.approx(0.05) and found.variance_ratio > 2 and found.p < 1e-6
    shuffled = np.zeros((50, 200))
    for trial in shuffled:
        for _ in range(100):
            trial[draw.permutation(200)[:10]] += 0.01
    assert found.std_expected_by_chance == pytest.approx(shuffled.std(1).mean(), rel=0.05)
    edges = np.array(found.edges)
    counts = np.array([np.histogram(trial, edges)[0] for trial in shuffled]).mean(0) / 200
    close(found.shuffled, counts, within=0.02)
    assert sum(found.share) == pytest.approx(1)


def test_the_test_of_consistency_is_cochrans() -> None:
    rows = np.random.default_rng(8).standard_normal((90, 6))
    chosen = torch.arange(40), torch.arange(40, 90)
    found = analyse(made(rows, None), queries=chosen[0], negatives=chosen[1], bins=10).hard_frequency
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    hard = np.zeros((40, 50))
    for query in range(40):
        hard[query, np.argsort(-(unit[40:] @ unit[query]))[:3]] = 1  # 5 % of 50, rounded up
    treatments, blocks = hard.sum(0), hard.sum(1)
    q = 50 * 49 * ((treatments - treatments.mean()) ** 2).sum() / (50 * blocks.sum() - (blocks**2).sum())
    assert found.statistic == pytest.approx(q) and found.freedom == 49
    assert found.p == pytest.approx(stats.chi2.sf(q, 49))


# --- between spaces --------------------------------------------------------------------------------------------------


def test_agreement_of_a_space_with_itself_its_reverse_and_another() -> None:
    draw = np.random.default_rng(9)
    rows = draw.standard_normal((200, 30))
    back, other = rows.copy(), draw.standard_normal((200, 30))
    back[60:] *= -1
    spaces = [made(some, None, source=name) for some, name in ((rows, "a"), (rows, "b"), (back, "c"), (other, "d"))]
    chosen = {"queries": torch.arange(60), "negatives": torch.arange(60, 200)}
    found = {(one.first, one.second): one for one in agreements(spaces, **chosen)}
    assert len(found) == 6
    assert (found["a", "b"].rank.value, found["a", "b"].hardest.value, found["a", "b"].frequency) == (1, 1, 1)
    assert found["a", "c"].rank.value == pytest.approx(-1) and found["a", "c"].hardest.value == 0
    far = found["a", "d"].rank
    assert far.low < 0 < far.high and abs(found["a", "d"].hardest.value - 0.05) < 0.03
    unit = [some / np.linalg.norm(some, axis=1, keepdims=True) for some in (rows, other)]
    wanted = [stats.spearmanr(*(some[60:] @ some[query] for some in unit)).statistic for query in range(60)]
    assert far.value == pytest.approx(np.mean(wanted), abs=1e-4)


def test_spaces_are_matched_by_index() -> None:
    rows = np.random.default_rng(10).standard_normal((50, 8))
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    whole = made(rows, None)
    mixed = made(rows[order.numpy()][:40], None, index=order[:40])
    (found,) = agreements([whole, mixed])
    assert found.queries == 40 and found.rank.value == 1
    with pytest.raises(ValueError, match="in common"):
        agreements([whole, made(rows, None, index=torch.arange(100, 150))])
    with pytest.raises(ValueError, match="occurs twice"):
        agreements([whole, made(rows, None, index=torch.zeros(50).long())])


# --- numbers over queries --------------------------------------------------------------------------------------------


def test_an_interval_covers_as_often_as_it_says() -> None:
    draw = np.random.default_rng(11)
    covered = 0
    for seed in range(200):
        found = mean_interval(draw.exponential(1, 60), seed)
        covered += found.low <= 1 <= found.high
    assert 175 <= covered <= 198  # 95 % of 200, less what skew takes


def test_resampled_sums_use_the_same_queries_for_all_fields() -> None:
    values = np.random.default_rng(12).standard_normal((30, 2))
    drawn = resample({"a": values, "b": 2 * values, "c": np.ones((30, 1))}, seed=1)
    np.testing.assert_allclose(drawn["b"], 2 * drawn["a"], rtol=1e-4, atol=1e-5)
    assert (drawn["c"] == 30).all() and drawn["a"].std() > 0
    assert interval(math.nan, drawn["a"][:, 0]).value is None


def test_t_and_effect_are_scipys() -> None:
    draw = np.random.default_rng(13)
    a, b = draw.normal(1, 2, 30), draw.normal(0, 1, 50)
    found, wanted = unpaired(np.append(a, np.nan), b), stats.ttest_ind(a, b)
    assert (found.t, found.p, found.freedom) == pytest.approx((wanted.statistic, wanted.pvalue, 78))
    pooled = math.sqrt((29 * a.var(ddof=1) + 49 * b.var(ddof=1)) / 78)
    assert found.effect == pytest.approx((a.mean() - b.mean()) / pooled)
    assert unpaired(np.ones(5), np.ones(5)).p is None


def test_rank_uniformity_and_alignment_of_known_spaces() -> None:
    assert effective_rank(torch.eye(7)) == pytest.approx(7)
    assert effective_rank(torch.ones(9, 4)) == pytest.approx(1)
    line = torch.tensor([[1.0, 0], [0, 1], [-1, 0], [0, -1]])
    assert analyse(space(line), bins=3).uniformity == pytest.approx(math.log((2 * math.exp(-4) + math.exp(-8)) / 3))
    assert alignment(line, line.roll(1, 0)).value == pytest.approx(2)
    views = (line, line)
    assert analyse(space(line, views=views), bins=3).alignment.value == 0


# --- the floor -------------------------------------------------------------------------------------------------------


def pictures(count: int, seed: int = 0, plain: int = 0) -> ImageSet:
    draw = torch.Generator().manual_seed(seed)
    held = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=draw)
    held[:plain] = 90
    label = torch.arange(count) % 4
    return ImageSet(held, label, torch.arange(count), tuple("abcd"), {}, "noise")


def test_raw_pixels_are_means_of_boxes_less_their_own_mean() -> None:
    images = pictures(5, plain=1)
    found = pixels(images)
    for row, image in zip(found.rows[1:], images.pixels[1:].double(), strict=True):
        boxes = image.view(3, 16, 2, 16, 2).mean((2, 4)).permute(1, 2, 0).flatten()
        boxes -= boxes.mean()
        close(row, boxes / boxes.norm(), within=1e-3)  # grey levels are rounded to 8 bits
    assert not found.rows[0].any()


def test_the_floor_stands_beside_a_space_of_images() -> None:
    images = pictures(120)
    other = torch.randn(120, 16, generator=torch.Generator().manual_seed(1))
    found = analyse(space(other, images.label, images.names, images=images))
    assert found.floor is not None and found.floor.feature.startswith("raw pixels")
    assert found.floor == analyse(pixels(images), floor=False)
    assert found.with_floor.rank.low < 0 < found.with_floor.rank.high
    assert len(found.beyond_floor) == len(found.contrasts)
    own, below = found.contrast("same_class"), found.floor.contrast("same_class")
    beyond = found.beyond_floor[found.contrasts.index(own)]
    assert beyond.value == pytest.approx(own.difference.value - below.difference.value)
    same = analyse(pixels(images))
    assert same.with_floor.rank.value == 1 and all(
        b.value in (0, None) and b.value == b.low == b.high for b in same.beyond_floor
    )
    assert analyse(space(other, images=images), floor=False).floor is None


# --- what is chosen, what is refused ---------------------------------------------------------------------------------


def test_numbers_choose_images_class_by_class_in_turn() -> None:
    label = torch.tensor([0, 0, 1, 0, 2, 1, 1, 2, 2, 0])
    given = space(torch.randn(10, 4), label)
    chosen = slices.choose(given, 6, 3, "all", 0)
    assert sorted(chosen.query.tolist()) == [0, 1, 2, 4, 5, 7] and sorted(chosen.negative.tolist()) == [3, 6, 8]
    assert chosen.queries == "first 2 images of each class, in file order"
    assert chosen.negatives == "next 1 images of each class, in file order"
    uneven = slices.choose(given, 4, None, "all", 0)
    assert uneven.queries == "first 4 images, class by class in turn, in file order" and len(uneven.negative) == 10


def test_the_papers_sample_is_drawn_from_the_seed() -> None:
    given = space(torch.randn(4500, 2))
    first, again, other = (slices.choose(given, None, None, "paper", seed) for seed in (0, 0, 1))
    assert len(first.query) == len(first.negative) == 2000 and len(set(first.query.tolist())) == 2000
    assert torch.equal(first.query, again.query) and not torch.equal(first.query, other.query)
    assert not torch.equal(first.query, first.negative)


def test_an_analysis_survives_json() -> None:
    rows, label = oracle.nested(13, 0.1)
    found = analyse(made(rows, label, TREE, epoch=3.0, images=pictures(104)))
    assert read_analysis(json.loads(json.dumps(found.json(), allow_nan=False))) == found
    with pytest.raises(ValueError, match="another version"):
        read_analysis({"data": "x"})


def test_a_hierarchy_of_part_of_the_classes_says_how_much_it_covers() -> None:
    depth = oracle.tree()
    depth[6:, :] = depth[:, 6:] = -1
    rows, label = oracle.nested(5, 0.1)
    tables = torch.from_numpy(depth)
    found = analyse(made(rows, label, Hierarchy(tables, tables, "six of eight")))
    assert found.covered == 0.75 and found.pairs_covered == pytest.approx(30 * 29 / (40 * 39))
    alone = analyse(made(rows, label, None))
    assert alone.hierarchy is None and alone.lca_depth_max_all is None and alone.same_class_share is not None
    assert analyse(made(rows, None)).same_class_share is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bins": 30}, "30 bins, and a query has 23 negatives"),
        ({"bins": 0}, "take 1 to 23 bins"),
        ({"cuts": (0.0,)}, "above 0 and at most 50"),
        ({"cuts": (60.0,)}, "above 0 and at most 50"),
        ({"queries": 25}, "25 queries of 24 images: take 1 to 24"),
        ({"queries": 20, "negatives": 5}, "beside 20 queries: take 1 to 4"),
        ({"queries": torch.tensor([24])}, "queries are rows 0 to 23"),
        ({"queries": 5, "preset": "paper"}, "draws its own"),
        ({"preset": "small"}, "there are 'all' and 'paper'"),
    ],
)
def test_what_cannot_be_analysed_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        analyse(space(torch.randn(24, 4), torch.arange(24) % 3), **change)


def test_bad_embeddings_are_refused_or_dropped() -> None:
    rows = torch.randn(10, 3)
    rows[3, 1], rows[7] = torch.nan, 0
    with pytest.raises(ValueError, match="1 rows hold nan or inf and 1 rows are all zero, first row 3"):
        space(rows)
    label = torch.arange(10) % 2
    with pytest.warns(UserWarning, match="left out 2 rows"):
        kept = space(rows, label, bad="drop", images=pictures(10))
    assert kept.index.tolist() == [0, 1, 2, 4, 5, 6, 8, 9] and len(kept.images) == 8
    assert torch.equal(kept.label, label[kept.index])
    with pytest.raises(ValueError, match="10 embeddings and 9 labels"):
        space(rows, label[:9])
    with pytest.raises(ValueError, match="labels 0 to 1, but there are 1 names"):
        space(torch.randn(10, 3), label, ("only",))
    with pytest.raises(ValueError, match="one class"):
        analyse(space(torch.randn(30, 3), torch.zeros(30).long()))
    with pytest.raises(ValueError, match="no row with a direction"):
        space(torch.zeros(2, 3))


def test_the_oracle_imports_nothing_of_onca() -> None:
    assert "onca." not in Path(oracle.__file__).read_text(encoding="utf-8").replace("nothing of onca;", "")


def test_halves_of_the_queries_agree_where_classes_take_turns():
    """What is hard for a class is hard for its queries, which stand at even or at odd places here."""
    draw = torch.Generator().manual_seed(2)
    label = torch.arange(600) % 2
    middle = torch.nn.functional.normalize(torch.randn(2, 16, generator=draw), dim=1)
    rows = middle[label] + 0.2 * torch.randn(600, 16, generator=draw)
    assert analyse(space(rows, label), floor=False).hard_frequency.split_half > 0.8
