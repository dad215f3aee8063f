"""Views made in C against the same views made by torch, which test_views.py holds against torchvision."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onca import views
from onca.engine import engine
from onca.views import native

Views = pytest.importorskip("onca.engine.native")
try:
    ENGINE = Views.Native()
except ValueError as problem:
    pytest.skip(str(problem), allow_module_level=True)

LEVELS = [level for level in ("portable", "avx2", "avx512") if not ENGINE._c.onca_use(level.encode())]


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    ENGINE.use(request.param)
    yield request.param
    ENGINE.use(LEVELS[-1])


def images(count: int, height: int, width: int) -> torch.Tensor:
    draws = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8, generator=draws)


def drawn(name: str, size: int, count: int, height: int, width: int, seed: int = 0) -> views.Params:
    return views.draw(views.recipe(name, size), count, height, width, torch.Generator().manual_seed(seed))


def both(params: views.Params, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    with engine("native"):
        assert native.serves(params, pixels)
        made = views.apply(params, pixels)
    with engine("torch"):
        assert not native.serves(params, pixels)
        return made, views.apply(params, pixels)


@pytest.mark.parametrize("name", ["moco_v1", "moco_v2", "simclr"])
@pytest.mark.parametrize(
    ("height", "width", "size"), [(32, 32, 32), (96, 96, 96), (75, 120, 65), (17, 224, 40), (32, 32, 99), (1, 3, 2)]
)
def test_every_recipe_size_and_level_gives_torchs_views(
    level: str, name: str, height: int, width: int, size: int
) -> None:
    pixels, params = images(24, height, width), drawn(name, size, 24, height, width)
    for source in (pixels, pixels / 255):
        made, expected = both(params, source)
        torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)


@settings(max_examples=60, deadline=None)
@given(
    *(st.integers(1, 70) for _ in range(3)),
    st.floats(0.001, 1),
    st.permutations(["crop", "rotation", "flip", "jitter", "grey", "blur"]),
    st.integers(0, 2**31),
)
def test_any_shape_crop_and_order(height: int, width: int, size: int, low: float, order: list[str], seed: int) -> None:
    order.insert(0, order.pop(order.index("crop")))
    recipe = replace(
        views.recipe("simclr", size),
        crop_scale=(low, 1.0),
        crop_ratio=(0.1, 10.0),
        blur_chance=0.7 if size > 1 else 0.0,
        blur_taps=2 * ((size - 1) // 2) + 1 if size > 1 else 1,
        order=tuple(order),
    )
    params = views.draw(recipe, 5, height, width, torch.Generator().manual_seed(seed))
    made, expected = both(params, images(5, height, width))
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)


def test_a_planted_fault_is_seen() -> None:
    """What makes the tests above sharp: a pixel further, a little more hue, a little less blur are far off."""
    pixels, params = images(16, 96, 96), drawn("moco_v2", 96, 16, 95, 95)
    made, _ = both(params, pixels)
    assert params.jitter is not None and params.blur is not None
    moved = params.crop + torch.tensor([0, 1, 0, 0])
    for wrong in (
        replace(params, crop=moved),
        replace(params, jitter=replace(params.jitter, hue=params.jitter.hue + 0.002)),
        replace(params, blur=params.blur * 0.98),
    ):
        assert (both(wrong, pixels)[1] - made).abs().max() > 1e-4


def test_neither_threads_nor_neighbours_change_a_bit() -> None:
    pixels, params = images(19, 96, 96), drawn("simclr", 96, 19, 96, 96)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = both(params, pixels)[0]
        torch.set_num_threads(3)
        assert torch.equal(both(params, pixels)[0], one)
    finally:
        torch.set_num_threads(before)
    for row in (0, 7, 18):
        assert torch.equal(both(params[row : row + 1], pixels[row : row + 1])[0], one[row : row + 1])


def test_strides_and_other_types_of_parameters_are_read_right() -> None:
    wide, params = images(8, 40, 64), drawn("moco_v2", 32, 8, 40, 32)
    made, expected = both(params, wide[..., ::2])
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)
    assert params.jitter is not None
    spread = params.crop.int().repeat_interleave(2, 1)[:, ::2]
    double = replace(params, crop=spread, jitter=replace(params.jitter, hue=params.jitter.hue.double()))
    assert torch.equal(both(double, wide[..., ::2])[0], made)


def test_parameters_of_another_length_are_refused() -> None:
    params = drawn("moco_v2", 32, 8, 32, 32)
    assert params.flip is not None
    with engine("native"), pytest.raises(ValueError, match="8 views"):
        views.apply(replace(params, flip=params.flip[:4]), images(8, 32, 32))


def test_nan_comes_through() -> None:
    pixels = images(2, 32, 32) / 255
    pixels[1, :, 10:20, 10:20] = torch.nan
    params = replace(drawn("moco_v2", 32, 2, 32, 32), crop=torch.tensor([[0, 0, 32, 32]] * 2))
    made, _ = both(params, pixels)
    assert made[0].isfinite().all() and made[1, :, 12:18, 12:18].isnan().all()


def test_rotated_views_are_torchs() -> None:
    params = replace(drawn("moco_v2", 32, 4, 32, 32), rotation=torch.tensor([0.0, 90.0, 17.0, 0.0]))
    with engine("native"):
        assert not native.serves(params, images(4, 32, 32))
