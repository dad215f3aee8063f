"""Evaluation: kNN, linear probe and confusions against plain numpy, on features whose answer is known."""

import importlib
import io
import itertools
import math
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax

from onca.data import ImageSet
from onca.encoders import make
from onca.evaluate import Confusion, assess, confusions, features, knn, knn_top1, linear, linear_probe

DATA = Path(os.environ.get("ONCA_DATA") or Path(__file__).parents[2] / "shared" / "data")


def clusters(classes, train, test, dim=12, noise=1.5, seed=0, dtype=torch.float64):
    """Gaussian clouds that overlap; columns differ in mean and size."""
    rng = np.random.default_rng(seed)
    centres, labels = rng.normal(size=(classes, dim)), rng.integers(classes, size=train + test)
    rows = centres[labels] + noise * rng.normal(size=(train + test, dim))
    rows = rows * rng.uniform(0.01, 100, dim) + rng.normal(size=dim) * 10
    x, y = torch.tensor(rows, dtype=dtype), torch.tensor(labels)
    return x[:train], y[:train], x[train:], y[train:]


# ---- nearest neighbours


def knn_by_hand(bank, labels, query, classes, k, temperature):
    bank, query = (np.asarray(rows, dtype=np.float64) for rows in (bank, query))
    scores = np.zeros((len(query), classes))
    for i, row in enumerate(query):
        cosine = np.array([row @ key / (np.linalg.norm(row) * np.linalg.norm(key)) for key in bank])
        for j in np.argsort(-cosine, kind="stable")[:k]:
            scores[i, labels[j]] += math.exp(cosine[j] / temperature)
    return scores


@settings(max_examples=30, deadline=None)
@given(
    count=st.integers(1, 30),
    queries=st.integers(1, 9),
    classes=st.integers(1, 6),
    share=st.floats(0, 1),
    temperature=st.sampled_from([0.02, 0.1, 0.5, 3.0]),
    seed=st.integers(0, 99),
)
def test_knn_is_the_vote_by_hand(count, queries, classes, share, temperature, seed):
    rng = np.random.default_rng(seed)
    bank, query, labels = rng.normal(size=(count, 5)), rng.normal(size=(queries, 5)), rng.integers(classes, size=count)
    k = max(1, round(share * count))
    found = knn(torch.tensor(bank), torch.tensor(labels), torch.tensor(query), classes, k, temperature)
    np.testing.assert_allclose(found.numpy(), knn_by_hand(bank, labels, query, classes, k, temperature), rtol=1e-9)


