"""Random views of a batch of images against lightly and kornia: `python -m benchmarks.views [--json FILE]`.

All make one view of each uint8 image by the same recipe, MoCo v2's: crop, jitter, grey, blur (at 96 pixels; none at 32,
as the recipes for CIFAR), flip, as float32 in 0..1. lightly works image by image on Pillow images, which stand ready;
stacking its views is timed. That ours equal torchvision's ops is a test of its own (`tests/test_views.py`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms import v2

from benchmarks.measure import Row, Table, Target, Unequal, absent, compare, peer
from benchmarks.table import main
from onca import views

SIZES = {32: 256, 96: 64}  # pixels a side: images a batch
TARGETS: dict[int, dict[str, float]] = {32: {"lightly": 7, "kornia": 3}, 96: {"lightly": 1.5, "kornia": 2.5}}
CHECKED = (
    "Checked before timing: shape, float32, values in 0..1, and that two calls differ; draws are random, so views "
    "cannot be compared one by one. Orders of the jitter's four ops are drawn by image in lightly, by batch in "
    "kornia and ours."
)


class Sides:
    def __init__(self, size: int, count: int) -> None:
        self.group = f"{count} images of {size} pixels"
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand(count, 3, 8, 8, generator=generator)
        smooth = nn.functional.interpolate(coarse, size=(size, size), mode="bilinear")
        self.pixels = (255 * smooth).to(torch.uint8)
        self.recipe, self.size, self.count = views.recipe("moco_v2", size), size, count

    def ours(self) -> Callable[[], Tensor]:
        generator = torch.Generator().manual_seed(0)

        def call() -> Tensor:
            return views.apply(views.draw(self.recipe, self.count, self.size, self.size, generator), self.pixels)

        return call

    def torchvision(self) -> Callable[[], Tensor]:
        recipe = self.recipe
        steps = [
            v2.ToDtype(torch.float32, scale=True),
            v2.RandomResizedCrop(self.size, recipe.crop_scale, recipe.crop_ratio, antialias=True),
            v2.RandomApply([v2.ColorJitter(*recipe.jitter_strength)], recipe.jitter_chance),
            v2.RandomGrayscale(recipe.grey_chance),
            v2.RandomApply([v2.GaussianBlur(recipe.blur_taps, recipe.blur_sigma)], recipe.blur_chance),
            v2.RandomHorizontalFlip(recipe.flip_chance),
        ]
        transform = v2.Compose(steps)
        return lambda: torch.stack([transform(image) for image in self.pixels])

    def lightly(self) -> Callable[[], Tensor] | None:
        module, recipe = peer("lightly.transforms.simclr_transform"), self.recipe
        if module is None:
            return None
        bright, contrast, saturation, hue = recipe.jitter_strength
        transform = module.SimCLRViewTransform(
            input_size=self.size, cj_prob=recipe.jitter_chance, cj_bright=bright, cj_contrast=contrast,
            cj_sat=saturation, cj_hue=hue, min_scale=recipe.crop_scale[0], random_gray_scale=recipe.grey_chance,
            gaussian_blur=recipe.blur_chance, sigmas=recipe.blur_sigma, hf_prob=recipe.flip_chance, normalize=None,
        )  # fmt: skip
        images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in self.pixels]
        return lambda: torch.stack([transform(image) for image in images])

    def kornia(self) -> Callable[[], Tensor] | None:
        module, recipe = peer("kornia.augmentation"), self.recipe
        if module is None:
            return None
        steps = [
            module.RandomResizedCrop((self.size, self.size), recipe.crop_scale, recipe.crop_ratio),
            module.ColorJitter(*recipe.jitter_strength, p=recipe.jitter_chance),
            module.RandomGrayscale(p=recipe.grey_chance),
            module.RandomHorizontalFlip(p=recipe.flip_chance),
        ]
        if recipe.blur_chance:
            taps = (recipe.blur_taps, recipe.blur_taps)
            steps.insert(3, module.RandomGaussianBlur(taps, recipe.blur_sigma, p=recipe.blur_chance))
        chain = nn.Sequential(*steps)
        return lambda: chain(self.pixels.float() / 255)

    def row(self, name: str, theirs: Callable[[], Tensor] | None, least: float | None = None) -> Row:
        target, ours = Target(least) if least else None, self.ours()
        if theirs is None:
            return absent(self.group, name, target)

        def check() -> dict[str, float]:
            for side, make in (("ours", ours), (name, theirs)):
                sound(side, (self.count, 3, self.size, self.size), make)
            return {}

        return compare(self.group, name, ours, theirs, target, check=check)


def sound(side: str, shape: tuple[int, ...], make: Callable[[], Tensor]) -> None:
    """Raises Unequal unless `make` gives views, other ones each time."""
    one, other = make(), make()
    if tuple(one.shape) != shape or one.dtype != torch.float32:
        raise Unequal(f"{side} gives {one.dtype} {list(one.shape)}, not float32 {list(shape)}")
    low, high = float(one.min()), float(one.max())
    if low < -1e-5 or high > 1 + 1e-5 or high - low < 0.1 or torch.equal(one, other):
        raise Unequal(f"{side}: values {low:.3g} to {high:.3g}, not views in 0..1 that differ from call to call")


def table(sizes: dict[int, int] | None = None) -> Table:
    """Views of a batch against lightly and kornia."""
    rows = []
    for size, count in (sizes or SIZES).items():
        sides, least = Sides(size, count), TARGETS.get(size, {})
        rows += [
            sides.row("lightly", sides.lightly(), least.get("lightly")),
            sides.row("kornia", sides.kornia(), least.get("kornia")),
            sides.row("torchvision, image by image", sides.torchvision()),
        ]
    return Table("views", "one random view of each image of a batch, MoCo v2's recipe", tuple(rows), CHECKED)


if __name__ == "__main__":
    main(table)
