"""What views are drawn: distributions, chances and orders against torchvision's draws and the recipe's words."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from onca import views

RATIO = (3 / 4, 4 / 3)
JITTERS = ("brightness", "contrast", "saturation", "hue")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(count, height, width):
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=seeded())


def test_crop_boxes_are_distributed_as_torchvisions():
    torch.manual_seed(0)
    image = torch.empty(3, 60, 90)
    theirs = np.array([RandomResizedCrop.get_params(image, [0.2, 1.0], list(RATIO)) for _ in range(6000)])
    ours = views.draw_crop(6000, 60, 90, (0.2, 1.0), RATIO, seeded()).numpy()
    facts = {
        "top": lambda b: b[:, 0],
        "left": lambda b: b[:, 1],
        "height": lambda b: b[:, 2],
        "width": lambda b: b[:, 3],
        "area": lambda b: b[:, 2] * b[:, 3],
        "ratio": lambda b: b[:, 3] / b[:, 2],
        "bottom": lambda b: b[:, 0] + b[:, 2],
    }
    for name, fact in facts.items():
        assert stats.ks_2samp(fact(ours), fact(theirs)).pvalue > 1e-3, name


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 80), st.integers(1, 80), st.floats(0.01, 1), st.integers(0, 2**31))
def test_boxes_lie_inside_the_image(height, width, low, seed):
    box = views.draw_crop(50, height, width, (low, 1.0), RATIO, seeded(seed))
    assert (box[:, :2] >= 0).all() and (box[:, 2:] >= 1).all()
    assert (box[:, 0] + box[:, 2] <= height).all() and (box[:, 1] + box[:, 3] <= width).all()


def test_every_place_is_reached_equally_often():
    box = views.draw_crop(40000, 8, 8, (0.3, 0.5), (1.0, 1.0), seeded())
    for extent in box[:, 2].unique().tolist():
        top = box[box[:, 2] == extent, 0]
        counts = torch.bincount(top, minlength=8 - extent + 1)
        assert len(counts) == 8 - extent + 1
        assert stats.chisquare(counts.numpy()).pvalue > 1e-3


@pytest.mark.parametrize(("height", "width"), [(10, 100), (100, 10), (1, 7), (33, 10)])
def test_where_no_box_fits_the_crop_is_torchvisions_centre(height, width):
    expected = RandomResizedCrop.get_params(torch.empty(3, height, width), [1.0, 1.0], list(RATIO))
    box = views.draw_crop(20, height, width, (1.0, 1.0), RATIO, seeded())
    assert box.tolist() == [list(expected)] * 20


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 2**31))
def test_recorded_draws_give_the_first_box_that_fits(height, width, seed):
    rng = np.random.default_rng(seed)
    share, log_ratio = rng.uniform(0.05, 1.5, (8, 10)), rng.uniform(-1.5, 1.5, (8, 10))
    share[0, 5:] = np.nan  # tries that were not made
    extent, fits = views.crop_extents(torch.tensor(share), torch.tensor(log_ratio), height, width, RATIO)
    for row in range(8):
        expected = None
        for s, r in zip(share[row], log_ratio[row], strict=True):
            if math.isnan(s):
                break
            wide = round(math.sqrt(s * height * width * math.exp(r)))
            tall = round(math.sqrt(s * height * width / math.exp(r)))
            if 0 < wide <= width and 0 < tall <= height:
                expected = [tall, wide]
                break
        assert bool(fits[row]) == (expected is not None)
        if expected is not None:
            assert extent[row].tolist() == expected


def test_chances_and_factors_follow_the_recipe():
    recipe = replace(views.recipe("simclr", 96), rotation_chance=0.3, jitter_strength=(0.8, 1.5, 0.4, 0.2))
    n = 20000
    drawn = views.draw(recipe, n, 96, 96, seeded())
    jittered = drawn.jitter.applied
    for got, chance in (
        (drawn.flip, 0.5),
        (drawn.grey, 0.2),
        (drawn.blur > 0, 0.5),
        (drawn.rotation != 0, 0.3),
        (jittered, 0.8),
    ):
        assert abs(got.double().mean() - chance) < 4 * math.sqrt(chance * (1 - chance) / n)
    for values, low, high in (
        (drawn.jitter.brightness[jittered], 0.2, 1.8),
        (drawn.jitter.contrast[jittered], 0.0, 2.5),  # not below 0
        (drawn.jitter.saturation[jittered], 0.6, 1.4),
        (drawn.jitter.hue[jittered], -0.2, 0.2),
        (drawn.blur[drawn.blur > 0], 0.1, 2.0),
    ):
        assert stats.kstest(values.numpy(), stats.uniform(low, high - low).cdf).pvalue > 1e-3
    neutral = drawn.jitter[~jittered]
    assert (neutral.contrast == 1).all() and (neutral.saturation == 1).all() and (neutral.hue == 0).all()
    turned = drawn.rotation[drawn.rotation != 0]
    assert stats.chisquare([(turned == a).sum().item() for a in (90, 180, 270)]).pvalue > 1e-3


def test_the_draws_of_different_ops_are_independent():
    drawn = views.draw(views.recipe("simclr", 96), 20000, 96, 96, seeded())
    jitter = drawn.jitter[drawn.jitter.applied]
    top, tall = drawn.crop[:, 0], drawn.crop[:, 2]
    shown = {"flip": drawn.flip, "grey": drawn.grey, "blur": drawn.blur, "top": top, "tall": tall}
    for columns in ({**shown, "jitter": drawn.jitter.applied}, {k: getattr(jitter, k) for k in JITTERS}):
        shared = torch.corrcoef(torch.stack([c.double() for c in columns.values()]))
        allowed = torch.eye(len(columns), dtype=torch.bool)
        names = list(columns)
        if "top" in names:  # a tall box has little room
            allowed[names.index("top"), names.index("tall")] = allowed[names.index("tall"), names.index("top")] = True
        assert shared[~allowed].abs().max() < 4.5 / math.sqrt(len(next(iter(columns.values()))))


def test_each_order_of_the_jitter_is_drawn_equally_often():
    generator = seeded()
    strength = (0.4, 0.4, 0.4, 0.1)
    orders = [views.draw_jitter(1, strength, 0.8, generator).order for _ in range(2400)]
    counts = [orders.count(order) for order in itertools.permutations(JITTERS)]
    assert sum(counts) == 2400
    assert stats.chisquare(counts).pvalue > 1e-3


def test_an_op_without_strength_or_chance_is_left_out():
    recipe = replace(views.recipe("moco_v2", 32), jitter_strength=(0.4, 0, 0.4, 0), grey_chance=0, flip_chance=0)
    drawn = views.draw(recipe, 4, 32, 32, seeded())
    assert set(drawn.jitter.order) == {"brightness", "saturation"}
    assert drawn.grey is None and drawn.flip is None and drawn.blur is None and drawn.rotation is None
    bare = views.draw(replace(recipe, jitter_chance=0), 4, 32, 32, seeded())
    pixels = noise(4, 32, 32)
    torch.testing.assert_close(views.apply(bare, pixels), views.apply_crop(pixels, bare.crop, 32), atol=2e-6, rtol=0)


def test_the_generator_decides_everything():
    recipe = replace(views.recipe("moco_v2", 96), rotation_chance=0.5)
    pixels = noise(16, 96, 96)
    torch.manual_seed(1)
    first = views.apply(views.draw(recipe, 16, 96, 96, seeded(5)), pixels)
    torch.manual_seed(2)
    assert torch.equal(first, views.apply(views.draw(recipe, 16, 96, 96, seeded(5)), pixels))
    generator = seeded(5)
    state = torch.get_rng_state()
    views.draw(recipe, 16, 96, 96, generator)
    assert torch.equal(state, torch.get_rng_state())  # the global generator is not touched
    second = views.apply(views.draw(recipe, 16, 96, 96, generator), pixels)
    assert (first - second).abs().max() > 0.1
