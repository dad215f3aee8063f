"""Near-duplicates: what was planted is found, what is merely alike is not, and no pair is lost to the first look."""

import re
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional

import onca
from onca.data import ImageSet, duplicates, load
from onca.data.descriptors import (
    hash_of,
    mirrored_outlines,
    mirrored_waves,
    outlines,
    perceptual_hash,
    waves,
)
from onca.data.duplicates import _alike, components, duplicate_pairs, near_duplicates

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks import duplicates as planting


def image_set(pixels: torch.Tensor, index: torch.Tensor | None = None) -> ImageSet:
    count = len(pixels)
    return ImageSet(
        pixels, torch.full((count,), -1), torch.arange(count) if index is None else index, (), {}, "planted"
    )


@pytest.fixture(scope="module")
def coats() -> torch.Tensor:
    pixels = load("world", images=300).train.pixels
    assert pixels is not None
    return pixels


def changed(pixels: torch.Tensor) -> dict[str, torch.Tensor]:
    """The same pictures after what happens to pictures on their way through the web."""
    values = pixels.float()
    noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    smaller = functional.interpolate(values, size=24, mode="area")
    made = {
        "copied": values,
        "darker": values * 0.7,
        "paler": values * 0.6 + 80,
        "grey": values.mean(1, keepdim=True).expand_as(values),
        "noisy": values + 4 * noise,
        "made smaller": functional.interpolate(smaller, size=32, mode="bilinear"),
        "red for blue": values.flip(1),
    }
    return {name: value.clamp(0, 255).round().to(torch.uint8) for name, value in made.items()}


@pytest.mark.parametrize(
    ("how", "least"),
    [
        ("copied", 40),
        ("darker", 36),
        ("paler", 36),
        ("grey", 32),
        ("noisy", 36),
        ("made smaller", 16),
        ("red for blue", 28),
    ],
)
def test_planted_duplicates_are_found_and_nothing_else(coats: torch.Tensor, how: str, least: int) -> None:
    """Images 0-39 stand again at 300-339, changed."""
    pairs = duplicate_pairs(image_set(torch.cat([coats, changed(coats[:40])[how]])))
    found = {tuple(pair) for pair in pairs.rows.tolist()}
    planted = {(k, 300 + k) for k in range(40)}
    assert found <= planted
    assert len(found) >= least
    assert bool(pairs.identical.all()) == (how == "copied")
    assert not bool(pairs.mirrored.any())


@pytest.mark.parametrize(("how", "least"), [("copied", 40), ("darker", 36), ("noisy", 36), ("made smaller", 16)])
def test_planted_mirror_images_are_found_and_said_to_be(coats: torch.Tensor, how: str, least: int) -> None:
    images = image_set(torch.cat([coats, changed(coats[:40])[how].flip(-1)]))
    pairs = duplicate_pairs(images)
    assert {tuple(pair) for pair in pairs.rows.tolist()} <= {(k, 300 + k) for k in range(40)}
    assert len(pairs) >= least and bool(pairs.mirrored.all()) and not bool(pairs.identical.any())
    if how == "copied":
        assert pairs.bits.tolist() == [0] * 40 and float(pairs.outline.min()) > 1 - 1e-5
    assert len(duplicate_pairs(images, mirrored=False)) == 0
    group = near_duplicates(images)
    assert int((group[300:] == torch.arange(40)).sum()) == len(pairs)
    assert near_duplicates(images, mirrored=False).unique().numel() == 340


def test_upside_down_is_another_picture(coats: torch.Tensor) -> None:
    assert len(duplicate_pairs(image_set(torch.cat([coats, coats[:40].flip(-2)])))) == 0


def test_a_pair_that_is_alike_both_ways_is_listed_once_as_upright(coats: torch.Tensor) -> None:
    """Pictures that are their own mirror images, and the same a little darker."""
    symmetric = ((coats[:20].float() + coats[:20].float().flip(-1)) / 2).to(torch.uint8)
    pairs = duplicate_pairs(image_set(torch.cat([symmetric, changed(symmetric)["darker"]])))
    assert pairs.rows.tolist() == [[k, 20 + k] for k in range(20)] and not bool(pairs.mirrored.any())


@pytest.mark.parametrize("size", [20, 32, 45, 64])
def test_what_is_known_of_an_image_tells_what_its_mirror_image_has(coats: torch.Tensor, size: int) -> None:
    """At sizes below, at and above that of the descriptors, and at one that does not divide."""
    images = functional.interpolate(coats[:50].float(), size=size, mode="bilinear").to(torch.uint8)
    flipped = images.flip(-1)
    here, there = outlines(images)[:, mirrored_outlines()], outlines(flipped)
    assert torch.allclose(here, there, atol=2e-4) and not torch.allclose(outlines(images), there, atol=0.1)
    assert torch.allclose(mirrored_waves(waves(images)), waves(flipped), atol=0.05)
    assert float((hash_of(mirrored_waves(waves(images))) == perceptual_hash(flipped)).float().mean()) > 0.999


