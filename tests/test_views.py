"""Views: every op against torchvision's functional op, image by image; sharing, devices, bad input."""

import io
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as F

from onca import views
from onca.engine import engine
from onca.views import params as params_module

NEAR = 2e-6
RATIO = (3 / 4, 4 / 3)
TORCHVISION = {
    "brightness": F.adjust_brightness,
    "contrast": F.adjust_contrast,
    "saturation": F.adjust_saturation,
    "hue": F.adjust_hue,
}


@pytest.fixture(params=["torch", "native"])
def served(request):
    """Views by torch, and by C where that was compiled."""
    try:
        with engine(request.param):
            yield request.param
    except ValueError as problem:
        if request.param == "native" and "compile" in str(problem):
            pytest.skip(str(problem))
        raise


both_engines = pytest.mark.usefixtures("served")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(count, height, width, seed=0):
    """uint8 images: white noise, the hardest case for anything that interpolates."""
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=seeded(seed))


def corners(seed=0):
    """Float images where HSV has its edges: greys, black, white, two equal channels, tiny spans, pure colours."""
    levels = torch.tensor([0.0, 1e-7, 1 / 255, 0.25, 0.5, 0.5 + 1e-7, 254 / 255, 1.0])
    colours = torch.cartesian_prod(levels, levels, levels)
    return colours.T.reshape(1, 3, 16, 32).expand(64, -1, -1, -1)


def each(op, images, *columns):
    """The op of torchvision on one image after the other."""
    rows = zip(images, *(c.tolist() for c in columns), strict=True)
    return torch.stack([op(image, *values) for image, *values in rows])


def one_by_one(recipe_order, params, pixels, row):
    """One view by torchvision alone, in the given order of ops."""
    image = F.to_dtype(pixels[row], torch.float32, scale=True)
    for op in recipe_order:
        if op == "crop":
            image = F.resized_crop(image, *params.crop[row].tolist(), size=[params.size] * 2, antialias=True)
        elif op == "flip" and params.flip is not None and params.flip[row]:
            image = F.horizontal_flip(image)
        elif op == "rotation" and params.rotation is not None:
            image = F.rotate(image, params.rotation[row].item(), InterpolationMode.BILINEAR)
        elif op == "grey" and params.grey is not None and params.grey[row]:
            image = F.rgb_to_grayscale(image, num_output_channels=3)
        elif op == "blur" and params.blur is not None and params.blur[row] > 0:
            image = F.gaussian_blur(image, [params.blur_taps] * 2, [params.blur[row].item()] * 2)
        elif op == "jitter" and params.jitter is not None and params.jitter.applied[row]:
            for name in params.jitter.order:
                image = TORCHVISION[name](image, getattr(params.jitter, name)[row].item())
    return image


# Every op against torchvision's


@pytest.mark.parametrize(
    ("height", "width", "size"),
    [(32, 32, 32), (96, 96, 96), (96, 96, 32), (32, 32, 96), (75, 120, 64), (224, 180, 40)],
)
def test_crop_is_torchvisions_resized_crop(height, width, size):
    images = noise(64, height, width).float() / 255
    box = views.draw_crop(64, height, width, (0.05, 1.0), RATIO, seeded())
    box[:4] = torch.tensor([[0, 0, height, width], [height - 1, width - 1, 1, 1], [0, 3, height, 1], [5, 0, 2, width]])
    expected = each(lambda image, *b: F.resized_crop(image, *b, size=[size, size], antialias=True), images, *box.T)
    torch.testing.assert_close(views.apply_crop(images, box, size), expected, atol=NEAR, rtol=0)


def test_crop_of_bytes_is_that_of_floats_and_mirrors_on_the_way():
    pixels = noise(32, 40, 40)
    box = views.draw_crop(32, 40, 40, (0.2, 1.0), RATIO, seeded())
    flip = views.draw_flip(32, 0.5, seeded(1))
    floats = views.apply_crop(F.to_dtype(pixels, torch.float32, scale=True), box, 24)
    torch.testing.assert_close(views.apply_crop(pixels, box, 24), floats, atol=NEAR, rtol=0)
    mirrored = views.apply_flip(floats, flip)
    torch.testing.assert_close(views.apply_crop(pixels, box, 24, flip), mirrored, atol=NEAR, rtol=0)
    assert (mirrored - floats).abs().max() > 0.1


