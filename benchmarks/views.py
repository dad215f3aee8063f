"""Views per second on one thread: `python -m benchmarks.views`.

Each row is the minimum and the median of repeats that alternate with the other rows of its size, because other programs
may be using the machine. The first row of a size is torchvision's transforms applied image by image.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from functools import partial

import torch
from torchvision.transforms import v2

from onca import views

SIZES = {32: 256, 96: 64}  # pixels a side: images a batch
REPEATS = {"torchvision": 5, "onca": 60}


def main() -> list[dict[str, str | float]]:
    """Times drawing and applying each recipe, and torchvision's transforms one image after the other."""
    torch.set_num_threads(1)
    rows = []
    for size, count in SIZES.items():
        pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
        generator = torch.Generator().manual_seed(0)
        jobs: dict[str, Callable[[], object]] = {"torchvision": partial(_one_by_one, _moco_v2(size), pixels)}
        for name in ("moco_v1", "moco_v2", "simclr"):
            jobs[name] = partial(_batched, views.recipe(name, size), pixels, generator)
        for name, seconds in _alternate(jobs).items():
            what = "torchvision, moco_v2 image by image" if name == "torchvision" else f"onca.views, {name}"
            fastest = min(seconds)
            rows.append(
                {
                    "name": f"{what}, {count} x {size} px",
                    "median ms": 1e3 * statistics.median(seconds),
                    "min ms": 1e3 * fastest,
                    "views per s": count / fastest,
                }
            )
    return rows


def _batched(recipe: views.Recipe, pixels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    count, _, height, width = pixels.shape
    return views.apply(views.draw(recipe, count, height, width, generator), pixels)


def _one_by_one(transform: v2.Transform, pixels: torch.Tensor) -> torch.Tensor:
    return torch.stack([transform(image) for image in pixels])


def _moco_v2(size: int) -> v2.Transform:
    recipe = views.recipe("moco_v2", size)
    steps = [
        v2.ToDtype(torch.float32, scale=True),
        v2.RandomResizedCrop(size, recipe.crop_scale, recipe.crop_ratio, antialias=True),
        v2.RandomApply([v2.ColorJitter(*recipe.jitter_strength)], recipe.jitter_chance),
        v2.RandomGrayscale(recipe.grey_chance),
        v2.RandomApply([v2.GaussianBlur(recipe.blur_taps, recipe.blur_sigma)], recipe.blur_chance),
        v2.RandomHorizontalFlip(recipe.flip_chance),
    ]
    return v2.Compose(steps)


def _alternate(jobs: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in jobs}
    for repeat in range(max(REPEATS.values())):
        for name, job in jobs.items():
            if repeat < REPEATS["torchvision" if name == "torchvision" else "onca"]:
                start = time.perf_counter()
                job()
                seconds[name].append(time.perf_counter() - start)
    return seconds


if __name__ == "__main__":
    for row in main():
        figures = [f"{row[unit]:8.1f} {unit}" for unit in ("median ms", "min ms", "views per s")]
        print(f"{row['name']:52}", *figures)
