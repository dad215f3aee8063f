"""ContrastiveCrop: heat maps, boxes, centres of crops, when boxes are found, and that they travel in a checkpoint."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from little_runs import Crash, crash_at
from safetensors.torch import load_file
from scipy import stats

import onca
from onca import views
from onca.encoders import make
from onca.train import Run, load_data
from onca.train.loop import fit, start

RATIO = (3 / 4, 4 / 3)
SCALE = (0.2, 1.0)
RECIPE = views.recipe("moco_v2", 32)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def whole(count):
    return torch.tensor([0.0, 0.0, 1.0, 1.0]).repeat(count, 1)


def box_by_loops(heat, threshold):
    """The box of one heat map [H,W] in plain Python, None where nothing exceeds the threshold."""
    height, width = len(heat), len(heat[0])
    rows = [i for i in range(height) if max(heat[i]) > threshold]
    columns = [j for j in range(width) if max(line[j] for line in heat) > threshold]
    if not rows:
        return None
    return [rows[0] / height, columns[0] / width, rows[-1] / height, columns[-1] / width]


# Heat maps and boxes


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from([0.0, 0.1, 0.5, 0.9]), st.integers(0, 2**31))
def test_boxes_are_those_of_loops(height, width, threshold, seed):
    heat = torch.tensor(np.random.default_rng(seed).choice([0.0, 0.1, 0.3, 0.9, 1.0], (4, height, width)))
    heat[0] = 0.0
    boxes, constant = views.boxes_of(heat, threshold)
    assert boxes.dtype == torch.float32
    for row in range(4):
        expected = box_by_loops(heat[row].tolist(), threshold)
        assert bool(constant[row]) == (expected is None)
        torch.testing.assert_close(boxes[row], torch.tensor(expected or [0.0, 0.0, 1.0, 1.0]), rtol=0, atol=1e-7)


def test_the_threshold_itself_is_not_exceeded_and_one_pixel_is_a_box():
    heat = torch.zeros(1, 8, 4)
    heat[0, 2, 3], heat[0, 6, 1] = 1.0, 0.5
    assert views.boxes_of(heat, 0.5)[0].tolist() == [[2 / 8, 3 / 4, 2 / 8, 3 / 4]]
    assert views.boxes_of(heat, 0.49)[0].tolist() == [[2 / 8, 1 / 4, 6 / 8, 3 / 4]]


def test_heat_maps_sum_channels_and_span_0_to_1_whatever_the_scale_of_the_maps():
    features = torch.rand(5, 7, 4, 6, generator=seeded(), dtype=torch.float64)
    heat = views.heat_maps(features, 4, 6)
    total = features.sum(1)
    low, high = total.amin((1, 2), keepdim=True), total.amax((1, 2), keepdim=True)
    torch.testing.assert_close(heat, (total - low) / (high - low))
    torch.testing.assert_close(views.heat_maps(3 * features + 2, 4, 6), heat)
    assert views.heat_maps(features.bfloat16(), 9, 9).dtype == torch.float32


def test_a_constant_map_is_the_whole_image_and_counted():
    features = torch.rand(4, 3, 4, 4, generator=seeded())
    features[1] = 0.0  # dead
    features[3] = 2.5
    heat = views.heat_maps(features, 32, 32)
    assert heat.isfinite().all() and not heat[[1, 3]].any()
    boxes, constant = views.boxes_of(heat, 0.1)
    assert constant.tolist() == [False, True, False, True]
    assert boxes[[1, 3]].tolist() == [[0.0, 0.0, 1.0, 1.0]] * 2 and (boxes[[0, 2]] < 1).all()


def test_one_bright_cell_of_a_map_is_found_where_it_lies():
    """Rows are rows: a cell right of the middle and below it moves the box right and down, not down and right."""
    features = torch.zeros(1, 2, 4, 8)
    features[0, :, 3, 5] = 1.0
    box = views.boxes_of(views.heat_maps(features, 32, 64), 0.5)[0][0] * torch.tensor([32, 64, 32, 64])
    assert 24 <= box[0] <= box[2] <= 31 and 40 <= box[1] <= box[3] <= 47


# Centres


def test_sizes_are_those_of_the_random_crop_from_the_same_generator():
    boxes = torch.rand(500, 4, generator=seeded(1)).sort(1).values
    plain = views.draw_crop(500, 40, 60, SCALE, RATIO, seeded(7))
    mine = views.draw_contrastive_crop(boxes, 40, 60, SCALE, RATIO, 0.6, seeded(7))
    assert torch.equal(plain[:, 2:], mine[:, 2:]) and not torch.equal(plain, mine)
    assert mine.dtype == plain.dtype == torch.int64


def test_in_the_whole_image_with_alpha_1_offsets_are_uniform_on_0_to_one_less_than_the_largest():
    """The official truncation never reaches L - l, where a random resized crop may stand (test_views_draw)."""
    length = 12
    crops = views.draw_contrastive_crop(whole(60_000), length, length, (0.25, 0.45), (1.0, 1.0), 1.0, seeded())
    for extent in crops[:, 2].unique().tolist():
        rows = crops[:, 2] == extent
        for corner in crops[rows, :2].T:
            counts = torch.bincount(corner, minlength=length - extent + 1)
            assert counts[-1] == 0 and len(counts) == length - extent + 1
            assert stats.chisquare(counts[:-1].numpy()).pvalue > 1e-3


@pytest.mark.parametrize("alpha", [0.1, 0.6, 1.0, 4.0])
def test_centres_spread_with_the_beta_distributions_variance_rows_and_columns_apart(alpha):
    """Var = 1 / (4 (2 alpha + 1)), in an image so large that pixels do not matter."""
    side, count = 10_000, 40_000
    crops = views.draw_contrastive_crop(whole(count), side, side, (0.01, 0.01), (1.0, 1.0), alpha, seeded())
    share = crops[:, :2].double() / (side - crops[:, 2:])
    expected = 1 / (4 * (2 * alpha + 1))
    assert abs(share.mean() - 0.5) < 0.01
    torch.testing.assert_close(share.var(0), torch.full((2,), expected, dtype=torch.float64), rtol=0.03, atol=0)
    assert abs(torch.corrcoef(share.T)[0, 1]) < 0.02
    for edge in (0.05, 0.2, 0.5, 0.9):
        below = (share < edge).double().mean(0)
        torch.testing.assert_close(below, torch.full_like(below, stats.beta(alpha, alpha).cdf(edge)), atol=0.01, rtol=0)


def test_a_tiny_alpha_goes_to_the_ends_and_stays_finite():
    crops = views.draw_contrastive_crop(whole(2000), 100, 100, (0.25, 0.25), (1.0, 1.0), 1e-4, seeded())
    ends = (crops[:, :2] == 0) | (crops[:, :2] == 50)
    assert ends.double().mean() > 0.99 and (crops[:, 0] == 0).double().mean() == pytest.approx(0.5, abs=0.05)


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 50), st.integers(1, 50), st.floats(0.02, 1), st.floats(0.05, 5), st.integers(0, 2**31))
def test_crops_lie_in_the_image_and_their_centres_in_the_box(height, width, low, alpha, seed):
    corners = torch.rand(40, 2, 2, generator=seeded(seed)).sort(1).values  # [n, first or last, row or column]
    boxes = corners.flatten(1)
    crops = views.draw_contrastive_crop(boxes, height, width, (low, 1.0), RATIO, alpha, seeded(seed))
    drawn = views.draw_crop(40, height, width, (low, 1.0), RATIO, seeded(seed))
    assert (crops[:, :2] >= 0).all() and (crops[:, :2] + crops[:, 2:] <= torch.tensor([height, width])).all()
    for crop, box, other in zip(crops.tolist(), boxes.tolist(), drawn.tolist(), strict=True):
        middle = [(height - crop[2]) // 2, (width - crop[3]) // 2]
        if other[:2] == middle:
            continue  # perhaps no crop fits: then it stands in the middle, whatever the box
        for axis, length in enumerate((height, width)):
            centre, room = crop[axis] + crop[axis + 2] // 2, length - crop[axis + 2]
            nearest = crop[axis] in (0, room)  # the image's border comes before the box
            assert nearest or int(length * box[axis]) - 1 <= centre <= int(length * box[axis + 2])


def test_where_no_crop_fits_it_stands_in_the_middle():
    boxes = torch.tensor([[0.0, 0.0, 0.1, 0.1]]).repeat(20, 1)
    crops = views.draw_contrastive_crop(boxes, 10, 100, (1.0, 1.0), RATIO, 0.6, seeded())
    assert torch.equal(crops, views.draw_crop(20, 10, 100, (1.0, 1.0), RATIO, seeded()))


def test_both_views_draw_independently_from_the_same_box():
    box = torch.tensor([[0.25, 0.25, 0.75, 0.75]]).repeat(20_000, 1)
    one, two = (views.draw_contrastive_crop(box, 64, 64, SCALE, RATIO, 0.6, seeded(seed)) for seed in (1, 2))
    both = torch.corrcoef(torch.cat((one, two), 1).T.double())[:4, 4:]
    assert both.abs().max() < 4.5 / 20_000**0.5


def test_a_crop_in_the_corner_of_an_images_own_box():
    """Each image has its own box: swapped boxes would put each crop into the other's corner."""
    boxes = torch.tensor([[0.0, 0.0, 0.1, 0.1], [0.9, 0.9, 1.0, 1.0]]).repeat(50, 1)
    crops = views.draw_contrastive_crop(boxes, 100, 100, (0.1, 0.2), (1.0, 1.0), 0.6, seeded())
    assert (crops[::2, :2] < 10).all() and (crops[1::2, :2] + crops[1::2, 2:] > 90).all()