def test_uncropped_images_of_the_right_size_come_through_unchanged():
    pixels = noise(8, 32, 32)
    box = torch.tensor([[0, 0, 32, 32]]).expand(8, 4)
    torch.testing.assert_close(views.apply_crop(pixels, box, 32), pixels / 255, atol=1e-7, rtol=0)


def test_flip_is_torchvisions():
    images, flip = noise(16, 5, 7), views.draw_flip(16, 0.5, seeded())
    expected = torch.stack([F.horizontal_flip(i) if f else i for i, f in zip(images, flip, strict=True)])
    assert torch.equal(views.apply_flip(images, flip), expected)
    assert 0 < flip.sum() < 16


@pytest.mark.parametrize("op", ["brightness", "contrast", "saturation", "hue"])
@pytest.mark.parametrize("kind", ["noise32", "noise96", "corners"])
def test_colour_ops_are_torchvisions(op, kind):
    images = corners() if kind == "corners" else noise(64, int(kind[5:]), int(kind[5:])) / 255
    factor = torch.rand(64, generator=seeded(3)) - 0.5 if op == "hue" else 2 * torch.rand(64, generator=seeded(3))
    factor[:5] = torch.tensor([0.0, -0.5, 0.5, 1 / 6, -1 / 3] if op == "hue" else [0.0, 1.0, 2.0, 0.5, 1e-3])
    before = images.clone()
    expected = each(TORCHVISION[op], images, factor)
    torch.testing.assert_close(getattr(views, op)(images, factor), expected, atol=NEAR, rtol=0)
    assert torch.equal(images, before)


@settings(max_examples=200, deadline=None)
@given(st.tuples(*[st.floats(0, 1, width=32)] * 3), st.floats(-0.5, 0.5, width=32))
def test_hue_of_any_colour_is_torchvisions(colour, shift):
    image = torch.tensor(colour).view(1, 3, 1, 1)
    expected = F.adjust_hue(image[0], shift)
    torch.testing.assert_close(views.hue(image, torch.tensor([shift]))[0], expected, atol=NEAR, rtol=0)


@pytest.mark.parametrize("size", [32, 96])
def test_grey_is_torchvisions_and_spares_the_others_to_the_bit(size):
    images, grey = noise(64, size, size) / 255, views.draw_grey(64, 0.5, seeded())
    result = views.apply_grey(images, grey)
    expected = each(lambda image: F.rgb_to_grayscale(image, num_output_channels=3), images[grey])
    torch.testing.assert_close(result[grey], expected, atol=NEAR, rtol=0)
    assert torch.equal(result[~grey], images[~grey])


@pytest.mark.parametrize(("height", "width", "taps"), [(32, 32, 3), (32, 32, 23), (96, 96, 9), (30, 50, 7)])
def test_blur_is_torchvisions_and_spares_the_others_to_the_bit(height, width, taps):
    images, sigma = noise(64, height, width) / 255, views.draw_blur(64, (0.1, 2.0), 0.75, seeded())
    sigma[0] = 0.1
    blurred = sigma > 0
    result = views.apply_blur(images, sigma, taps)
    expected = each(lambda image, s: F.gaussian_blur(image, [taps, taps], [s, s]), images[blurred], sigma[blurred])
    torch.testing.assert_close(result[blurred], expected, atol=NEAR, rtol=0)
    assert torch.equal(result[~blurred], images[~blurred])


@pytest.mark.parametrize(("height", "width"), [(32, 32), (96, 96), (31, 44)])
def test_rotation_is_torchvisions(height, width):
    images = noise(64, height, width) / 255
    angle = torch.rand(64, generator=seeded()) * 720 - 360
    angle[:6] = torch.tensor([0.0, 90.0, 180.0, 270.0, -90.0, 360.0])
    expected = each(lambda image, a: F.rotate(image, a, InterpolationMode.BILINEAR), images, angle)
    torch.testing.assert_close(views.apply_rotation(images, angle), expected, atol=NEAR, rtol=0)


def test_quarter_turns_move_pixels_and_blend_none():
    images = noise(4, 32, 32) / 255
    turned = views.apply_rotation(images, torch.tensor([0.0, 90.0, 180.0, 270.0]))
    assert all(torch.equal(turned[k], images[k].rot90(k, (1, 2))) for k in range(4))


# Whole views


