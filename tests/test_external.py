"""Difficulty from outside: ranks by a table that is not being trained, and where such tables come from."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import onca
from onca.data import ImageSet, load
from onca.data.descriptors import colours, descriptors, external_table, outlines, perceptual_hash
from onca.difficulty import external

EXPRESSION = 'chain(drop(hardest(25, by=external("hand"))), infonce)'


def rows(*shape: int, seed: int) -> torch.Tensor:
    made = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return made / made.norm(dim=-1, keepdim=True)


def infonce(query: list[float], positive: list[float], others: list[list[float]], temperature: float) -> float:
    def dot(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    own = math.exp(dot(query, positive) / temperature)
    return -math.log(own / (own + sum(math.exp(dot(query, other) / temperature) for other in others)))


# the difficulty ------------------------------------------------------------------------------------


@pytest.mark.parametrize("own_entries", [False, True])
def test_a_quarter_is_dropped_by_the_table_and_not_by_the_space(own_entries: bool) -> None:
    """Loops in float64; every index names another row of the table, so ranking with the space would show."""
    size, count = 4, 12
    query, positive = rows(size, 5, seed=0), rows(size, 5, seed=1)
    negatives = rows(size, count, 5, seed=2) if own_entries else rows(count, 5, seed=2)
    index = torch.tensor([3, 0, 7, 19])
    listed = torch.arange(4, 16) if not own_entries else (torch.arange(size * count).view(size, count) * 7 + 1) % 20
    listed[..., 2] = -1  # unknown, so the easiest
    table = rows(20, 6, seed=3)
    got = onca.contrast(
        query, positive, negatives, EXPRESSION, 0.3,
        index=index, negative_index=listed, external={"hand": table}, reduction="none",
    )  # fmt: skip
    for q in range(size):
        entries = [
            (int(k), (negatives[q, n] if own_entries else negatives[n]).tolist())
            for n, k in enumerate(listed[q] if own_entries else listed)
            if int(k) != int(index[q])
        ]
        score = [float(table[index[q]] @ table[k]) if k >= 0 else -1.0 for k, _ in entries]
        order = sorted(range(len(entries)), key=lambda n: (-score[n], n))
        kept = [entries[n][1] for n in sorted(order[math.floor(len(entries) * 0.25 + 0.5) :])]
        assert float(got[q]) == pytest.approx(infonce(query[q].tolist(), positive[q].tolist(), kept, 0.3), abs=1e-12)


def test_unknown_entries_are_the_easiest_of_all() -> None:
    """The row of image 1 is opposite to the query's: its -1 is the least that a known image can have."""
    table = torch.tensor([[1.0, 0.0], [-0.6, 0.8]])
    query, negatives = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8], [0.8, 0.6]])
    more = {"index": torch.tensor([0]), "negative_index": torch.tensor([1, -1]), "external": {"hand": table}}
    method = 'chain(keep(hardest(50, by=external("hand"))), infonce)'
    kept = onca.contrast(query, query, negatives, method, **more)
    assert float(kept) == pytest.approx(float(onca.contrast(query, query, negatives[:1])))


def test_refill_brings_in_what_the_table_finds_easy() -> None:
    table = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [0.98, 0.2], [0.0, -1.0]])
    query, keys = rows(1, 3, seed=0).float(), rows(4, 3, seed=1).float()
    more = {"index": torch.tensor([0]), "negative_index": torch.arange(1, 5), "external": {"hand": table}}
    method = 'chain(drop(hardest(50, by=external("hand")), refill=True), infonce)'
    got = onca.contrast(query, query, keys, method, reserve=2, **more)
    # shown are images 1 and 2; 1 goes out at a cosine of 1; of the reserve, 3 is easier than that: the newest comes in
    assert float(got) == pytest.approx(float(onca.contrast(query, query, keys[[1, 2]])))


def test_it_says_what_it_needs() -> None:
    part = onca.read(EXPRESSION)
    assert str(part) == EXPRESSION and {"external", "index"} <= part.needs
    assert [p.source for p in part.parts() if isinstance(p, external)] == ["hand"]