# What a run names


@pytest.mark.parametrize(
    "text",
    ["random_crop", "fixed_crop()", "fixed_crop(margin=0.1, alpha=1)", "contrastive_crop(alpha=0.1, warmup=2)"],
)
def test_policies_are_read_back_as_they_print(text):
    crop = views.as_crop(text)
    assert str(crop) == text and crop.kind == "crop" and onca.read(str(crop)) == crop


def test_a_name_alone_takes_the_defaults():
    for name in ("fixed_crop", "contrastive_crop"):
        assert str(views.as_crop(name)) == f"{name}()"


def test_the_papers_numbers_are_the_defaults():
    crop = views.contrastive_crop()
    assert (crop.alpha, crop.threshold, crop.warmup, crop.interval) == (0.6, 0.1, 20, 20)
    assert views.fixed_crop().margin == 0.25


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("contrastive_crop(alpha=0)", "alpha must be more than 0"),
        ("contrastive_crop(alpha='a')", "alpha must be a number or a schedule"),
        ("contrastive_crop(threshold=1)", "threshold is a share"),
        ("contrastive_crop(threshold=ramp(0, 0.5, 3))", "threshold must be a plain number"),
        ("contrastive_crop(warmup=0)", "warmup is a number of epochs, 1 or more; got 0"),
        ("contrastive_crop(interval=1.5)", "interval is a number of epochs"),
        ("fixed_crop(margin=0.6)", "margin is a share of the image's side"),
        ("hardest(5)", "--crop must be random_crop, fixed_crop() or contrastive_crop(); hardest(5) is a selector"),
        ("contrastive_crops()", "did you mean contrastive_crop"),
    ],
)
def test_what_cannot_be_meant_is_refused(text, words):
    with pytest.raises(ValueError) as caught:
        views.as_crop(text)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("warmup", "interval", "epochs", "expected"),
    [
        (20, 20, 100, [20, 40, 60, 80]),
        (100, 100, 500, [100, 200, 300, 400]),
        (1, 1, 4, [1, 2, 3]),
        (2, 3, 9, [2, 5, 8]),
    ],
)
def test_boxes_are_found_every_interval_from_the_warmup_on_and_not_after_the_last_epoch(
    warmup, interval, epochs, expected
):
    """The first two rows are the official configurations, where boxes follow epochs 20, 40 .. counted from 1."""
    crop = views.contrastive_crop(warmup=warmup, interval=interval)
    crop.check(epochs)
    assert [epoch for epoch in range(epochs) if crop.locates(epoch)] == expected
    for other in (views.random_crop, views.fixed_crop()):
        assert not any(map(other.locates, range(epochs))) and not other.located
    assert crop.located