def test_every_identical_pair_is_found_even_without_outlines() -> None:
    """Plain images have no outlines: only those of one colour are duplicates of each other."""
    shades = torch.tensor([10, 90, 10, 200, 90, 10], dtype=torch.uint8)
    pairs = duplicate_pairs(image_set(shades[:, None, None, None].expand(6, 3, 32, 32).contiguous()))
    assert pairs.rows.tolist() == [[0, 2], [0, 5], [1, 4]] and bool(pairs.identical.all())
    assert pairs.bits.tolist() == [0, 0, 0] and pairs.outline.tolist() == [1, 1, 1]


def test_many_copies_of_one_image_are_one_group(coats: torch.Tensor) -> None:
    """As many pairs as copies, not the square of it."""
    pixels = coats[:1].expand(3000, -1, -1, -1).contiguous()
    assert len(duplicate_pairs(image_set(pixels))) == 2999
    assert near_duplicates(image_set(pixels)).unique().tolist() == [0]


@pytest.mark.parametrize("least", [0.2, 0.6, 0.9])
@pytest.mark.parametrize("spread", [0.0, 0.05, 3.0])
def test_the_first_look_loses_no_pair(least: float, spread: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against all products in float64: rows that crowd together, rows that do not, and a zero row."""
    monkeypatch.setattr(duplicates, "ROWS", 250)  # three blocks, the last one short
    draw = torch.Generator().manual_seed(0)
    rows = torch.randn(600, 200, generator=draw) + spread * torch.randn(200, generator=draw)
    rows[::3] = rows[1::3] + torch.rand(200, 1, generator=draw) * torch.randn(200, 200, generator=draw)
    rows = functional.normalize(rows)
    rows[7] = 0
    mirror = torch.arange(200)
    mirror[:150] = mirror[:150].view(75, 2).flip(1).flatten()  # 75 couples change places, 50 stay
    some = torch.randint(0, 600, (2, 60), generator=draw)
    rows[some[0]] = rows[some[1]][:, mirror]
    upper = torch.ones(600, 600).triu(1).bool()
    pairs, cosines, mirrored = _alike(rows, mirror, least)
    for turned in (False, True):
        exact = rows.double() @ (rows[:, mirror] if turned else rows).double().T
        sure, possible = exact >= least + 1e-6, exact >= least - 1e-6
        (first, second), found = pairs[mirrored == turned].T, torch.zeros(600, 600, dtype=torch.bool)
        found[first, second] = True
        assert int((sure & upper).sum()) > 50 and len(first) == int(found.sum())
        assert bool((found[sure & upper]).all()) and not bool((found & ~(possible & upper)).any())
        assert float((exact[first, second] - cosines[mirrored == turned]).abs().max()) < 1e-5


def test_who_waits_is_told_how_far_it_is(coats: torch.Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "ROWS", 100)
    told: list[tuple[int, int]] = []
    found = near_duplicates(image_set(coats), watch=lambda done, of: told.append((done, of)))
    assert torch.equal(found, near_duplicates(image_set(coats)))
    assert told == sorted(told) and told[-1] == (len(coats), len(coats)) and len({done for done, _ in told}) > 6


@pytest.mark.parametrize("count", [1, 2, 5, 40])
def test_few_rows_lose_none_either(count: int) -> None:
    """Fewer rows than directions: most directions are of no row, and may not be taken for what they are not."""
    mirror = torch.arange(200).flip(0)
    rows = functional.normalize(torch.randn(count, 200, generator=torch.Generator().manual_seed(count)))
    rows = torch.cat([rows, rows[:, mirror], rows])
    pairs, _, mirrored = _alike(rows, mirror, 0.99)
    expected = [(k, k + count, True) for k in range(count)] + [(k + count, k + 2 * count, True) for k in range(count)]
    expected += [(k, k + 2 * count, False) for k in range(count)]
    found = [(*pair, turned) for pair, turned in zip(pairs.tolist(), mirrored.tolist(), strict=True)]
    assert sorted(found) == sorted(expected)


def test_groups_are_connected_components_named_by_their_smallest_index(coats: torch.Tensor) -> None:
    pixels = torch.cat([coats[:5], coats[3:4], coats[1:2], coats[3:4]])
    index = torch.tensor([40, 3, 12, 33, 8, 30, 50, 60])  # positions in a longer file
    group = near_duplicates(image_set(pixels, index))
    assert len(group) == 61
    expected = list(range(61))
    for members in ((3, 50), (30, 33, 60)):
        for member in members:
            expected[member] = min(members)
    assert group.tolist() == expected


def test_components_by_colouring() -> None:
    pairs = torch.randint(0, 60, (40, 2), generator=torch.Generator().manual_seed(1))
    colour = list(range(60))
    for _ in range(60):
        for a, b in pairs.tolist():
            colour[a] = colour[b] = min(colour[a], colour[b])
    assert components(60, pairs).tolist() == colour
    assert components(4, torch.empty(0, 2, dtype=torch.int64)).tolist() == [0, 1, 2, 3]


def test_a_planted_duplicate_is_dropped_from_the_negatives(coats: torch.Tensor) -> None:
    group = near_duplicates(image_set(torch.cat([coats[:6], coats[2:3]])))
    query, keys = torch.eye(3)[:1], torch.eye(3)
    more = {"index": torch.tensor([6]), "negative_index": torch.tensor([2, 3, 4])}
    dropped = onca.contrast(query, query, keys, "chain(drop(near_duplicate), infonce)", duplicates=group, **more)
    assert float(dropped) == pytest.approx(float(onca.contrast(query, query, keys[1:])))


def test_stricter_thresholds_find_fewer(coats: torch.Tensor) -> None:
    images = image_set(torch.cat([coats, changed(coats[:60])["made smaller"]]))
    found = {
        (outline, bits): {tuple(p) for p in duplicate_pairs(images, outline=outline, bits=bits).rows.tolist()}
        for outline in (0.9, 0.96, 0.99)
        for bits in (0, 6, 63)
    }
    assert found[0.99, 63] < found[0.96, 63] < found[0.9, 63] and found[0.9, 0] < found[0.9, 6] < found[0.9, 63]
    for outline in (0.0, 1.5):
        with pytest.raises(ValueError, match=re.escape(f"outline={outline}, bits=16: outline is a cosine")):
            duplicate_pairs(images, outline=outline)
    with pytest.raises(ValueError, match="bits are 0 to 63"):
        duplicate_pairs(images, bits=64)


def test_an_empty_set_and_one_image(coats: torch.Tensor) -> None:
    assert near_duplicates(image_set(coats[:1])).tolist() == [0]
    assert near_duplicates(image_set(coats[:0])).tolist() == []


def test_the_table_of_planted_duplicates_counts_what_was_planted(coats: torch.Tensor) -> None:
    """180 of 300 coats, ten of each of 18 kinds; what this rule does not find is said to be missing."""
    result = planting.planted(image_set(coats), "coats", rate=0.6)
    assert (result.images, result.planted, result.own) == (300, 180, 0)
    found = {kind: round(share.number * count) for kind, (count, share) in result.recall.items()}
    for kind in ("mirrored", "JPEG, quality 90", "darker, x 0.7", "grey", "mirrored, then JPEG 70"):
        assert found[kind] == 10, kind
    assert found["shifted by 1 pixel"] >= 8 > 2 > found["shifted by 4 pixels"] == found["crop of 60 % of the area"] == 0
    assert sum(found.values()) == result.right == result.pairs and result.precision.low > 0.95
    assert result.lines()[0] == "coats: 180 of 300 images stand there again, changed"


def test_a_wrong_partner_lowers_precision_and_a_known_one_does_not(coats: torch.Tensor) -> None:
    """Copies within the set are of one group, which planted images join; too loose a rule takes others too."""
    doubled = planting.planted(image_set(torch.cat([coats[:90], coats[:90]])), "coats", rate=0.2)
    assert doubled.own == 90 and doubled.right == doubled.pairs
    loose = planting.planted(image_set(coats), "coats", rate=0.2, outline=0.3)
    assert loose.right < loose.pairs and loose.precision.number == loose.right / loose.pairs


@pytest.mark.parametrize("rate", [0.0, 0.01, 1.5])
def test_a_rate_that_cannot_be_planted_is_refused(coats: torch.Tensor, rate: float) -> None:
    with pytest.raises(ValueError, match=re.escape(f"rate={rate}: of 300 images")):
        planting.planted(image_set(coats), "coats", rate=rate)


@pytest.mark.parametrize(("kind", "by"), [("shifted by 2 pixels", 2), ("shifted by 4 pixels", 4)])
def test_planted_shifts_move_by_so_many_pixels(coats: torch.Tensor, kind: str, by: int) -> None:
    draw, image = torch.Generator().manual_seed(0), coats[0].float()
    seen = set()
    for _ in range(20):
        moved = planting.KINDS[kind](image, draw)
        for down, across in ((0, by), (0, -by), (by, 0), (-by, 0)):
            inner = image.roll((down, across), (1, 2))[:, by:-by, by:-by]
            if torch.equal(inner, moved[:, by:-by, by:-by]):
                seen.add((down, across))
    assert len(seen) == 4


def test_planted_crops_keep_the_share_of_the_area_that_they_say() -> None:
    """On a slope from left to right, what is seen of it tells the width of the crop."""
    slope = torch.arange(64.0).expand(3, 64, 64)
    for share in (0.9, 0.8, 0.6):
        crop = planting.KINDS[f"crop of {100 * share:.0f} % of the area"](slope, torch.Generator().manual_seed(0))
        assert float(crop[0, 0, -1] - crop[0, 0, 0] + 1) == pytest.approx(64 * share**0.5, abs=1)