def test_refusals() -> None:
    query, negatives, table = rows(2, 4, seed=0), rows(8, 4, seed=1), rows(9, 3, seed=2)
    index = {"index": torch.tensor([0, 1]), "negative_index": torch.arange(2, 10)}

    def refused(says: str, method: str = EXPRESSION, **more: object) -> None:
        with pytest.raises(ValueError, match=re.escape(says)):
            onca.contrast(query, query, negatives, method, **more)

    refused("needs indices", external={"hand": table})
    refused("needs indices of the entries", external={"hand": table}, index=index["index"])
    refused("needs pool.external['hand']", **index)
    refused("held: 'descriptors'", external={"descriptors": table}, **index)
    refused("the table has 9 rows, one for each image; index 9", external={"hand": table}, **index)
    refused("source names a table", "chain(drop(hardest(1, by=external(3))), infonce)", **index)


# descriptors ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coats() -> ImageSet:
    return load("world(families=4, genera=1, species=1)", images=200).train


def test_outlines_by_loops(coats: ImageSet) -> None:
    """One image again in plain Python: smooth, differences, two bins and up to four cells a pixel, square root."""
    pixels = coats.pixels[3].double()
    grey = (0.299 * pixels[0] + 0.587 * pixels[1] + 0.114 * pixels[2]).tolist()

    def at(image: list[list[float]], y: int, x: int) -> float:
        return image[min(max(y, 0), 31)][min(max(x, 0), 31)]

    def smooth(y: int, x: int) -> float:
        weight = {-1: 0.2, 0: 0.6, 1: 0.2}
        return sum(weight[a] * weight[b] * at(grey, y + a, x + b) for a in weight for b in weight)

    bins = np.zeros((8, 8, 8))  # orientation, cell down, cell across
    for y in range(32):
        for x in range(32):
            dy, dx = smooth(y + 1, x) - smooth(y - 1, x), smooth(y, x + 1) - smooth(y, x - 1)
            strength = max(math.hypot(dx, dy) - 2, 0)
            turn = (math.atan2(dy, dx) / math.pi * 8) % 8
            for k in (math.floor(turn), math.floor(turn) + 1):
                for cell_y in range(8):
                    for cell_x in range(8):
                        share = max(0, 1 - abs((y + 0.5) / 4 - cell_y - 0.5)) * max(
                            0, 1 - abs((x + 0.5) / 4 - cell_x - 0.5)
                        )
                        bins[k % 8, cell_y, cell_x] += strength * (1 - abs(turn - k)) * share
    expected = np.sqrt(bins / bins.sum()).flatten()
    assert np.abs(outlines(coats.pixels[3:4])[0].numpy() - expected).max() < 1e-4