@pytest.mark.parametrize("limit", [1, 21, 10**9])  # one query a slice, three, all at once
def test_knn_in_slices(limit, monkeypatch):
    bank, labels, query, _ = clusters(5, 50, 20)
    monkeypatch.setattr(importlib.import_module("onca.evaluate.knn"), "SLICE", limit)
    expected = knn_by_hand(bank, labels, query, 5, 7, 0.1)
    np.testing.assert_allclose(knn(bank, labels, query, 5, 7, 0.1).numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("number", [30, 8000])
def test_of_equal_similarities_the_row_that_comes_first_votes(number):
    bank = torch.tensor([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]]).repeat(number // 3, 1)
    labels = torch.arange(len(bank)) % 7
    found = knn(bank, labels, torch.tensor([[2.0, 0.0], [0.0, -3.0]]), 7, k=4)
    right = labels[torch.tensor([[1, 4, 7, 10], [1, 2, 4, 5]])]  # for the second query, rows of similarity 0 come first
    votes = torch.tensor([[10.0], [0.0]]).double().exp().expand(2, 4)
    torch.testing.assert_close(found, torch.zeros(2, 7).double().scatter_add_(1, right, votes))


def test_faulty_votes_would_be_noticed():
    bank, labels, query, _ = clusters(5, 50, 20)
    right = knn(bank, labels, query, 5, 7, 0.1).numpy()
    assert np.abs(right - knn_by_hand(bank, labels, query, 5, 8, 0.1)).max() > 1
    assert np.abs(right - knn_by_hand(bank, labels, query, 5, 7, 0.11)).max() > 1
    assert np.abs(right - knn_by_hand(bank - bank.mean(0), labels, query, 5, 7, 0.1)).max() > 1


def test_knn_of_float32_bf16_zero_rows_and_low_temperatures():
    bank, labels, query, _ = clusters(5, 50, 20, dtype=torch.float32)
    expected = knn(bank.double(), labels, query.double(), 5, 50)
    torch.testing.assert_close(knn(bank, labels, query, 5, 50), expected, rtol=1e-5, atol=0)
    torch.testing.assert_close(knn(bank.bfloat16(), labels, query.bfloat16(), 5, 50), expected, rtol=0.3, atol=0)
    assert torch.isfinite(knn(bank, labels, query, 5, 5, temperature=0.005)).all()  # e^200 is beyond float32
    assert torch.equal(knn(bank, labels, torch.zeros(1, 12), 5, 50)[0], labels.bincount(minlength=5).double())


def test_knn_top1_states_what_it_did():
    bank, labels, query, true = clusters(5, 50, 20)
    right = knn_by_hand(bank, labels, query, 5, 9, 0.2).argmax(axis=1) == true.numpy()
    found = knn_top1(bank, labels, query, true, 5, k=9, temperature=0.2)
    assert found == {"knn_top1": pytest.approx(100 * right.mean()), "knn_k": 9, "knn_temperature": 0.2}


def test_knn_refuses():
    bank, labels, query, true = clusters(5, 50, 20)
    with pytest.raises(ValueError, match="k=200 neighbours of a bank of 50 rows: k must be 1 to 50"):
        knn(bank, labels, query, 5)
    for k in (0, -1, 51):
        with pytest.raises(ValueError, match="k must be 1 to 50"):
            knn(bank, labels, query, 5, k)
    for temperature in (0.0, -1.0, 0.001, math.nan):
        with pytest.raises(ValueError, match="temperature must be"):
            knn(bank, labels, query, 5, 5, temperature)
    with pytest.raises(ValueError, match="1 of 50 bank labels are unknown"):
        knn(bank, labels.index_fill(0, torch.tensor([3]), -1), query, 5, 5)
    with pytest.raises(ValueError, match="2 of 20 query labels are unknown"):
        knn_top1(bank, labels, query, true.index_fill(0, torch.tensor([3, 4]), -1), 5, 5)
    with pytest.raises(ValueError, match="run from 0 to 4; 4 classes are 0 to 3"):
        knn(bank, labels, query, 4, 5)
    with pytest.raises(ValueError, match=r"query must be \[rows, 12\].*got \[20, 11\]"):
        knn(bank, labels, query[:, 1:], 5, 5)
    with pytest.raises(ValueError, match="1 of 50 rows of bank are not finite"):
        knn(bank.index_fill(0, torch.tensor([3]), math.nan), labels, query, 5, 5)
    with pytest.raises(ValueError, match="must be 50 whole numbers"):
        knn(bank, labels.double(), query, 5, 5)


# ---- linear probe


def probe_by_hand(train_x, train_y, test_x, classes, spread=3.0):
    """Logits of the test rows at the optimum that scipy finds from the definition, in float64."""
    train_x, train_y, test_x = (np.asarray(each) for each in (train_x, train_y, test_x))
    mean, deviation = train_x.mean(axis=0), train_x.std(axis=0)
    x, (n, f) = (train_x - mean) / deviation, train_x.shape
    penalty, hot = f / spread**2, np.eye(classes)[train_y]

    def loss(flat):
        weight, bias = flat[: f * classes].reshape(f, classes), flat[f * classes :]
        logits = x @ weight + bias
        error = softmax(logits, axis=1) - hot
        value = -(hot * log_softmax(logits, axis=1)).sum() + penalty / 2 * (weight**2).sum()
        return value / n, np.concatenate([(x.T @ error + penalty * weight).ravel(), error.sum(axis=0)]) / n

    best = minimize(loss, np.zeros((f + 1) * classes), jac=True, options={"maxiter": 5000, "gtol": 1e-9})
    assert np.abs(loss(best.x)[1]).max() < 1e-7
    return (test_x - mean) / deviation @ best.x[: f * classes].reshape(f, classes) + best.x[f * classes :]


@pytest.mark.parametrize(("classes", "train", "spread"), [(2, 60, 3.0), (7, 300, 3.0), (7, 300, 0.3), (12, 100, 10.0)])
def test_probe_finds_the_optimum(classes, train, spread):
    train_x, train_y, test_x, test_y = clusters(classes, train, 400)
    logits = probe_by_hand(train_x, train_y, test_x, classes, spread)
    found = linear_probe(train_x, train_y, test_x, test_y, classes, spread=spread, tolerance=1e-7)
    assert found["linear_gradient"] <= 1e-7
    assert np.array_equal(found["predictions"].numpy(), logits.argmax(axis=1))
    true = test_y.numpy()
    assert found["linear_top1"] == pytest.approx(100 * (logits.argmax(axis=1) == true).mean())
    five = np.argsort(-logits, axis=1)[:, :5]
    assert found["linear_top5"] == pytest.approx(100 * (five == true[:, None]).any(axis=1).mean())
    assert found["linear_penalty"] == pytest.approx(12 / spread**2)


def test_another_optimum_would_be_noticed():
    train_x, train_y, test_x, test_y = clusters(7, 300, 400)
    found = linear_probe(train_x, train_y, test_x, test_y, 7, tolerance=1e-7)["predictions"].numpy()
    for wrong in (
        probe_by_hand(train_x, train_y, test_x, 7, 6.0),
        probe_by_hand(train_x[:-9], train_y[:-9], test_x, 7),
    ):
        assert (found != wrong.argmax(axis=1)).any()


def test_the_gradient_is_that_of_the_loss():
    rows, label, _, _ = clusters(4, 50, 1, dim=5)
    problem = linear.Problem(rows / 100, label, 4, torch.rand(5, dtype=torch.float64))
    weights = torch.randn(6, 4, dtype=torch.float64)
    _, gradient = linear._loss(problem, weights)
    for place in torch.cartesian_prod(torch.arange(6), torch.arange(4)):
        step = torch.zeros_like(weights)
        step[tuple(place)] = 1e-6
        slope = (linear._loss(problem, weights + step)[0] - linear._loss(problem, weights - step)[0]) / 2e-6
        assert gradient[tuple(place)].item() == pytest.approx(slope, rel=1e-5, abs=1e-8)


def test_blocks_change_nothing(monkeypatch):
    data = clusters(7, 300, 400)
    whole = linear_probe(*data, 7, tolerance=1e-7)
    monkeypatch.setattr(linear, "BLOCK", 37)
    assert torch.equal(linear_probe(*data, 7, tolerance=1e-7)["predictions"], whole["predictions"])


def test_probe_does_not_depend_on_units_or_names_of_classes():
    train_x, train_y, test_x, test_y = clusters(7, 300, 400)
    plain = linear_probe(train_x, train_y, test_x, test_y, 7, tolerance=1e-7)
    scaled = linear_probe(1e-3 * train_x + 5, train_y, 1e-3 * test_x + 5, test_y, 7, tolerance=1e-7)
    assert torch.equal(plain["predictions"], scaled["predictions"])
    names = torch.tensor([4, 0, 6, 1, 5, 3, 2])
    renamed = linear_probe(train_x, names[train_y], test_x, names[test_y], 7, tolerance=1e-7)
    assert torch.equal(names[plain["predictions"]], renamed["predictions"])


def test_probe_twice_is_the_same_to_the_bit():
    data = clusters(7, 300, 400, dtype=torch.float32)
    problem = linear.Problem(data[0] / 100, data[1], 7, torch.full((12,), 0.01))
    one, two = (linear._minimise(problem, 1e-3) for _ in range(2))
    assert torch.equal(one[0], two[0]) and one[1:] == two[1:]
    once, twice = (linear_probe(*data, 7) for _ in range(2))
    assert torch.equal(once.pop("predictions"), twice.pop("predictions")) and once == twice


def test_float32_at_the_usual_tolerance_is_close_enough():
    data = clusters(20, 4000, 4000, dim=32, noise=4.0)
    exact = linear_probe(*data, 20, tolerance=1e-7)
    quick = linear_probe(*(each.float() if each.is_floating_point() else each for each in data), 20)
    assert 20 < exact["linear_top1"] < 80
    assert abs(quick["linear_top1"] - exact["linear_top1"]) <= 0.1
    assert (quick["predictions"] == exact["predictions"]).double().mean() > 0.99


def test_a_constant_feature_tells_nothing():
    train_x, train_y, test_x, test_y = clusters(7, 300, 400)
    plain = linear_probe(train_x, train_y, test_x, test_y, 7, tolerance=1e-7)
    train_x, test_x = (torch.cat([x, torch.full((len(x), 1), 3.7, dtype=x.dtype)], dim=1) for x in (train_x, test_x))
    test_x[:, -1] = 8  # a value that training never saw
    padded = linear_probe(train_x, train_y, test_x, test_y, 7, spread=3 * math.sqrt(13 / 12), tolerance=1e-7)
    assert torch.equal(plain["predictions"], padded["predictions"])


def test_a_class_that_training_lacks_is_never_predicted():
    train_x, train_y, test_x, test_y = clusters(7, 300, 400)
    keep = train_y != 3
    found = linear_probe(train_x[keep], train_y[keep], test_x, test_y, 7)
    assert not (found["predictions"] == 3).any()
    assert (found["predictions"] == 5).any()
    assert found["linear_top5"] <= 100 * (test_y != 3).double().mean()
    few = linear_probe(train_x[train_y < 4], train_y[train_y < 4], test_x[test_y < 5], test_y[test_y < 5], 5)
    assert few["linear_top5"] == 100


def test_one_class():
    rows = torch.randn(9, 4)
    found = linear_probe(rows, torch.full((9,), 2), rows, torch.full((9,), 2), 8)
    assert (found["linear_top1"], found["linear_top5"], found["linear_steps"]) == (100, 100, 0)
    assert (found["predictions"] == 2).all()


def test_more_features_than_rows_and_equal_rows():
    train_x, train_y, test_x, test_y = clusters(3, 10, 50, dim=40)
    found = linear_probe(train_x, train_y, test_x, test_y, 3, tolerance=1e-7)["predictions"]
    assert np.array_equal(found.numpy(), probe_by_hand(train_x, train_y, test_x, 3).argmax(axis=1))
    same = linear_probe(train_x[:1].repeat(10, 1), train_y, test_x, test_y, 3)
    assert (same["predictions"] == train_y.bincount().argmax()).all()  # nothing but the share of each class


def test_probe_refuses():
    train_x, train_y, test_x, test_y = clusters(5, 50, 20)
    for more in ({"spread": 0.0}, {"spread": math.inf}, {"tolerance": 0.0}, {"tolerance": 1.0}):
        with pytest.raises(ValueError, match="spread must be more than 0"):
            linear_probe(train_x, train_y, test_x, test_y, 5, **more)
    with pytest.raises(ValueError, match="1 of 50 training labels are unknown"):
        linear_probe(train_x, train_y.index_fill(0, torch.tensor([0]), -1), test_x, test_y, 5)
    with pytest.raises(ValueError, match="1 of 20 test labels are unknown"):
        linear_probe(train_x, train_y, test_x, test_y.index_fill(0, torch.tensor([0]), -1), 5)
    with pytest.raises(ValueError, match=r"test_x must be \[rows, 12\]"):
        linear_probe(train_x, train_y, test_x[:, 1:], test_y, 5)
    with pytest.raises(ValueError, match="1 row or more; got"):
        linear_probe(train_x[:0], train_y[:0], test_x, test_y, 5)
    with pytest.raises(ValueError, match="20 of 20 rows of test_x are not finite"):
        linear_probe(train_x, train_y, test_x * math.inf, test_y, 5)


# ---- confusions

GENUS, FAMILY = torch.tensor([0, 0, 1, 1, 2, 2]), torch.tensor([0, 0, 0, 0, 1, 1])


def test_confusions_of_a_small_case():
    labels = torch.tensor([0, 1, 2, 3, 4, 5])
    predictions = torch.tensor([1, 2, 2, 5, 5, 4])  # within the genus, the family, right, outside, genus, genus
    levels = {
        "family": (FAMILY[labels], ("a", "b")),
        "genus": (GENUS[labels], ("p", "q", "r")),
        "species": (labels, ()),
    }
    found = confusions(predictions, labels, levels)
    assert found == {
        "family": Confusion(within=80, chance=pytest.approx(100 * (3 + 3 + 3 + 1 + 1) / 25), errors=5),
        "genus": Confusion(within=pytest.approx(60), chance=pytest.approx(20), errors=5),
    }


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(-1, 5), st.integers(0, 5)), min_size=1, max_size=60))
def test_confusions_are_those_by_hand(pairs):
    labels, predictions = torch.tensor(pairs).T
    group = torch.where(labels >= 0, GENUS[labels.clamp(min=0)], -1)
    present = sorted({label for label, _ in pairs if label >= 0})
    errors = [(label, guess) for label, guess in pairs if label in present and guess in present and label != guess]
    found = confusions(predictions, labels, {"genus": (group, ("p", "q", "r"))})
    if len({int(GENUS[label]) for label in present}) == len(present):
        assert found == {}  # no two classes share a genus: not coarser
        return
    within = [GENUS[label] == GENUS[guess] for label, guess in errors]
    chance = [sum(GENUS[other] == GENUS[label] for other in present if other != label) for label, _ in errors]
    count = max(len(errors), 1)
    assert found["genus"].errors == len(errors)
    assert found["genus"].within == pytest.approx(100 * sum(within) / count)
    assert found["genus"].chance == pytest.approx(100 * sum(chance) / (count * max(len(present) - 1, 1)))