ORDERS = {
    "moco_v1": ("crop", "grey", "jitter", "flip"),
    "moco_v2": ("crop", "jitter", "grey", "blur", "flip"),
    "simclr": ("crop", "flip", "jitter", "grey", "blur"),
}


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("size", [32, 96])
@both_engines
def test_a_recipe_is_torchvisions_ops_in_the_papers_order(name, size):
    count = 96 if size == 32 else 32
    pixels = noise(count, size, size)
    for seed in range(3):  # three orders of the jitter
        params = views.draw(views.recipe(name, size), count, size, size, seeded(seed))
        expected = torch.stack([one_by_one(ORDERS[name], params, pixels, row) for row in range(count)])
        # hue is off by up to 1.2e-6, and the jitter ops after it multiply that by up to 1.8 each
        torch.testing.assert_close(views.apply(params, pixels), expected, atol=1e-5, rtol=0)


@both_engines
def test_the_order_of_ops_tells():
    """What makes the test above sharp: another order gives views that are far off."""
    pixels = noise(32, 32, 32)
    params = views.draw(views.recipe("moco_v2", 32), 32, 32, 32, seeded())
    swapped = replace(params, order=("crop", "rotation", "grey", "jitter", "blur", "flip"))
    assert (views.apply(params, pixels) - views.apply(swapped, pixels)).abs().max() > 0.01
    shuffled = replace(params, jitter=replace(params.jitter, order=params.jitter.order[::-1]))
    assert (views.apply(params, pixels) - views.apply(shuffled, pixels)).abs().max() > 0.01


@pytest.mark.parametrize("name", ["moco_v2", "simclr"])
@both_engines
def test_a_rotation_stands_where_the_order_puts_it(name):
    """In moco_v2 the flip comes after the rotation, in simclr before it."""
    recipe = replace(views.recipe(name, 32), rotation_chance=0.9, rotation_angles=(30.0, 90.0, 200.0))
    pixels = noise(64, 32, 32)
    params = views.draw(recipe, 64, 32, 32, seeded())
    expected = torch.stack([one_by_one(recipe.order, params, pixels, row) for row in range(64)])
    torch.testing.assert_close(views.apply(params, pixels), expected, atol=1e-5, rtol=0)
    backwards = torch.stack([one_by_one(_flip_moved(recipe.order), params, pixels, row) for row in range(64)])
    assert (backwards - expected).abs().max() > 0.1


def _flip_moved(order):
    rest = [op for op in order if op != "flip"]
    first = order.index("flip") > order.index("rotation")
    return ("crop", "flip", *rest[1:]) if first else (*rest, "flip")


def test_recipes_hold_the_papers_numbers():
    v1, v2, simclr = (views.recipe(name, 224) for name in ("moco_v1", "moco_v2", "simclr"))
    assert (v1.crop_scale, v1.jitter_strength, v1.jitter_chance) == ((0.2, 1.0), (0.4, 0.4, 0.4, 0.4), 1.0)
    assert (v2.crop_scale, v2.jitter_strength, v2.jitter_chance) == ((0.2, 1.0), (0.4, 0.4, 0.4, 0.1), 0.8)
    assert (simclr.crop_scale, simclr.jitter_strength) == ((0.08, 1.0), (0.8, 0.8, 0.8, 0.2))
    assert [r.blur_chance for r in (v1, v2, simclr)] == [0, 0.5, 0.5]
    assert all((r.grey_chance, r.flip_chance, r.crop_ratio) == (0.2, 0.5, RATIO) for r in (v1, v2, simclr))
    assert (v2.blur_taps, v2.blur_sigma) == (23, (0.1, 2.0))
    for name, order in ORDERS.items():
        assert [op for op in views.recipe(name, 224).order if op in order] == list(order)


@pytest.mark.parametrize("name", ORDERS)
def test_small_images_are_not_blurred(name):
    assert views.recipe(name, views.SMALL).blur_chance == 0
    assert views.recipe(name, views.SMALL + 1).blur_chance == (0 if name == "moco_v1" else 0.5)
    if name == "simclr":
        assert views.recipe(name, 32).jitter_strength == (0.4, 0.4, 0.4, 0.1)


def test_a_recipe_prints_what_it_does():
    assert str(views.recipe("moco_v2", 96)) == (
        "moco_v2, 96 px: crop(0.2-1 of the area, ratio 0.75-1.33), jitter(0.4, 0.4, 0.4, 0.1) 80%, grey 20%, "
        "blur(sigma 0.1-2, 9 taps) 50%, flip 50%"
    )


# Sharing, choosing, restricting parameters


