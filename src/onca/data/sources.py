"""Sources of images by name: `load("world")`, `load("npz:PATH")`, `load("folder:PATH")`, `load("cifar10")` ..."""

import ast
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from onca.data.assemble import Wish, assemble
from onca.data.downloads import DOWNLOADS, home, read_download, read_imagenet
from onca.data.folders import read_folder
from onca.data.imageset import Splits
from onca.data.packs import read_packs
from onca.data.pictures import Bad
from onca.data.world import World

NAMES = ("world", "npz:PATH", "folder:PATH", *DOWNLOADS, "imagenet")


def load(
    source: str,
    *,
    size: int | None = None,
    images: int | None = None,
    classes: int | None = None,
    seed: int = 0,
    bad: Bad = "refuse",
) -> Splits:
    """Training, validation and test images of a source.

    size    pixels: every image becomes its largest centred square at size x size, once (Lanczos); a world is drawn at
            that size. None: as they are, if they are all alike.
    images  at most so many train: the first of a world, elsewhere a spread over the classes drawn from the seed.
    classes only images of the first so many classes, in all parts; a world is made with fewer species instead.
    seed    of the parts that are carved out of train (see `assemble`). A world has its own seed and its own parts.
    bad     what becomes of images that cannot be decoded: "refuse" is an error naming one; "skip" leaves them out,
            warns, and names them in `ImageSet.skipped` (every image is then decoded once more to see).

    Errors: ValueError naming source, cause and remedy.
    """
    if size is not None and not 1 <= size <= 4096:
        raise ValueError(f"size={size}: the images' size must be 1 to 4096 pixels")
    if images is not None and images < 1:
        raise ValueError(f"images={images}: there must be at least one image to train on")
    if bad not in ("refuse", "skip"):
        raise ValueError(f"bad={bad!r}: must be 'refuse' or 'skip'")
    if source.split("(")[0].strip() == "world":
        world = read_world(source)
        if classes is not None:
            remedy = "say world(families=.., genera=.., species=..) instead"
            raise ValueError(f"classes={classes}: the classes of a world are its species, {remedy}")
        return (world if size is None else replace(world, size=size)).splits(images)
    wish = Wish(source, size, images, classes, seed, bad)
    kind, _, path = source.partition(":")
    if kind == "npz" and path:
        return assemble(read_packs(Path(path).expanduser()), wish)
    if kind == "folder" and path:
        return assemble(read_folder(Path(path).expanduser()), wish)
    if source in DOWNLOADS:
        return assemble(read_download(source), wish)
    if source == "imagenet":
        return assemble(read_imagenet(), wish)
    raise ValueError(_unknown(source))


def read_world(source: str) -> World:
    """`world`, or `world(families=2, seed=1)` with any of the numbers of `World`. Errors: ValueError."""
    known = [field.name for field in fields(World)]
    try:
        call = ast.parse(source if "(" in source else f"{source}()", mode="eval").body
    except SyntaxError:
        call = None
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)) or call.args:
        raise ValueError(
            f"cannot read {source!r}: write world(families=4, genera=4, species=4, size=32, seed=0, frames=1), "
            "or leave out what is as here"
        )
    numbers: dict[str, int] = {}
    for argument in call.keywords:
        if argument.arg not in known:
            raise ValueError(
                f"{source}: world has no {argument.arg!r}; it has {', '.join(known)}{_near(str(argument.arg), known)}"
            )
        text = ast.unparse(argument.value)
        if not re.fullmatch(r"-?\d+", text):
            raise ValueError(f"{source}: {argument.arg} must be a whole number, not {text}")
        numbers[argument.arg] = int(text)
    return World(**numbers)


@dataclass(frozen=True)
class SourceRow:
    """A line of `onca data list`."""

    source: str
    holds: str
    where: str


def list_sources() -> list[SourceRow]:
    """Every source that `load` knows, what it holds, and whether it is here."""
    rows = [
        SourceRow(
            str(World()),
            "generated animal coats, 64 species of 16 genera of 4 families, 20,000 + 2,000 + 4,000 images; "
            "frames=8 moves them",
            "always here",
        ),
        SourceRow("npz:PATH", "a pack, or a folder with train.npz and test.npz or val.npz", "made by onca data pack"),
        SourceRow(
            "folder:PATH",
            "image files: one sub-folder per class, or flat without labels; or train, val, test of those",
            "yours",
        ),
    ]
    for name, download in DOWNLOADS.items():
        here = (home() / download.files).is_dir()
        rows.append(SourceRow(name, download.holds, f"in {home()}" if here else f"downloaded to {home()} at first use"))
    here = (home() / "imagenet" / "train").is_dir()
    place = f"in {home() / 'imagenet'}" if here else f"place train/ and val/ in {home() / 'imagenet'}"
    return [*rows, SourceRow("imagenet", "1,281,167 + 50,000 images, 1,000 classes, decoded image by image", place)]


def _unknown(source: str) -> str:
    text = f"unknown data source {source!r}; there are {', '.join(NAMES)}"
    path = Path(source).expanduser()
    if path.exists():
        packed = path.suffix == ".npz" or any(path.glob("*.npz"))
        return f"{text}. For the files there: {'npz' if packed else 'folder'}:{source}"
    return text + _near(re.split("[:(]", source)[0], NAMES)


def _near(word: str, known: Sequence[str]) -> str:
    by_start = {name.partition(":")[0]: name for name in known}
    close = difflib.get_close_matches(word.lower(), by_start, n=1, cutoff=0.5)
    return f". Did you mean {by_start[close[0]]!r}?" if close else ""
