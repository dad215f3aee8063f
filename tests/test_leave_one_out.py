"""LooC's views: each key view shares the parameters of one augmentation with the query, and of no other."""

from dataclasses import replace

import pytest
import torch

from onca import views
from onca.views.leave_one_out import AUGMENTATIONS, leave_one_out, looc_views, share

Tensor = torch.Tensor
RECIPE = replace(
    views.recipe("moco_v2", 32), rotation_chance=1.0, grey_chance=0.5, blur_chance=1.0, blur_taps=3, jitter_chance=1.0
)
COUNT = 400


def drawn(augmentations: tuple[str, ...], recipe: views.Recipe = RECIPE, seed: int = 0) -> list[views.Params]:
    places = range(len(augmentations) + 2)
    return looc_views(
        recipe, augmentations, COUNT, 32, 32, [torch.Generator().manual_seed(100 * seed + place) for place in places]
    )


def equal(one: views.Params, other: views.Params, op: str) -> bool:
    """Whether the parameters of an op are the same for all images; by chance they hardly ever are."""
    a, b = getattr(one, op), getattr(other, op)
    if op == "jitter":
        return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("brightness", "contrast", "hue"))
    return torch.equal(a, b)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5])
def test_plan(n: int) -> None:
    plan = leave_one_out(n)
    assert plan.shape == (n + 2, n) and plan.dtype == torch.int64
    for column in range(n):
        assert (plan[:, column] == 0).nonzero()[:, 0].tolist() == [0, column + 2]  # q and its own key view
        assert len(set(plan[:, column].tolist())) == n + 1


@pytest.mark.parametrize(
    "augmentations", [(), ("rotation",), ("colour", "rotation"), ("texture", "colour", "rotation")]
)
def test_only_the_kept_augmentation_is_shared(augmentations: tuple[str, ...]) -> None:
    made = drawn(augmentations)
    assert len(made) == len(augmentations) + 2
    ops = {name: op for op in ("crop", "rotation", "flip", "jitter", "grey", "blur") for name in [op]}
    for first in range(len(made)):
        for second in range(first + 1, len(made)):
            for op in ops:
                kept = second >= 2 and op in AUGMENTATIONS[augmentations[second - 2]]
                assert equal(made[first], made[second], op) == (first == 0 and kept), (first, second, op)


def test_the_query_and_the_first_key_are_what_was_drawn() -> None:
    """A run with and without kept augmentations sees the same first two views."""
    plain, kept = drawn(()), drawn(("rotation", "colour"))
    for one, other in zip(plain, kept, strict=False):
        assert all(equal(one, other, op) for op in ("crop", "rotation", "flip", "jitter", "grey", "blur"))


def test_views_of_one_colour_look_alike_in_colour() -> None:
    """Applied to images of one colour each, views that share all of colour are equal, whatever else differs."""
    recipe = replace(RECIPE, rotation_chance=0.0, blur_chance=0.0)
    pixels = torch.rand(COUNT, 3, 1, 1, generator=torch.Generator().manual_seed(1)).expand(-1, -1, 32, 32)
    query, first, shared = (views.apply(params, pixels) for params in drawn(("colour",), recipe))
    torch.testing.assert_close(query, shared, rtol=0, atol=1e-5)
    assert float((query - first).abs().amax((1, 2, 3)).median()) > 0.05


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: drawn(("rotations",)), "called 'rotations': a space keeps rotation, colour, texture"),
        (lambda: drawn(("rotation", "rotation")), "each augmentation has one space"),
        (lambda: drawn(("rotation",), views.recipe("moco_v2", 32)), "never draws: give it a rotation_chance above 0"),
        (lambda: drawn(("texture",), views.recipe("moco_v2", 32)), "a space keeps texture, .* blur_chance above 0"),
        (lambda: share(drawn(()), ("rotation",)), "1 augmentations are kept in 3 views; got 2"),
        (lambda: leave_one_out(-1), "0 or more; got -1"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(act, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        act()