@both_engines
def test_views_can_share_any_op():
    """A view that takes over an op's parameters does to an image what the other view does."""
    recipe = replace(views.recipe("simclr", 96), rotation_chance=0.5)
    pixels = noise(12, 96, 96)
    query, key = (views.draw(recipe, 12, 96, 96, seeded(seed)) for seed in (1, 2))
    fields = ("crop", "rotation", "flip", "jitter", "grey", "blur")
    shared = key
    for count, field in enumerate(fields, start=1):
        shared = replace(shared, **{field: getattr(query, field)})
        same = torch.equal(views.apply(shared, pixels), views.apply(query, pixels))
        assert same == (count == len(fields)), field
    colours = replace(key, jitter=query.jitter, grey=query.grey)
    images = views.apply_crop(pixels, key.crop, 96)
    assert torch.equal(views.apply_jitter(images, colours.jitter), views.apply_jitter(images, query.jitter))


@both_engines
def test_rows_of_parameters_make_the_rows_of_the_views():
    pixels = noise(40, 96, 96)
    params = views.draw(views.recipe("simclr", 96), 40, 96, 96, seeded())
    whole = views.apply(params, pixels)
    for rows in (torch.tensor([31, 2, 2, 17]), slice(5, 9), params.grey):
        part = params[rows]
        assert len(part) == len(pixels[rows])
        torch.testing.assert_close(views.apply(part, pixels[rows]), whole[rows], atol=NEAR, rtol=0)


@both_engines
def test_boxes_can_be_set_from_elsewhere():
    pixels = noise(6, 64, 64)
    params = views.draw(replace(views.recipe("moco_v2", 32), jitter_chance=0, grey_chance=0), 6, 64, 64, seeded())
    middle = replace(params, crop=torch.tensor([[16, 16, 32, 32]]).expand(6, 4), flip=None)
    torch.testing.assert_close(views.apply(middle, pixels), pixels[:, :, 16:48, 16:48] / 255, atol=NEAR, rtol=0)


# How it runs


def test_sub_batches_change_nothing(monkeypatch):
    pixels = noise(50, 32, 32)
    params = views.draw(views.recipe("moco_v2", 32), 50, 32, 32, seeded())
    with engine("torch"):
        whole = views.apply(params, pixels)
        for values in (1, 7 * 3 * 32 * 32):
            monkeypatch.setattr(params_module, "_VALUES_AT_ONCE_CPU", values)
            torch.testing.assert_close(views.apply(params, pixels), whole, atol=NEAR, rtol=0)


@both_engines
def test_views_are_contiguous_floats_in_0_to_1_and_leave_the_pixels_alone():
    pixels = noise(20, 48, 40)
    before = pixels.clone()
    view = views.apply(views.draw(views.recipe("simclr", 96), 20, 48, 40, seeded()), pixels)
    assert view.shape == (20, 3, 96, 96) and view.dtype == torch.float32 and view.is_contiguous()
    assert view.min() >= -1e-6 and view.max() <= 1 + 1e-6
    assert torch.equal(pixels, before)


@both_engines
def test_bytes_and_floats_give_the_same_views():
    pixels = noise(20, 32, 32)
    params = views.draw(views.recipe("moco_v2", 32), 20, 32, 32, seeded())
    torch.testing.assert_close(views.apply(params, pixels / 255), views.apply(params, pixels), atol=1e-5, rtol=0)


@both_engines
def test_autocast_does_not_blunt_the_views():
    pixels = noise(20, 96, 96)
    params = views.draw(views.recipe("moco_v2", 96), 20, 96, 96, seeded())
    with torch.autocast("cpu", torch.bfloat16):
        inside = views.apply(params, pixels)
    assert torch.equal(inside, views.apply(params, pixels))


@both_engines
def test_no_images_are_no_views():
    params = views.draw(views.recipe("moco_v2", 32), 0, 32, 32, seeded())
    assert views.apply(params, noise(0, 32, 32)).shape == (0, 3, 32, 32)


def test_views_need_torch_alone():
    code = "import sys, onca.views; assert not {'torchvision', 'PIL', 'scipy'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_parameters_may_stay_on_the_cpu():
    """Tensors without data refuse to meet CPU tensors as a GPU's do: every parameter must be brought over."""
    recipe = replace(views.recipe("moco_v2", 96), rotation_chance=0.8, rotation_angles=(90.0, 180.0, 17.0))
    params = views.draw(recipe, 16, 64, 80, seeded())
    pixels = torch.empty(16, 3, 64, 80, dtype=torch.uint8, device="meta")
    assert params_module._apply(params, pixels).shape == (16, 3, 96, 96)  # `apply` itself: autocast knows no "meta"
    with pytest.raises(RuntimeError):
        torch.ones(3, device="meta") + torch.ones(3)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_is_not_waited_for_when_parameters_are_on_the_cpu():
    recipe = replace(views.recipe("moco_v2", 96), rotation_chance=0.5, rotation_angles=(90.0, 180.0, 17.0))
    params = views.draw(recipe, 64, 96, 96, seeded())
    pixels = noise(64, 96, 96).cuda()
    torch.cuda.set_sync_debug_mode("error")
    try:
        views.apply(params, pixels)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("drawn_on", ["cpu", "cuda"])
