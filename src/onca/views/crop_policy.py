"""What a run names with --crop: where the crops of its views are cut. Parts, which print and are read back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from onca.part import NAMES, Part, bare, read
from onca.schedule import Number, Schedule, check_number, number_at

from .contrastive_crop import draw_contrastive_crop
from .crop import draw_crop
from .recipes import Recipe


class Crop(Part):
    """Where the crops of a view are cut. `located`: in boxes that the encoder finds, which a run then has to keep."""

    kind = "crop"
    located: ClassVar[bool] = False
    alpha: Number = 1.0

    def check(self, epochs: int) -> None:
        """Raises ValueError when a run of so many epochs would never use what this names."""

    def locates(self, epoch: int) -> bool:
        """Whether boxes are found anew before epoch `epoch` (from 0) begins; they are used from that epoch on."""
        return False

    def inside(self, found: Tensor | None, count: int) -> Tensor | None:
        """The boxes [count,4] in which the centres of crops lie, None: anywhere."""
        return None

    def check_numbers(self, share: str) -> None:
        """Raises ValueError when alpha is neither a number above 0 nor a schedule, or `share` not a plain number."""
        check_number(self, getattr(self, share), share)
        if isinstance(getattr(self, share), Schedule):
            raise ValueError(f"{self}: {share} must be a plain number")
        check_number(self, self.alpha, "alpha")
        if not isinstance(self.alpha, Schedule):
            self.alpha_at(None)

    def alpha_at(self, epoch: float | None) -> float:
        """Raises ValueError when it is not above 0."""
        value = float(number_at(self.alpha, epoch, self))
        if value <= 0:
            raise ValueError(f"{self}: alpha must be more than 0; got {value:g}")
        return value

    def draw(
        self,
        recipe: Recipe,
        found: Tensor | None,
        count: int,
        height: int,
        width: int,
        generator: torch.Generator,
        epoch: float | None = None,
    ) -> Tensor:
        """The crops of one view of `count` images: int64 [count,4], (top, left, height, width).

        found: where the encoder last looked in each image, `Boxes.of`. From a generator in the same state all policies
        draw crops of the same sizes.
        """
        boxes = self.inside(found, count)
        if boxes is None:
            return draw_crop(count, height, width, recipe.crop_scale, recipe.crop_ratio, generator)
        alpha = self.alpha_at(epoch)
        return draw_contrastive_crop(boxes, height, width, recipe.crop_scale, recipe.crop_ratio, alpha, generator)


class _RandomCrop(Crop):
    """Anywhere in the image."""


random_crop = bare(_RandomCrop(), "random_crop")


@dataclass(frozen=True, eq=False, repr=False)
class contrastive_crop(Crop, name="contrastive_crop"):
    """Centres in the box where the encoder looks (2202.03278).

    Boxes are found after `warmup` epochs and then every `interval` epochs, as long as another epoch follows; until then
    crops are those of `random_crop`. alpha of the Beta distribution and threshold of the heat map as in the paper; the
    official code's configurations for small images have alpha 0.1 and, for 500 epochs, warmup and interval 100.
    """

    located: ClassVar[bool] = True

    alpha: Number = 0.6
    threshold: float = 0.1
    warmup: int = 20
    interval: int = 20

    def __post_init__(self) -> None:
        self.check_numbers("threshold")
        if not 0 <= self.threshold < 1:
            raise ValueError(f"{self}: threshold is a share of the heat map's maximum, 0 or more and less than 1")
        for name in ("warmup", "interval"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{self}: {name} is a number of epochs, 1 or more; got {value!r}")

    def check(self, epochs: int) -> None:
        if self.warmup >= epochs:
            raise ValueError(
                f"{self}: boxes are first found after {self.warmup} epochs, and the run has {epochs}: none would ever "
                "be used; give a shorter warmup or more epochs"
            )

    def locates(self, epoch: int) -> bool:
        return epoch >= self.warmup and (epoch - self.warmup) % self.interval == 0

    def inside(self, found: Tensor | None, count: int) -> Tensor | None:
        return found


@dataclass(frozen=True, eq=False, repr=False)
class fixed_crop(Crop, name="fixed_crop"):
    """Centres in the middle of the image, whatever it shows: the box that leaves out `margin` (a share) on each side.

    The control in 2202.03278's code (SimCCrop): what of the gain is due to looking, and what to avoiding the border?
    """

    margin: float = 0.25
    alpha: Number = 0.6

    def __post_init__(self) -> None:
        self.check_numbers("margin")
        if not 0 <= self.margin <= 0.5:
            raise ValueError(f"{self}: margin is a share of the image's side, from 0 to 0.5")

    def inside(self, found: Tensor | None, count: int) -> Tensor | None:
        return torch.tensor([self.margin, self.margin, 1 - self.margin, 1 - self.margin]).repeat(count, 1)


def as_crop(text: str) -> Crop:
    """The policy that `text` names: random_crop, fixed_crop, contrastive_crop(warmup=5, interval=5) ...

    Raises:
        ValueError: text that names none.
    """
    named = NAMES.get(text.strip())
    part = named() if isinstance(named, type) and issubclass(named, Crop) else read(text)
    if not isinstance(part, Crop):
        raise ValueError(f"--crop must be random_crop, fixed_crop() or contrastive_crop(); {part} is a {part.kind}")
    return part
