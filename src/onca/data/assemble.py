"""From the parts that a source holds to training, validation and test sets."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from onca.data.imageset import ImageSet, Levels, Splits
from onca.data.pictures import Bad, Pictures, Undecoded, decode, read, readable
from onca.data.split import part, spread, units

MEMORY = 4 << 30  # bytes: a set that needs more as pixels stays encoded, and is decoded image by image
TEST_SHARE, VALIDATION_SHARE = 0.2, 0.1


@dataclass(frozen=True, eq=False)
class Raw:
    """One part as it lies in the source: encoded pictures with their labels; the rest as in `ImageSet`."""

    pictures: Pictures
    label: Tensor  # int64 [N]
    names: tuple[str, ...]
    levels: Levels
    sequence: Tensor | None = None
    frame: Tensor | None = None
    wnids: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wish:
    """What the caller of `load` wants of a source."""

    source: str
    size: int | None = None
    images: int | None = None
    classes: int | None = None
    seed: int = 0
    bad: Bad = "refuse"


def assemble(parts: Mapping[str, Raw], wish: Wish) -> Splits:
    """Splits from the part "train" and, where the source has them, "test" and "val".

    "test" tests, else "val", else a stratified fifth of train; "val" validates where "test" is there too, else a
    stratified tenth of what then is train. What is carved out of train keeps its positions there as `index`.
    `images` caps what trains, spread over the classes; nothing that is left out is decoded. The frames of a sequence
    stay together, with the label of the first.
    """
    train = parts["train"]
    rows = _wanted(train, wish)
    if not {"test", "val"} <= set(parts):
        _say_single(train, wish.source)
    test = parts.get("test", parts.get("val"))
    if test is None:
        rows, test_rows = _carve(train, rows, TEST_SHARE, wish.seed)
    else:
        test_rows = _wanted(test, wish)
    validation = parts.get("val") if "test" in parts else None
    if validation is not None:
        validation_rows = _wanted(validation, wish)
    else:
        rows, validation_rows = _carve(train, rows, VALIDATION_SHARE, wish.seed)
    if wish.images is not None:
        rows = _cap(train, rows, wish.images, wish.seed)
    first = _image_set(train, rows, wish, shape=None)
    return Splits(
        train=first,
        validation=_image_set(validation or train, validation_rows, wish, first.shape),
        test=_image_set(test or train, test_rows, wish, first.shape),
    )


def _wanted(raw: Raw, wish: Wish) -> Tensor:
    """The rows of a part: all, or those of the first classes."""
    if wish.classes is None:
        return torch.arange(len(raw.label))
    if not 2 <= wish.classes <= len(raw.names):
        raise ValueError(f"classes={wish.classes}: {wish.source} has {len(raw.names)} classes; take 2 to all of them")
    return ((raw.label >= 0) & (raw.label < wish.classes)).nonzero()[:, 0]


def _carve(raw: Raw, rows: Tensor, share: float, seed: int) -> tuple[Tensor, Tensor]:
    unit, first = units(None if raw.sequence is None else raw.sequence[rows], len(rows))
    carved = part(raw.label[rows[first]], share, seed)[unit]
    return rows[~carved], rows[carved]


def _cap(raw: Raw, rows: Tensor, most: int, seed: int) -> Tensor:
    unit, first = units(None if raw.sequence is None else raw.sequence[rows], len(rows))
    chosen = spread(raw.label[rows[first]], most, seed, unit.bincount())
    return rows[torch.isin(unit, chosen)][:most]


def _image_set(raw: Raw, rows: Tensor, wish: Wish, shape: tuple[int, int] | None) -> ImageSet:
    """These rows of a part, with `shape` as height and width (None: that of the first image)."""
    places = rows.tolist()
    skipped: tuple[str, ...] = ()
    if wish.bad == "skip":
        places, skipped = readable(raw.pictures, places, wish.size)
    if skipped:
        text = f"{wish.source}: left out {len(skipped)} images that cannot be decoded, the first is {skipped[0]}"
        warnings.warn(text, stacklevel=2)
    if shape is None:
        if not places:
            raise ValueError(f"{wish.source} has no image to train on")
        height, width, _ = read(raw.pictures, places[0], wish.size).shape
        shape = height, width
    fits = len(places) * 3 * shape[0] * shape[1] <= MEMORY
    index = torch.tensor(places, dtype=torch.int64)
    return ImageSet(
        pixels=decode(raw.pictures, places, wish.size, shape) if fits else None,
        undecoded=None if fits else Undecoded(raw.pictures, index, wish.size, shape),
        label=raw.label[index],
        index=index,
        names=raw.names[: wish.classes],
        levels={level: (label[index], names) for level, (label, names) in raw.levels.items()},
        source=wish.source,
        skipped=skipped,
        sequence=None if raw.sequence is None else raw.sequence[index],
        frame=None if raw.frame is None else raw.frame[index],
        wnids=raw.wnids[: wish.classes],
    )


def _say_single(train: Raw, source: str) -> None:
    label = train.label[units(train.sequence, len(train.label))[1]]
    count = torch.bincount(label[label >= 0], minlength=len(train.names))
    single = (count == 1).nonzero().flatten().tolist()
    one = "image" if train.sequence is None else "image or sequence"
    if single:
        warnings.warn(
            f"{source}: {len(single)} classes have a single {one} ({train.names[single[0]]!r} is the first of them): "
            "it trains, and is in no other part",
            stacklevel=2,
        )
