"""The embedded world: an image is a function of (seed, number), and colour says next to nothing about the species."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from onca.data import load
from onca.data.world import World, draws, patterns

MASK = (1 << 64) - 1


@pytest.fixture(scope="module")
def batch() -> torch.Tensor:
    return World().images(torch.arange(12_000, 13_000))


# randomness ----------------------------------------------------------------------------------------


def splitmix(state: int) -> int:
    """The generator's output function once more, in Python's unbounded integers."""
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


def test_bits_are_splitmix64() -> None:
    step = int(draws.STEP)
    assert splitmix(step) == 0xE220A8397B1DCDAF  # the generator's published first number from seed 0
    ids = torch.tensor([0, 7, (1 << 31) + 5])
    got = draws.bits(3, ids, stream=2, count=4)
    for row, number in enumerate(ids.tolist()):
        image = splitmix((splitmix(3 * draws.STREAMS + 2) + number * step) & MASK)
        assert [int(x) for x in got[row]] == [splitmix((image + k * step) & MASK) for k in range(1, 5)]


def test_numbers_are_uniform_and_independent() -> None:
    ids = torch.arange(4000)
    a = draws.uniform(0, ids, 0, 8)
    assert float(a.min()) >= 0 and float(a.max()) < 1
    counts = torch.histc(a, 16, 0, 1)
    assert float(((counts - 2000) ** 2 / 2000).sum()) < 45  # chi-square of 15 degrees of freedom, p about 1e-4
    columns = torch.cat(
        [a, draws.uniform(1, ids, 0, 8), draws.uniform(0, ids, 1, 8), draws.uniform(0, ids + 1, 0, 8)], 1
    )
    correlation = torch.corrcoef(columns.T) - torch.eye(32)
    assert float(correlation.abs().max()) < 0.08  # five standard errors
    noise = draws.noise(0, ids, 3, 9)
    assert noise.shape == (4000, 3, 9)
    assert float(noise.mean().abs()) < 0.01 and abs(float(noise.var()) - 1 / 3) < 0.01


# identity ------------------------------------------------------------------------------------------


def test_an_image_alone_is_the_image_in_the_batch(batch: torch.Tensor) -> None:
    assert torch.equal(World().images(torch.tensor([12_345]))[0], batch[345])


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(0, 999), min_size=1, max_size=20))
def test_order_and_company_do_not_matter(batch: torch.Tensor, places: list[int]) -> None:
    assert torch.equal(World().images(12_000 + torch.tensor(places)), batch[places])


def test_all_images_differ(batch: torch.Tensor) -> None:
    assert len(np.unique(batch.flatten(1).numpy(), axis=0)) == len(batch)


def test_the_seed_makes_another_world(batch: torch.Tensor) -> None:
    other = World(seed=1).images(torch.arange(12_288, 12_352)).float()
    distance = (other - batch[288:352].float()).abs().mean((1, 2, 3))
    assert float(distance.min()) > 5


def test_the_world_does_not_change_unnoticed(batch: torch.Tensor) -> None:
    """Results depend on these images: a change of the world has to be meant, and recorded here and in docs/world.md."""
    mean, sd = batch.float().mean((0, 2, 3)), batch.float().std((0, 2, 3))
    assert mean.tolist() == pytest.approx(MEAN, abs=0.2)
    assert sd.tolist() == pytest.approx(SD, abs=0.2)
    assert batch[345, :, 16, 10:14].tolist() == pytest.approx(np.array(PIXELS), abs=2)


MEAN, SD = [132.27, 115.68, 87.37], [67.1, 58.93, 45.38]
PIXELS = [[113, 211, 247, 238], [88, 181, 213, 220], [77, 154, 180, 178]]

# splits and levels ---------------------------------------------------------------------------------


def test_splits_are_disjoint_balanced_and_nested() -> None:
    splits = load("world", images=640)
    sizes = {part: len(getattr(splits, part)) for part in ("train", "validation", "test")}
    assert sizes == {"train": 640, "validation": 2000, "test": 4000}
    pictures = torch.cat([splits.train.pixels, splits.validation.pixels, splits.test.pixels]).flatten(1)
    assert len(np.unique(pictures.numpy(), axis=0)) == 6640
    for part in (splits.train, splits.validation, splits.test):
        assert part.index.tolist() == list(range(len(part)))
        assert int(part.label.bincount().max() - part.label.bincount().min()) <= 1
        for label, names in part.levels.values():
            assert int(label.max()) + 1 == len(names)
    levels = splits.test.levels
    assert [(level, len(names)) for level, (_, names) in levels.items()] == [
        ("family", 4),
        ("genus", 16),
        ("species", 64),
    ]
    assert torch.equal(levels["species"][0], splits.test.label) and levels["species"][1] == splits.test.names
    for fine, coarse in (("species", "genus"), ("genus", "family")):
        for (label, names), (parent, parents) in [(levels[fine], levels[coarse])]:
            for k in range(len(names)):
                (above,) = parent[label == k].unique().tolist()  # every class lies in one class of the level above
                assert names[k].rpartition("/")[0] == parents[above]


def test_fewer_images_are_the_first_ones() -> None:
    few, more = load("world", images=100).train, load("world", images=700).train
    assert torch.equal(few.pixels, more.pixels[:100]) and torch.equal(few.label, more.label[:100])


def test_a_smaller_world_holds_the_first_patterns() -> None:
    train = load("world(families=2, genera=1, species=3)", images=60).train
    assert train.names == tuple(
        f"{genus}/{detail}"
        for genus in ("spots/scattered", "stripes/straight")
        for detail in ("filled", "hollow", "cored")
    )


def test_size_of_the_source_and_of_the_call() -> None:
    assert load("world(size=16, families=1)", images=1).train.shape == (16, 16)
    assert load("world(size=16, families=1)", images=1, size=24).test.shape == (24, 24)


def test_a_larger_picture_shows_the_same_animals() -> None:
    small, large = World(size=16).images(torch.arange(64)), World(size=32).images(torch.arange(64))
    shrunk = torch.nn.functional.avg_pool2d(large.float(), 2)
    pairs = torch.stack([shrunk.flatten(), small.float().flatten()])
    assert float(torch.corrcoef(pairs)[0, 1]) > 0.93


# what the pictures tell ----------------------------------------------------------------------------


def test_every_coat_has_elements_and_bare_skin_and_every_species_differs() -> None:
    axis = torch.linspace(-1.3, 1.3, 60)
    u, v = axis.repeat(60).expand(16, -1), axis.repeat_interleave(60).expand(16, -1)
    free = draws.uniform(0, torch.arange(16), 1, patterns.FREE)
    for fields in patterns.FAMILIES.values():
        for field in fields:
            level = field(u, v, free)
            assert float(level.min()) < -0.7 and float(level.max()) > 0.25  # elements, and coat between them
            inks = torch.stack([detail(level, 0.09) for detail in patterns.DETAILS])
            assert float(inks.min()) > -0.02 and float(inks.max()) < 1.02
            assert float(inks.mean((1, 2)).min()) > 0.15 and float(inks.mean((1, 2)).max()) < 0.8, field.__name__
            for a in range(len(inks)):
                for b in range(a):
                    assert float((inks[a] - inks[b]).abs().mean()) > 0.05, (field.__name__, a, b)


def test_colour_tells_next_to_nothing_and_structure_does() -> None:
    """Least squares on 64 classes, chance 1.6 %: on colours alone, and on the same pictures' local structure."""
    train, test = World().images(torch.arange(5120)), World().images((1 << 31) + torch.arange(1024))
    labels = torch.arange(5120) % 64, torch.arange(1024) % 64
    colours = accuracy(histogram(train), histogram(test), *labels)
    structure = accuracy(gradients(train), gradients(test), *labels)
    assert colours < 8
    assert structure > 1.5 * colours


