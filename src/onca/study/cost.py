"""What a study will cost, from arithmetic and a short measurement, without training or loading anything large."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from onca.encoders import make
from onca.study.compute import units
from onca.study.grid import Grid
from onca.study.plan import Condition
from onca.study.run import cores, unfinished
from onca.train import Run, load_data
from onca.train.batches import sizes
from onca.train.network import device, precision

MATRIX = 1024  # side of the product whose rate is measured
EFFICIENCY = 0.6  # what training reaches of that rate, views and losses included (0.55 to 0.65 measured on CPUs)
PROCESS_BYTES = 500e6  # what torch and the libraries take before anything else


PUBLIC = {"imagenet": (1_281_167, 224), "cifar10": (50_000, 32), "cifar100": (50_000, 32)}  # training images, pixels


@dataclass(frozen=True)
class Cost:
    """steps of one run; seconds of one run alone; bytes of one run at its peak; flops of one image's forward pass."""

    steps: int
    seconds: float
    bytes: float
    flops: float
    rate: float  # multiply-adds times two per second, as measured here


def cost(run: Run, images: int, size: int) -> Cost:
    """Estimates a run on `images` training images of `size` pixels, good to a factor of 1.5 on a quiet machine."""
    from torch.utils.flop_counter import FlopCounterMode  # loads triton

    place = device(run.device)
    dtype = precision(run.precision, place)
    with torch.random.fork_rng(), torch.device("meta"):
        encoder = make(run.encoder, run.head, run.dim)
        with FlopCounterMode(display=False) as counter:
            encoder(torch.empty(2, 3, size, size))
        flops = counter.get_total_flops() / 2
        activations = kept_for_backward(encoder, torch.empty(run.batch, 3, size, size)) * dtype.itemsize
    weights = sum(weight.numel() for weight in encoder.parameters())
    encoders = 1 if run.host in ("simclr", "npid") else 2
    trained = 2 if run.host in ("simclr", "cmc") or run.symmetric else 1  # views whose activations are kept
    rate = matrix_rate(place, dtype)
    held = 0 if run.data == "imagenet" else images * 3 * size * size  # its files are decoded batch by batch
    steps = len(sizes(images, run.batch, run.splits)) * run.epochs
    return Cost(
        steps=steps,
        seconds=images * run.epochs * flops * units(run) / (rate * EFFICIENCY),
        bytes=PROCESS_BYTES + held + 4 * weights * (encoders + 2) + activations * trained,
        flops=flops,
        rate=rate,
    )


def kept_for_backward(encoder: torch.nn.Module, images: torch.Tensor) -> int:
    """How many numbers, weights apart, autograd keeps from a forward pass."""
    kept: list[int] = []

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(0 if isinstance(tensor, torch.nn.Parameter) else tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        encoder(images)
    return sum(kept)


def matrix_rate(place: torch.device, dtype: torch.dtype) -> float:
    """Operations per second of one thread (or one GPU) in a square matrix product, the best of several."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    a = torch.randn(MATRIX, MATRIX, device=place, dtype=dtype)
    best = float("inf")
    for _ in range(8):
        begun = time.perf_counter()
        product = a @ a
        float(product[0, 0])  # waits for a GPU
        best = min(best, time.perf_counter() - begun)
    torch.set_num_threads(threads)
    return 2 * MATRIX**3 / best


def describe(grid: Grid, workers: int | None = None) -> str:
    """What `--dry-run` prints: the conditions, the runs that are left, and their cost."""
    run = grid.base
    images, size = images_of(run)
    one, todo = cost(run, images, size), unfinished(grid)
    side_by_side = workers or cores(run)
    seconds = one.seconds * sum(cell.compute for cell in todo) / side_by_side
    source = f" ({grid.study.arxiv})" if grid.study.arxiv else ""
    choose = f", and {len(grid.trials)} that choose settings on the validation part" if grid.trials else ""
    lines = [
        f"{grid.study.name}, preset {grid.preset}, host {run.host}",
        f"{grid.study.title}{source}",
        "",
        *(_condition(condition) for condition in grid.conditions),
        "",
        f"data        {run.data}: {images:,} training images of {size} pixels",
        f"runs        {len(grid.cells)}: {len(grid.conditions)} conditions, {len(grid.seeds)} seeds{choose}; "
        f"{len(todo)} left to do",
        f"a run       {one.steps:,} steps of {run.batch} images ({run.epochs} epochs), {run.encoder}",
        f"time        about {_span(one.seconds)} a run, {_span(seconds)} in all with {side_by_side} side by side",
        f"            from {one.rate / 1e9:,.0f} GFLOP/s measured on {device(run.device).type}; evaluation on top",
        f"memory      about {one.bytes / 1e9:.1f} GB a run",
        f"folder      {grid.folder}",
    ]
    return "\n".join(lines)


def _condition(condition: Condition) -> str:
    changes = "".join(f"  {name}={value}" for name, value in condition.changes)
    labels = "   (sees labels)" if condition.needs_labels else ""
    others = f"   (or {len(condition.choices) - 1} more)" if len(condition.choices) > 1 else ""
    return f"  {condition.name:<34} {condition.method}{changes}{others}{labels}"


def images_of(run: Run) -> tuple[int, int]:
    """Training images of a run and their side in pixels; the large public sets need not be there for that."""
    if run.data in PUBLIC:
        images, size = PUBLIC[run.data]
        return min(images, run.images or images), run.size or size
    train = load_data(run).train
    return len(train), run.size or min(train.shape)


def _span(seconds: float) -> str:
    for unit, length in (("days", 86_400), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.0f} {unit}"
    return f"{seconds:.0f} seconds"