def test_uniform_errors_meet_chance():
    generator = torch.Generator().manual_seed(0)
    labels, predictions = torch.randint(6, (2, 60_000), generator=generator)
    for level in confusions(predictions, labels, {"f": (FAMILY[labels], ()), "g": (GENUS[labels], ())}).values():
        assert level.within == pytest.approx(level.chance, abs=0.7)


def test_levels_that_are_not_coarser_are_left_out():
    labels = torch.arange(6).repeat(2)
    finer = torch.arange(12)
    crossing = torch.tensor([0, 1]).repeat_interleave(6)
    assert confusions(labels.flip(0), labels, {"finer": (finer, ()), "crossing": (crossing, ())}) == {}
    with pytest.raises(ValueError, match="level 'genus'"):
        confusions(labels, labels, {"genus": (GENUS, ())})


# ---- features of image sets


RGB = ("red", "green", "blue")


def pixels(count, seed=0):
    """Images whose class (0..2) is the channel that is brightest."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(3, (count,), generator=generator)
    values = torch.randint(150, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    values[torch.arange(count), label] += 100
    return image_set(values, label)


def image_set(values, label):
    levels = {"blue or not": (torch.where(label < 0, -1, label // 2), ("no", "yes")), "channel": (label, RGB)}
    return ImageSet(values, label, torch.arange(len(label)), RGB, levels, "made here")


MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def encoder():
    torch.manual_seed(0)
    return make("small(4)", "mlp", 5)


@pytest.mark.parametrize("layer", ["backbone", "head"])
def test_features_are_those_of_the_normalised_pixels(layer):
    made, images = encoder().double(), pixels(20)
    found = features(made, images, MEAN, STD, layer=layer, batch=7)
    x = (images.pixels.double() / 255 - torch.tensor(MEAN).double().view(3, 1, 1)) / torch.tensor(STD).double().view(
        3, 1, 1
    )
    made.eval()
    expected = made.features(x) if layer == "backbone" else made(x)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)
    assert found.shape == (20, 16 if layer == "backbone" else 5) and not found.requires_grad


def test_features_leave_the_encoder_as_it_was():
    made, images = encoder(), pixels(9)
    made.backbone[1].eval()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    features(made, images, MEAN, STD)
    assert all(torch.equal(before[name], tensor) for name, tensor in made.state_dict().items())
    assert made.training and not made.backbone[1].training and made.backbone[4].training
    made.head[0] = torch.nn.Linear(3, 3)
    with pytest.raises(RuntimeError, match="shape"):
        features(made, images, MEAN, STD, layer="head")
    assert made.training and not made.backbone[1].training and made.backbone[4].training


def test_features_in_bf16_are_float32_and_near():
    made, images = encoder(), pixels(20)
    rough, exact = (features(made, images, MEAN, STD, bf16=bf16) for bf16 in (True, False))
    assert rough.dtype == torch.float32 and not torch.equal(rough, exact)
    assert torch.nn.functional.cosine_similarity(rough, exact).min() > 0.999


def test_features_refuse():
    with pytest.raises(ValueError, match="layer is 'backbone' or 'head' or 'spaces'; got 'fc'"):
        features(encoder(), pixels(3), MEAN, STD, layer="fc")
    with pytest.raises(ValueError, match="train with --host looc"):
        features(encoder(), pixels(3), MEAN, STD, layer="spaces")
    with pytest.raises(ValueError, match="got 0 images"):
        features(encoder(), pixels(0), MEAN, STD)
    with pytest.raises(ValueError, match="std above 0"):
        features(encoder(), pixels(3), MEAN, (1, 1, 0))


def test_assess_leaves_out_what_has_no_label_and_says_so():
    train, test = pixels(200, seed=1), pixels(60, seed=2)
    full = assess(encoder(), train, test, MEAN, STD, k=5)
    assert full["linear_top1"] > 75 and full["knn_top1"] > 60 and full["linear_top5"] == 100
    assert (full["images"], full["unlabelled"], full["layer"], full["knn_k"]) == (60, 0, "backbone", 5)
    assert set(full["confusions"]) == {"blue or not"}
    assert full["confusions"]["blue or not"].errors == (full["predictions"] != test.label).sum()
    part = assess(
        encoder(), train, image_set(test.pixels, test.label.index_fill(0, torch.arange(10), -1)), MEAN, STD, k=5
    )
    assert (part["images"], part["unlabelled"]) == (50, 10)
    assert torch.equal(part["predictions"], full["predictions"][10:])
    assert torch.equal(part["labels"], test.label[10:])
    fewer = assess(
        encoder(), image_set(train.pixels, train.label.index_fill(0, torch.arange(9), -1)), test, MEAN, STD, k=5
    )
    assert (fewer["images"], fewer["unlabelled"]) == (60, 9)


def test_assess_refuses():
    train, test = pixels(200, seed=1), pixels(60, seed=2)
    with pytest.raises(ValueError, match="no image of the test set has a label"):
        assess(encoder(), train, image_set(test.pixels, torch.full_like(test.label, -1)), MEAN, STD)
    with pytest.raises(ValueError, match="classes differ: 3 names to train on, 4 to test on"):
        assess(encoder(), train, replace(test, names=("black", *RGB)), MEAN, STD)


# ---- real images


def raw_pixels(path):
    """The feature of the raw-pixel floor: 16x16 box, own mean subtracted; kNN brings it to unit length."""
    from PIL import Image

    with np.load(path, allow_pickle=False) as archive:
        data, offsets, labels = archive["data"], archive["offsets"], archive["labels"]
    files = (io.BytesIO(data[a:b].tobytes()) for a, b in itertools.pairwise(offsets))
    rows = [np.asarray(Image.open(file).convert("RGB").resize((16, 16), Image.Resampling.BOX)) for file in files]
    x = torch.from_numpy(np.stack(rows)).flatten(1).float()
    return x - x.mean(dim=1, keepdim=True), torch.from_numpy(labels)


@pytest.mark.realdata
def test_raw_pixels_reach_the_floor_that_is_known():
    folder = DATA / "tinyimagenet_a"
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}: set ONCA_DATA")
    (bank, labels), (query, true) = raw_pixels(folder / "train.npz"), raw_pixels(folder / "val.npz")
    assert knn_top1(bank, labels, query, true, 100, k=1)["knn_top1"] == pytest.approx(6.3, abs=0.2)
