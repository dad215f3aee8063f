"""Encoders of several embeddings: CMC's two halves of a colour image, LooC's heads."""

import pytest
import torch

from onca.encoders import ColourSplit, Spaces, SplitBatchNorm2d, lab, make, split_batch_norm, ycbcr

Tensor = torch.Tensor

# CIE Lab of sRGB's corners under D65, as tables give them to two decimals.
CORNERS = {
    (0, 0, 0): (0, 0, 0),
    (1, 1, 1): (100, 0, 0),
    (1, 0, 0): (53.24, 80.09, 67.20),
    (0, 1, 0): (87.73, -86.18, 83.18),
    (0, 0, 1): (32.30, 79.19, -107.86),
    (1, 1, 0): (97.14, -21.55, 94.48),
    (0, 1, 1): (91.11, -48.09, -14.13),
    (1, 0, 1): (60.32, 98.23, -60.82),
}


def images(count: int = 4, side: int = 16, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


def test_lab_of_known_colours() -> None:
    rgb = torch.tensor(list(CORNERS), dtype=torch.float64)[:, :, None, None]
    found = lab(rgb)[:, :, 0, 0]
    torch.testing.assert_close(found, torch.tensor(list(CORNERS.values()), dtype=torch.float64), rtol=0, atol=0.02)


@pytest.mark.parametrize("convert", [lab, ycbcr])
def test_grey_has_no_colour(convert) -> None:
    grey = torch.linspace(0, 1, 50, dtype=torch.float64)[:, None, None, None].expand(-1, 3, 1, 1)
    found = convert(grey)[:, :, 0, 0]
    assert float(found[:, 1:].abs().max()) < 1e-12
    assert bool((found[1:, 0] > found[:-1, 0]).all())


def test_ycbcr_is_that_of_jpeg() -> None:
    rgb = images().double()
    red, green, blue = rgb.unbind(1)
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    expected = torch.stack((luma, (blue - luma) / 1.772, (red - luma) / 1.402), 1)
    torch.testing.assert_close(ycbcr(rgb), expected)


@pytest.mark.parametrize("space", ["lab", "ycbcr"])
def test_channels_span_about_one(space: str) -> None:
    corners = torch.tensor(list(CORNERS), dtype=torch.float32)[:, :, None, None].expand(-1, -1, 4, 4)
    made = ColourSplit("small(2)", "linear", 4, space)
    halves = made.backbone.split(corners)
    assert [half.shape[1] for half in halves] == [1, 2]
    assert float(halves[0].min()) == pytest.approx(-1, abs=1e-6) and float(halves[0].max()) == pytest.approx(
        1, abs=1e-5
    )
    assert 0.9 < float(halves[1].abs().max()) < 1.1


def test_each_half_sees_its_own_channels_only() -> None:
    torch.manual_seed(0)
    made = ColourSplit("small(2)", "mlp", 5).eval().double()
    one, grey = images().double(), images().double().mean(1, keepdim=True).expand(-1, 3, -1, -1)
    embedded, features = made(one), made.features(one)
    assert embedded.shape == (4, 10) and features.shape == (4, made.width) == (4, 16)
    assert made.maps(one).shape == (4, 16, 2, 2)
    torch.testing.assert_close(made.maps(one).mean((2, 3)), features)
    heads = zip(made.head.halves, features.chunk(2, 1), strict=True)
    torch.testing.assert_close(torch.cat([head(half) for head, half in heads], 1), embedded)
    colourless = made(grey)[:, 5:]  # the same for every grey image, to rounding
    torch.testing.assert_close(colourless, colourless[:1].expand(4, -1), rtol=0, atol=1e-12)
    assert float((made(one)[:, 5:] - colourless).detach().abs().min()) > 1e-9


@pytest.mark.parametrize("name", ["small(2)", "resnet18(stem='small')", "resnet18"])
def test_backbones_take_other_channels(name: str) -> None:
    made = ColourSplit(name, "linear", 3)
    assert made(images(2, 32)).shape == (2, 6)
    assert split_batch_norm(made, 2)(images(4, 32)).shape == (4, 6)
    assert any(isinstance(layer, SplitBatchNorm2d) for layer in made.modules())


def test_channels_are_not_written_into_a_name() -> None:
    with pytest.raises(ValueError, match="encoder 'small"):
        make("small(4, channels=1)", "linear", 3)


def test_colour_is_converted_in_full_precision_under_autocast() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(lab(images()), lab(images())) and lab(images()).dtype == torch.float32
        found = lab(images())
    torch.testing.assert_close(found, lab(images()), rtol=0, atol=0)


@pytest.mark.parametrize("head", ["linear", "mlp"])
def test_one_space_is_the_plain_encoder(head: str) -> None:
    torch.manual_seed(0)
    plain = make("small(2)", head, 5).eval()
    torch.manual_seed(0)
    made = Spaces("small(2)", head, 5, 1).eval()
    assert torch.equal(made(images()), plain(images())) and made.width == plain.width


def test_spaces_share_the_backbone_and_nothing_else() -> None:
    torch.manual_seed(0)
    made = Spaces("small(2)", "mlp", 5, 3).eval()
    features, embedded = made.features(images()), made(images())
    assert embedded.shape == (4, 15) and made.maps(images()).shape == (4, 8, 2, 2)
    hidden = made.features_of_spaces(images())
    assert hidden.shape == (4, made.width_of_spaces) == (4, 24) and float(hidden.detach().min()) >= 0
    for space, head in enumerate(made.head.spaces):
        torch.testing.assert_close(embedded[:, 5 * space : 5 * space + 5], head(features))
        torch.testing.assert_close(hidden[:, 8 * space : 8 * space + 8], torch.relu(head[0](features)))
        torch.testing.assert_close(head[2](hidden[:, 8 * space : 8 * space + 8]), head(features))
    weights = [head[0].weight for head in made.head.spaces]
    assert not torch.equal(weights[0], weights[1])


@pytest.mark.parametrize(
    ("act", "words"),
    [
        (lambda: ColourSplit("small", "linear", 4, "hsv"), "colour space 'hsv' is not known; known are lab, ycbcr"),
        (lambda: ColourSplit("smal", "linear", 4), "did you mean small"),
        (lambda: ColourSplit("small", "linea", 4), "head 'linea' is not known; did you mean linear"),
        (lambda: ColourSplit("small", "mlp", 0), "dim is the length of an embedding"),
        (lambda: Spaces("small", "mlp", 4, 0), "spaces is the number of embedding spaces, 1 or more; got 0"),
        (lambda: Spaces("small(1)", "linear", 4, 2).features_of_spaces(images()), "take head \"mlp\""),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(act, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        act()