@pytest.mark.parametrize("size", [32, 96])
def test_cuda_makes_the_views_of_the_cpu(drawn_on, size):
    recipe = replace(views.recipe("simclr", size), rotation_chance=0.5, rotation_angles=(90.0, 180.0, 17.0))
    pixels = noise(64, size, size)
    params = views.draw(recipe, 64, size, size, torch.Generator(drawn_on).manual_seed(0))
    on_device = views.apply(params, pixels.cuda())
    assert on_device.is_cuda
    on_cpu = torch.stack([one_by_one(recipe.order, params, pixels, row) for row in range(64)])
    torch.testing.assert_close(on_device.cpu(), on_cpu, atol=1e-5, rtol=0)


# Bad input


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"size": 0}, "size"),
        ({"jitter_chance": 80}, "jitter_chance"),
        ({"crop_scale": (0.0, 1.0)}, "crop_scale"),
        ({"crop_scale": (0.5, 0.2)}, "crop_scale"),
        ({"crop_ratio": (2.0, 1.0)}, "crop_ratio"),
        ({"blur_sigma": (0.0, 1.0)}, "blur_sigma"),
        ({"jitter_strength": (0.4, 0.4, 0.4, 0.6)}, "hue"),
        ({"jitter_strength": (-0.4, 0.4, 0.4, 0.1)}, "jitter_strength"),
        ({"blur_taps": 4}, "blur_taps"),
        ({"blur_taps": 65, "blur_chance": 0.5}, "blur_taps"),
        ({"rotation_chance": 0.5, "rotation_angles": ()}, "rotation_angles"),
        ({"order": ("crop", "jitter")}, "order"),
        ({"order": ("flip", "crop", "rotation", "jitter", "grey", "blur")}, "crop first"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(change, says):
    with pytest.raises(ValueError, match=says):
        replace(views.recipe("moco_v2", 32), **change)


@both_engines
def test_other_bad_input_is_one_clear_error():
    recipe = views.recipe("moco_v2", 32)
    params = views.draw(recipe, 4, 32, 32, seeded())
    with pytest.raises(ValueError, match="moco_v1, moco_v2, simclr"):
        views.recipe("moco", 32)
    with pytest.raises(ValueError, match="0 x 32"):
        views.draw(recipe, 4, 0, 32, seeded())
    with pytest.raises(ValueError, match=r"\[4, 3, H, W\], not \[5, 3, 32, 32\]"):
        views.apply(params, noise(5, 32, 32))
    with pytest.raises(ValueError, match="int64"):
        views.apply(params, noise(4, 32, 32).long())
    with pytest.raises(ValueError, match="16 x 16"):
        views.apply(replace(params, crop=torch.tensor([[0, 0, 17, 8]]).expand(4, 4)), noise(4, 16, 16))
    with pytest.raises(ValueError, match="4 taps"):
        views.apply_blur(torch.rand(2, 3, 8, 8), torch.ones(2), 4)


# Real images


@pytest.mark.realdata
@both_engines
def test_views_of_real_images_are_torchvisions():
    pack = Path(os.environ.get("ONCA_DATA", Path(__file__).parents[1] / "../shared/data")) / "cifar100" / "test.npz"
    if not pack.is_file():
        pytest.skip(f"no real images: {pack} is absent, set ONCA_DATA")
    with np.load(pack, allow_pickle=False) as archive:
        data, offsets = archive["data"], archive["offsets"]
    files = [io.BytesIO(data[offsets[i] : offsets[i + 1]].tobytes()) for i in range(64)]
    pixels = torch.stack([F.pil_to_tensor(Image.open(file).convert("RGB")) for file in files])
    for name, order in ORDERS.items():
        params = views.draw(views.recipe(name, 32), 64, 32, 32, seeded())
        expected = torch.stack([one_by_one(order, params, pixels, row) for row in range(64)])
        torch.testing.assert_close(views.apply(params, pixels), expected, atol=1e-5, rtol=0)
