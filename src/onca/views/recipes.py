"""What the views of a paper are made of: which ops, in which order, how strong and how often."""

from __future__ import annotations

from dataclasses import dataclass, replace

OPS = ("crop", "rotation", "flip", "jitter", "grey", "blur")

SMALL = 64
"""Images up to this many pixels a side get the small form of a recipe: no blur, and SimCLR's jitter at half strength.

The CIFAR recipes of SimCLR (2002.05709, B.9) and of MoCo (its official notebook) have no blur: a sigma of up to 2
pixels is meant for 224 and leaves little of what 32 pixels tell. Where between the two the line lies is our choice: at
64 the kernel, a tenth of the side, still has only 7 taps and cuts a sigma of 2 off at 1.5 sigma.
"""


@dataclass(frozen=True)
class Recipe:
    """How views are drawn; change a field with ``dataclasses.replace(recipe, crop_scale=(0.5, 1))``.

    Chances are 0-1; an op with chance 0 is left out. `order` names all six ops in the order in which they act, "crop"
    first. A field that does not make sense is a ValueError.
    """

    name: str
    size: int  # pixels a side of the finished view
    crop_scale: tuple[float, float]  # share of the image's area
    jitter_strength: tuple[float, float, float, float]  # brightness, contrast, saturation, hue
    jitter_chance: float
    order: tuple[str, ...]
    grey_chance: float = 0.2
    flip_chance: float = 0.5
    blur_chance: float = 0.0
    blur_taps: int = 23  # pixels the blur kernel is wide
    blur_sigma: tuple[float, float] = (0.1, 2.0)  # pixels, uniform
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)  # width over height, uniform in the logarithm
    rotation_chance: float = 0.0
    rotation_angles: tuple[float, ...] = (90.0, 180.0, 270.0)  # degrees counter-clockwise, one of these

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"size is {self.size}: a view needs at least one pixel a side")
        for field in ("jitter_chance", "grey_chance", "flip_chance", "blur_chance", "rotation_chance"):
            if not 0 <= getattr(self, field) <= 1:
                raise ValueError(f"{field} is {getattr(self, field)}: a chance lies between 0 and 1")
        if not 0 < self.crop_scale[0] <= self.crop_scale[1] <= 1:
            raise ValueError(f"crop_scale is {self.crop_scale}: give (low, high) with 0 < low <= high <= 1")
        for field in ("crop_ratio", "blur_sigma"):
            low, high = getattr(self, field)
            if not 0 < low <= high:
                raise ValueError(f"{field} is {(low, high)}: give (low, high) with 0 < low <= high")
        if min(self.jitter_strength) < 0 or self.jitter_strength[3] > 0.5:
            raise ValueError(f"jitter_strength is {self.jitter_strength}: none below 0, and hue (the last) at most 0.5")
        if self.blur_taps < 1 or self.blur_taps % 2 == 0:
            raise ValueError(f"blur_taps is {self.blur_taps}: the kernel has a middle, so give an odd number")
        if self.blur_chance > 0 and self.blur_taps // 2 >= self.size:
            raise ValueError(f"blur_taps is {self.blur_taps}, too wide to reflect at the border of {self.size} pixels")
        if self.rotation_chance > 0 and not self.rotation_angles:
            raise ValueError("rotation_chance is above 0 and rotation_angles is empty: name at least one angle")
        if sorted(self.order) != sorted(OPS) or self.order[0] != "crop":
            raise ValueError(f"order is {self.order}: name each of {', '.join(OPS)} once, crop first")

    def __str__(self) -> str:
        said = {
            "crop": f"crop({_span(self.crop_scale)} of the area, ratio {_span(self.crop_ratio)})",
            "rotation": f"rotation({', '.join(f'{angle:g}' for angle in self.rotation_angles)})",
            "flip": "flip",
            "jitter": f"jitter({', '.join(f'{strength:g}' for strength in self.jitter_strength)})",
            "grey": "grey",
            "blur": f"blur(sigma {_span(self.blur_sigma)}, {self.blur_taps} taps)",
        }
        chance = {op: 1.0 if op == "crop" else float(getattr(self, f"{op}_chance")) for op in OPS}
        steps = [said[op] + (f" {chance[op]:.0%}" if chance[op] < 1 else "") for op in self.order if chance[op] > 0]
        return f"{self.name}, {self.size} px: " + ", ".join(steps)


def _span(bounds: tuple[float, float]) -> str:
    return f"{bounds[0]:.3g}-{bounds[1]:.3g}"


def recipe(name: str, size: int) -> Recipe:
    """The augmentation of a paper for views of `size` pixels: "moco_v1" (1911.05722), "moco_v2" (2003.04297) or
    "simclr" (2002.05709). A name that is none of these is a ValueError.

    Up to `SMALL` pixels blur is left out. Two deviations from the official codes: blur is a Gaussian as wide as a tenth
    of the image's side, as in SimCLR, also where MoCo has Pillow's approximation of one; SimCLR's jitter is
    torchvision's, not TensorFlow's.
    """
    blurred = 0.0 if size <= SMALL else 0.5
    taps = 2 * (size // 20) + 1
    moco_v2 = Recipe(
        name="moco_v2",
        size=size,
        crop_scale=(0.2, 1.0),
        jitter_strength=(0.4, 0.4, 0.4, 0.1),
        jitter_chance=0.8,
        blur_chance=blurred,
        blur_taps=taps,
        order=("crop", "rotation", "jitter", "grey", "blur", "flip"),
    )
    strength = 0.5 if size <= SMALL else 1.0
    known = {
        "moco_v1": replace(
            moco_v2,
            name="moco_v1",
            jitter_strength=(0.4, 0.4, 0.4, 0.4),
            jitter_chance=1.0,
            blur_chance=0.0,
            order=("crop", "rotation", "grey", "jitter", "blur", "flip"),
        ),
        "moco_v2": moco_v2,
        "simclr": replace(
            moco_v2,
            name="simclr",
            crop_scale=(0.08, 1.0),
            jitter_strength=(0.8 * strength, 0.8 * strength, 0.8 * strength, 0.2 * strength),
            order=("crop", "flip", "rotation", "jitter", "grey", "blur"),
        ),
    }
    if name not in known:
        raise ValueError(f"no view recipe is called {name!r}: there are {', '.join(known)}")
    return known[name]