def test_what_outlines_and_colours_see() -> None:
    upright = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    upright[..., ::8] = 200
    lying = upright.transpose(2, 3)
    assert float((outlines(upright) * outlines(lying)).sum()) < 0.05
    assert float((outlines(upright) * outlines(255 - upright)).sum()) > 0.999  # polarity is not seen
    assert float((colours(upright) * colours(lying)).sum()) == pytest.approx(1)  # where is not seen
    swapped = float((colours(upright) * colours(255 - upright)).sum())  # 1/8 and 7/8 of the picture, changed over
    assert swapped == pytest.approx(2 * math.sqrt(7 / 64))
    plain = torch.full((1, 3, 32, 32), 90, dtype=torch.uint8)
    assert float(outlines(plain).abs().max()) == 0 and float(colours(plain).norm()) == pytest.approx(1)
    faint = plain + torch.randint(0, 2, plain.shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    assert float(outlines(faint).abs().max()) == 0  # a grey level of noise is no outline


def test_the_hash_sees_layout_not_light(coats: ImageSet) -> None:
    bits = perceptual_hash(coats.pixels)
    assert bits.shape == (200, 63) and bits.unique().tolist() == [-1, 1] and bits.sum(1).unique().tolist() == [-1]
    darker = perceptual_hash((coats.pixels.float() * 0.6).to(torch.uint8))
    assert float((bits != darker).sum(1).float().mean()) < 2
    assert 20 < float((bits != bits.roll(1, 0)).sum(1).float().mean()) < 40


def test_descriptors_are_unit_rows_and_the_same_in_any_company(coats: ImageSet) -> None:
    together = descriptors(coats.pixels)
    assert together.shape == (200, 576) and torch.allclose(together.norm(dim=1), torch.ones(200))
    assert torch.allclose(descriptors(coats.pixels[17:18])[0], together[17], atol=1e-5)
    large = torch.nn.functional.interpolate(coats.pixels[:5].float(), scale_factor=3).to(torch.uint8)
    assert float((descriptors(large) * together[:5]).sum(1).min()) > 0.99


def test_descriptors_find_the_same_family_more_often_than_chance(coats: ImageSet) -> None:
    made = descriptors(coats.pixels)
    near = (made @ made.T).fill_diagonal_(-1).argmax(1)
    assert float((coats.label[near] == coats.label).float().mean()) > 0.5  # chance is 0.25


# tables --------------------------------------------------------------------------------------------


def test_rows_stand_at_the_index_of_their_image(coats: ImageSet) -> None:
    some = coats.subset(torch.tensor([150, 3, 42]))
    table = external_table("descriptors", some)
    assert table.shape == (151, 576) and table.dtype == torch.float32
    assert torch.allclose(table[[150, 3, 42]], descriptors(some.pixels), atol=1e-6)
    assert float(table.norm(dim=1).count_nonzero()) == 3


def test_embeddings_from_a_file(tmp_path: Path, coats: ImageSet) -> None:
    made = np.random.default_rng(0).normal(size=(200, 5))
    np.save(tmp_path / "all.npy", made)
    np.savez(tmp_path / "all.npz", embeddings=made)
    order = np.random.default_rng(1).permutation(200)
    np.savez(tmp_path / "named.npz", embeddings=made[order], index=order)
    unit = torch.from_numpy(made / np.linalg.norm(made, axis=1, keepdims=True)).float()
    for file in ("all.npy", "all.npz", "named.npz"):
        assert torch.allclose(external_table(str(tmp_path / file), coats), unit, atol=1e-6), file
    some = coats.subset(torch.tensor([120, 7]))  # a part that was carved out of a longer file
    assert torch.allclose(external_table(str(tmp_path / "named.npz"), some)[[120, 7]], unit[[120, 7]], atol=1e-6)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"embeddings": np.ones((199, 4))}, "has 199 rows and none for the image of index 199: give one row for each"),
        ({"embeddings": np.ones(200)}, "must be numbers [M,F], one row an image, not float64 (200,)"),
        ({"embeddings": np.array([["a"] * 3] * 200)}, "must be numbers [M,F]"),
        ({"embeddings": np.where(np.arange(800).reshape(200, 4) == 77, np.inf, 1)}, "row 19 of the embeddings is"),
        ({"rows": np.ones((200, 4))}, "it holds rows, and no array `embeddings`"),
        ({"embeddings": np.ones((200, 4)), "index": np.arange(1, 201)}, "no row for 1 images, first that of index 0"),
        ({"embeddings": np.ones((200, 4)), "index": np.arange(100)}, "index must be 200 integers, one a row"),
        ({"embeddings": np.ones((0, 4)), "index": np.arange(0)}, "has no row for 200 images"),
    ],
)  # fmt: skip
def test_bad_embeddings_are_refused(tmp_path: Path, coats: ImageSet, arrays: dict[str, np.ndarray], says: str) -> None:
    np.savez(tmp_path / "bad.npz", **arrays)
    with pytest.raises(ValueError, match=re.escape(says)):
        external_table(str(tmp_path / "bad.npz"), coats)


def test_a_file_that_is_not_there_or_is_pickled_is_refused(tmp_path: Path, coats: ImageSet) -> None:
    with pytest.raises(ValueError, match=re.escape('name "descriptors", a .npy or a .npz file')):
        external_table("descriptor", coats)
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot be read as embeddings"):
        external_table(str(tmp_path / "pickled.npy"), coats)
