"""A run: one flat value of text and numbers. Its hash names the folder that holds all the run leaves behind."""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Literal, get_args, get_type_hints

from onca.memory import Memory
from onca.method import as_method
from onca.part import nearest, read
from onca.schedule import Schedule
from onca.views import as_crop
from onca.views.leave_one_out import check_augmentations

FREE = ("epochs", "runs")  # what a resumed run may change; everything else is in the hash


@dataclass(frozen=True)
class Run:
    """Everything that decides what a training run computes. The defaults are the demo's recipe: small, quick, on a CPU.

    Two runs that differ only in `method` start from the same weights and see the same images in the same order through
    the same views: differences between them are paired by `seed`. The data set and its parts do not depend on `seed`.

    Raises:
        ValueError: a value that cannot be trained with; the message names it.
    """

    data: str = "world"
    """source of images: world, npz:PATH, folder:PATH, cifar10 ... (`onca data list`)"""
    host: Literal["moco", "simclr", "npid", "cmc", "looc"] = "moco"
    """what makes keys: moco (queue, momentum encoder), simclr (the batch itself), npid (a bank of all images), cmc (two
    encoders of colours and lightness, two banks), looc (spaces that keep what one augmentation changes)"""
    method: str = "infonce"
    """the loss, as an expression: "chain(keep(hardest(5)), infonce)" """
    encoder: str = "small(32)"
    """small(WIDTH), resnet18, resnet50, resnet18(stem='small')"""
    head: Literal["linear", "mlp"] = "linear"
    """between features and embedding: linear (MoCo v1) or mlp (v2)"""
    dim: int = 64
    """length of an embedding"""
    views: str = "moco_v2"
    """augmentation: moco_v1, moco_v2, simclr"""
    crop: str = "random_crop"
    """where crops lie: random_crop, "contrastive_crop(alpha=0.6)", fixed_crop"""
    crop_low: float | None = None
    """smallest share of the area that a crop takes (None: as --views says)"""
    rotation: bool = False
    """adds rotation by 90, 180 or 270 degrees to the views, for half of them"""
    support: int = 0
    """extra views of each image, which support_max, fnc and own_views look at"""
    plain_view: bool = False
    """the last support view is the image without augmentation"""
    gap: int = 0
    """frames: the second view is of a neighbouring frame at most so far away (0: of the same image)"""
    images: int | None = None
    """at most so many training images (None: all)"""
    classes: int | None = None
    """only images of the first so many classes (None: all)"""
    size: int | None = None
    """pixels of an image's side (None: their own)"""
    bad: Literal["refuse", "skip"] = "refuse"
    """images that cannot be decoded: refuse names the first, skip leaves them out and warns"""
    batch: int = 256
    """images a step"""
    queue: int = 4096
    """moco: keys in the memory"""
    memory: str = "queue"
    """moco: queue, or "lasting(hardest(5))", which keeps hard negatives longer"""
    momentum: float = 0.99
    """moco, looc: of the key encoder"""
    bank_momentum: float = 0.5
    """npid, cmc: of the rows of the bank"""
    draws: int = 0
    """npid, cmc: negatives drawn from the bank (0: the whole bank)"""
    colours: Literal["lab", "ycbcr"] = "lab"
    """cmc: how a view is split into lightness and colour"""
    spaces: str = "rotation,colour"
    """looc: the augmentations that have a space each: rotation, colour, texture"""
    temperature: float | str = 0.1
    """a number, or a schedule: "ramp(0.2, 0.07, 10)" """
    epochs: int = 4
    """passes over the training images"""
    optimiser: Literal["sgd", "lars"] = "sgd"
    """sgd with momentum 0.9, or lars (for large batches)"""
    lr: float = 0.12
    """the highest learning rate"""
    weight_decay: float = 5e-4
    """L2 penalty on weights"""
    schedule: Literal["one_cycle", "cosine"] = "one_cycle"
    """of the learning rate: up for 30 % of the steps and down, or warm-up and down"""
    warmup: float = 0.0
    """cosine: epochs until lr is reached"""
    splits: int = 1
    """parts of a batch that batch norm sees apart"""
    symmetric: bool = False
    """moco: each view is query once and key once"""
    precision: Literal["auto", "bf16", "float32"] = "auto"
    """of the encoders; auto: bf16 where the machine has units for it"""
    device: str = "auto"
    """cpu, cuda; auto: cuda where there is one"""
    validate: bool = False
    """evaluate on the validation part, to make a choice, instead of on the test part"""
    seed: int = 0
    """of weights, order of images and views"""
    runs: str = "runs"
    """folder in which the run's own folder is made"""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for field in fields(self):
            _check(field.name, getattr(self, field.name), get_args(hints[field.name]))
            if field.type == "float":  # 1 and 1.0 are one number, and give one hash
                object.__setattr__(self, field.name, float(getattr(self, field.name)))
        for name in ("dim", "batch", "queue", "epochs", "splits"):
            if getattr(self, name) < 1:
                raise ValueError(f"--{name.replace('_', '-')} must be 1 or more; got {getattr(self, name)}")
        if self.batch % self.splits or self.batch < 2 * self.splits:
            raise ValueError(
                f"--batch {self.batch} with --splits {self.splits}: batch norm needs equal parts of two images or more"
            )
        if self.schedule == "one_cycle" and self.warmup:
            raise ValueError("--schedule one_cycle has a rise of its own: leave --warmup 0, or take --schedule cosine")
        if self.warmup < 0 or self.lr <= 0 or self.weight_decay < 0 or not 0 <= self.momentum <= 1:
            raise ValueError("--lr must be above 0, --weight-decay and --warmup 0 or more, --momentum within 0 to 1")
        for name in ("support", "gap", "draws"):
            if getattr(self, name) < 0:
                raise ValueError(f"--{name} must be 0 or more; got {getattr(self, name)}")
        if self.plain_view and not self.support:
            raise ValueError("--plain-view makes the last support view a plain one: give --support 1 or more")
        if self.crop_low is not None and not 0 < self.crop_low <= 1:
            raise ValueError(f"--crop-low is a share of the area, above 0 and at most 1; got {self.crop_low}")
        check_augmentations(self.kept)
        object.__setattr__(self, "method", str(as_method(self.method)))
        object.__setattr__(self, "crop", str(as_crop(self.crop)))
        object.__setattr__(self, "memory", str(as_memory(self.memory)))
        object.__setattr__(self, "temperature", _temperature(self.temperature))

    @property
    def kept(self) -> tuple[str, ...]:
        """looc: the augmentations that have a space each."""
        return tuple(word.strip() for word in self.spaces.split(",") if word.strip())

    @property
    def name(self) -> str:
        """12 hexadecimal digits of the hash of everything but epochs and runs."""
        settled = {key: value for key, value in asdict(self).items() if key not in FREE}
        return hashlib.sha256(json.dumps(settled, sort_keys=True).encode()).hexdigest()[:12]

    @property
    def folder(self) -> Path:
        return Path(self.runs) / self.name

    @property
    def command(self) -> str:
        """The command line that starts this run."""
        words = ["onca", "train"]
        for field in fields(self):
            value = getattr(self, field.name)
            if value != (None if field.default is MISSING else field.default):
                flag = field.name.replace("_", "-")
                words += [f"--{flag}"] if value is True else [f"--{flag}", str(value)]
        return shlex.join(words)


def _check(name: str, value: object, choices: tuple[object, ...]) -> None:
    """Raises ValueError where a field with fixed choices holds another word."""
    if choices and all(isinstance(choice, str) for choice in choices) and value not in choices:
        raise ValueError(f"--{name} {value!r} is not known; {nearest(str(value), choices)}")


def _temperature(value: float | str) -> float | str:
    try:
        number = float(value)
    except ValueError:
        return str(as_schedule(str(value)))
    if not 0 < number < float("inf"):
        raise ValueError(f"--temperature must be above 0; got {value}")
    return number


def as_schedule(text: str) -> Schedule:
    """The schedule that `text` names, e.g. `ramp(0.2, 0.07, 10)`."""
    part = read(text)
    if not isinstance(part, Schedule):
        raise ValueError(f"--temperature must be a number or a schedule; {part} is a {part.kind}")
    return part


def as_memory(text: str) -> Memory:
    """The memory that `text` names: `queue`, or `lasting(hardest(5))`."""
    part = read(text)
    if not isinstance(part, Memory):
        raise ValueError(f'--memory must be queue or, say, "lasting(hardest(5))"; {part} is a {part.kind}')
    return part