def test_a_run_too_short_for_any_box_is_refused():
    with pytest.raises(ValueError, match="first found after 20 epochs, and the run has 20"):
        views.contrastive_crop().check(20)
    views.contrastive_crop().check(21)
    views.random_crop.check(1)


def test_before_boxes_are_found_all_is_as_with_random_crops():
    expected = views.draw_crop(30, 48, 48, RECIPE.crop_scale, RECIPE.crop_ratio, seeded(3))
    drawn = views.draw(RECIPE, 30, 48, 48, seeded(3))
    assert torch.equal(drawn.crop, expected)
    for crop in (views.random_crop, views.contrastive_crop()):
        assert torch.equal(crop.draw(RECIPE, None, 30, 48, 48, seeded(3)), expected)


def test_the_fixed_box_is_the_middle_whatever_was_found():
    assert views.fixed_crop(0.125).inside(None, 2).tolist() == [[0.125, 0.125, 0.875, 0.875]] * 2
    found = torch.rand(30, 4, generator=seeded()).sort(1).values
    middle = torch.tensor([[0.25, 0.25, 0.75, 0.75]]).repeat(30, 1)
    expected = views.draw_contrastive_crop(middle, 48, 48, RECIPE.crop_scale, RECIPE.crop_ratio, 0.1, seeded(3))
    for boxes in (found, None):
        assert torch.equal(views.fixed_crop(0.25, 0.1).draw(RECIPE, boxes, 30, 48, 48, seeded(3)), expected)
    assert torch.equal(views.contrastive_crop(0.1).draw(RECIPE, middle, 30, 48, 48, seeded(3)), expected)


def test_alpha_may_be_a_schedule():
    crop = views.as_crop("contrastive_crop(alpha=ramp(1, 0.1, 10))")
    expected = views.contrastive_crop(0.1).draw(RECIPE, whole(30), 30, 48, 48, seeded(3))
    assert torch.equal(crop.draw(RECIPE, whole(30), 30, 48, 48, seeded(3), epoch=12.0), expected)
    with pytest.raises(ValueError, match="give epoch="):
        crop.draw(RECIPE, whole(30), 30, 48, 48, seeded(3))