def histogram(images: torch.Tensor) -> torch.Tensor:
    bins = (images // 16).flatten(2)
    return torch.stack([(bins == k).float().mean(2) for k in range(16)], 2).flatten(1)


def gradients(images: torch.Tensor) -> torch.Tensor:
    """How much brightness changes over 1, 2, 3 and 4 pixels, across and down."""
    grey = images.float().mean(1) / 255
    across = [(grey[:, :, d:] - grey[:, :, :-d]).abs() for d in (1, 2, 3, 4)]
    down = [(grey[:, d:] - grey[:, :-d]).abs() for d in (1, 2, 3, 4)]
    return torch.stack(
        [f(step.flatten(1)) for step in across + down for f in (lambda x: x.mean(1), lambda x: x.std(1))], 1
    )


def accuracy(x: torch.Tensor, y: torch.Tensor, x_label: torch.Tensor, y_label: torch.Tensor) -> float:
    mean, sd = x.mean(0), x.std(0) + 1e-6
    a, b = (torch.cat([(z - mean) / sd, torch.ones(len(z), 1)], 1).double() for z in (x, y))
    target = torch.nn.functional.one_hot(x_label).double()
    weight = torch.linalg.solve(a.T @ a + 10 * torch.eye(a.shape[1], dtype=torch.float64), a.T @ target)
    return 100 * float(((b @ weight).argmax(1) == y_label).double().mean())


# bad input -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("world(families=5)", "families must be 1 to 4"),
        ("world(genera=0)", "genera must be 1 to 4"),
        ("world(species=-1)", "species must be 1 to 4"),
        ("world(size=4)", "size must be 8 to 512"),
        ("world(seed=-1)", "seed must be 0 to"),
        ("world(species=2.0)", "species must be a whole number, not 2.0"),
        ("world(species=True)", "species must be a whole number"),
        ("world(specis=2)", "Did you mean 'species'?"),
        ("world(3)", "write world(families=4"),
        ("world(families=2", "write world(families=4"),
        ("world()()", "write world(families=4"),
        ("worlds(families=2)", "Did you mean 'world'?"),
    ],
)
def test_bad_worlds_are_refused(source: str, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)):
        load(source, images=1)