# Boxes of a set


def test_boxes_of_an_encoder_travel_in_a_checkpoint():
    torch.manual_seed(0)
    encoder = make("small(4)", "linear", 8).eval()
    pixels = torch.rand(10, 3, 32, 32)
    pixels[7] = 0.0
    boxes = views.Boxes(10)
    rows = torch.tensor([9, 2, 7, 0])
    assert boxes.of(rows) is None
    features = encoder.maps(pixels[rows])
    assert features.shape == (4, 16, 4, 4) and (features >= 0).all()
    boxes.write(rows, features, 32, 32, 0.1)
    boxes.located.fill_(3)
    expected, constant = views.boxes_of(views.heat_maps(features, 32, 32), 0.1)
    assert torch.equal(boxes.of(rows), expected) and torch.equal(boxes.constant[rows], constant)
    assert not boxes.boxes.requires_grad

    file = io.BytesIO()
    torch.save(boxes.state_dict(), file)
    file.seek(0)
    other = views.Boxes(10)
    other.load_state_dict(torch.load(file))
    assert int(other.located) == 3 and torch.equal(other.of(torch.arange(10)), boxes.boxes)
    assert torch.equal(other.constant, boxes.constant)
    untouched = torch.tensor([1, 3, 4, 5, 6, 8])
    assert torch.equal(other.of(untouched), whole(6))


def test_finding_boxes_anew_forgets_the_last_ones_and_their_count():
    boxes, rows = views.Boxes(3), torch.arange(3)
    boxes.write(rows, torch.zeros(3, 2, 4, 4), 16, 16, 0.1)
    assert int(boxes.constant.sum()) == 3 and torch.equal(boxes.boxes, whole(3))
    boxes.write(rows, torch.rand(3, 2, 4, 4, generator=seeded()), 16, 16, 0.1)
    assert int(boxes.constant.sum()) == 0 and (boxes.boxes < 1).all()


def test_crops_chosen_by_a_policy_stand_in_the_parameters_of_a_view_and_leave_the_others_alone():
    drawn = views.draw(RECIPE, 8, 48, 48, seeded(3))
    crops = views.fixed_crop().draw(RECIPE, None, 8, 48, 48, seeded(3))
    placed = replace(drawn, crop=crops)
    pixels = torch.randint(0, 256, (8, 3, 48, 48), dtype=torch.uint8, generator=seeded())
    assert torch.equal(drawn.crop[:, 2:], crops[:, 2:]) and placed.flip is drawn.flip
    assert views.apply(placed, pixels).shape == (8, 3, 32, 32)


# Inside a training


@pytest.fixture(scope="module")
def run(source: str) -> Run:
    """Three epochs of four steps; boxes are found before the second and the third."""
    crop = "contrastive_crop(warmup=1, interval=1)"
    return Run(data=source, encoder="small(4)", batch=128, queue=128, dim=8, epochs=3, crop=crop, precision="float32")


def state_after(run, place: Path, crash=None, **changes):
    """All tensors of the host after the run, or after the checkpoints that a crash in step `crash` leaves."""
    run = replace(run, runs=str(place), **changes)
    run.folder.mkdir(parents=True, exist_ok=True)

    training = start(run, load_data(run))
    fit(training, crash_at(crash), save_seconds=0)
    return training.host.state_dict()


def unlike(one, other):
    return {name.split(".")[0] for name in one if name in other and not torch.equal(one[name], other[name])}


def test_a_run_that_is_cut_off_goes_on_with_the_boxes_it_had(run, tmp_path):
    whole_run = state_after(run, tmp_path / "whole")
    assert any(name.endswith("located") and int(value) == 2 for name, value in whole_run.items())
    for step in (2, 5, 6, 9, 11):  # before boxes, right before and after they are found, in the midst
        with pytest.raises(Crash):
            state_after(run, tmp_path / "cut", crash=step)
    assert not unlike(state_after(run, tmp_path / "cut"), whole_run)


def test_until_boxes_are_found_the_run_is_that_with_random_crops(run, tmp_path):
    plain, located = (
        state_after(run, tmp_path, crop=crop, epochs=2) for crop in ("random_crop", "contrastive_crop(warmup=1)")
    )
    assert "encoder" in unlike(plain, located)
    with pytest.raises(Crash):
        state_after(run, tmp_path / "one", crash=5)
    with pytest.raises(Crash):
        state_after(run, tmp_path / "two", crash=5, crop="random_crop")
    at_four = [next((tmp_path / name).rglob("step-4.safetensors")) for name in ("one", "two")]
    one, two = (load_file(path) for path in at_four)
    assert not unlike(one, two)
