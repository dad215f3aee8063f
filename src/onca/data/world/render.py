"""From a species to its pictures: each with its own pose, body, light, colours, background, occlusion and noise.

How strong each of these may be was tuned; docs/world.md tells how, and what other strengths did. n images, P pixels.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from onca.data.world import patterns
from onca.data.world.draws import Dice, noise, uniform

BLOCK = 512  # images made together: always whole blocks, since the last bit of a float can depend on a batch's shape
GROUP = 32  # of these, as many of one genus at once as fit into the cache

# pose; lengths in half-widths of the picture
CELLS = 2.0  # elements across the picture, at scale 1
SIZE = 0.12  # log of the scale, either way
TURN = 0.08  # of a full turn, from one end to the other
ASPECT = 0.08
WARP = 0.05
SHIFT = 0.12  # of the body's middle, either way
BODY = 0.25  # how far the outline leaves the circle

# pattern
WEIGHT = 0.1  # elements thicker or thinner by this share of their radius
STRENGTH = (0.7, 1.0)  # of the species' detail, against the plain filled element
INK = (0.45, 0.4)  # mean and spread of the ink in every picture: neither is to give the species away
CONTRAST = (0.7, 1.0)  # of the ink against the coat
DARK = 0.95  # share of the animals with dark elements on a light coat

# colours: hue 0 to 1 around the circle
COAT_HUE = (0.05, 0.13)
GROUND_HUE = (0.12, 0.28)
SATURATION = (0.25, 0.45)
COAT_VALUE = (0.7, 1.0)
GROUND_VALUE = (0.3, 0.8)

# what else is in the picture
TEXTURE = 0.3  # of the background
BARS = 0.2  # share of the pictures with a blade of grass in front
LIGHT = 0.2  # brighter or darker, and again from one side to the other
NOISE = 0.035  # ends of a uniform distribution: a standard deviation of 0.02

# motion: how far, as the constants above, a frame may leave the first one; and how fast, in turns a frame
STEP_ASIDE, STEP_UP = 0.30, 0.12
SWAY = 0.05  # of a full turn
APPROACH = 0.12  # log of the scale
GAIT = 0.5  # radians of the skin's warp
CLOUD = 0.8  # of LIGHT
PACE = (0.02, 0.06)
SHOT = 40  # bits of an animal's number, above which the frame's stands where every frame has noise of its own


def block(number: int, seed: int, families: int, genera: int, species: int, size: int, frames: int = 1) -> Tensor:
    """BLOCK images from number * BLOCK on, uint8 [BLOCK,3,size,size].

    Image i is frame i modulo `frames` of animal i // frames, and animal a is of class a modulo the classes.
    """
    ids = torch.arange(number * BLOCK, (number + 1) * BLOCK)
    label = ids // frames % (families * genera * species)
    images = torch.empty(BLOCK, 3, size, size, dtype=torch.uint8)
    for f, fields in enumerate(list(patterns.FAMILIES.values())[:families]):
        for g, field in enumerate(fields[:genera]):
            members = (label // species == f * genera + g).nonzero().flatten()
            for rows in torch.split(members, GROUP):
                images[rows] = _draw(seed, ids[rows] // frames, ids[rows] % frames, field, label[rows] % species, size)
    return images


class Motion:
    """How far n animals have moved since their first frames, one kind of movement at a time, as `Dice`."""

    def __init__(self, seed: int, ids: Tensor, frame: Tensor) -> None:
        self.dice = Dice(seed, ids, stream=4, count=16)
        self.frame = frame[:, None]

    def up_to(self, most: float) -> Tensor:
        """A smooth wandering to and fro over twice `most`, 0 at frame 0, [n,1]."""
        phase, pace = self.dice.between(0, math.tau), math.tau * self.dice.between(*PACE)
        return most * (torch.sin(phase + pace * self.frame) - torch.sin(phase))


def _draw(seed: int, ids: Tensor, frame: Tensor, field: patterns.Field, species: Tensor, size: int) -> Tensor:
    dice, motion = Dice(seed, ids, stream=0, count=48), Motion(seed, ids, frame)
    canvas = _pose(dice, motion, size)
    ink = _ink(dice, canvas, field, uniform(seed, ids, 1, patterns.FREE), species, edge=2.9 / size)
    coat = _colour(dice, COAT_HUE, COAT_VALUE)  # n,3,1
    animal = coat * (1 - dice.between(*CONTRAST) * ink)[:, None]  # n,3,P
    texture = functional.interpolate(uniform(seed, ids, 2, 64).view(-1, 1, 8, 8), (size, size), mode="bicubic")
    ground = _colour(dice, GROUND_HUE, GROUND_VALUE) * (1 + TEXTURE * (2 * texture.flatten(2) - 1))
    seen = (_body(dice, canvas) * (1 - _bar(dice, canvas)))[:, None]
    level, across, down = (dice.between(-1, 1) + motion.up_to(CLOUD) for _ in range(3))
    light = 1 + LIGHT * (level + across * canvas.x + down * canvas.y)
    image = (ground + seen * (animal - ground)) * light[:, None] + NOISE * noise(
        seed, ids + (frame << SHOT), 3, size * size
    )
    return (image.clamp_(0, 1) * 255).round_().to(torch.uint8).view(-1, 3, size, size)


@dataclass(frozen=True)
class Canvas:
    """The pixels' places: in the picture (-1..1), from the middle of the body, and on the skin (in cells)."""

    x: Tensor  # 1,P
    y: Tensor
    body_x: Tensor  # n,P
    body_y: Tensor
    u: Tensor  # n,P
    v: Tensor


def _pose(dice: Dice, motion: Motion, size: int) -> Canvas:
    axis = (torch.arange(size) + 0.5) / size * 2 - 1
    x, y = axis.repeat(size)[None], axis.repeat_interleave(size)[None]
    away = motion.up_to(APPROACH).exp()
    body_x = away * (x - dice.between(-SHIFT, SHIFT) - motion.up_to(STEP_ASIDE))
    body_y = away * (y - dice.between(-SHIFT, SHIFT) - motion.up_to(STEP_UP))
    turn = math.tau * (dice.between(-TURN / 2, TURN / 2) + motion.up_to(SWAY))
    scale = CELLS / 2 * dice.between(-SIZE, SIZE).exp()
    aspect = dice.between(-ASPECT, ASPECT).exp()
    u = (body_x * turn.cos() + body_y * turn.sin()) * scale * aspect
    v = (body_y * turn.cos() - body_x * turn.sin()) * scale / aspect
    rate, phase = dice.between(1.5, 3.0), dice.between(0, math.tau) + motion.up_to(GAIT)
    u = u + WARP * torch.sin(rate * v + phase) + dice.between(-0.5, 0.5)
    v = v + WARP * torch.sin(rate * u + dice.between(0, math.tau)) + dice.between(-0.5, 0.5)
    return Canvas(x, y, body_x, body_y, u, v)


def _ink(dice: Dice, canvas: Canvas, field: patterns.Field, free: Tensor, species: Tensor, edge: float) -> Tensor:
    level = field(canvas.u, canvas.v, free) - dice.between(-WEIGHT, WEIGHT)
    ink = patterns.filled(level, edge)
    strength = dice.between(*STRENGTH)
    for s, detail in enumerate(patterns.DETAILS):
        rows = (species == s).nonzero().flatten()
        ink[rows] += strength[rows] * (detail(level[rows], edge) - ink[rows])
    mean, spread = ink.mean(1, keepdim=True), ink.std(1, keepdim=True) + 1e-3
    ink = (INK[0] + INK[1] * (ink - mean) / spread).clamp_(0, 1)
    dark = dice.chance(DARK)
    return dark * ink + (1 - dark) * (1 - ink)


def _body(dice: Dice, canvas: Canvas) -> Tensor:
    """How much of each pixel is animal: a round body with two and three bulges."""
    angle = torch.atan2(canvas.body_y, canvas.body_x)
    bulges = dice.between(-0.5, 0.5) * torch.cos(2 * angle) + dice.between(-0.25, 0.25) * torch.cos(3 * angle)
    outline = 1.15 + BODY * (dice.between(-0.5, 0.5) + bulges)
    return torch.sigmoid((outline - torch.hypot(canvas.body_x, canvas.body_y)) / 0.05)


def _bar(dice: Dice, canvas: Canvas) -> Tensor:
    turn = dice.between(0, math.tau)
    away = (canvas.x * turn.cos() + canvas.y * turn.sin() - dice.between(-0.7, 0.7)).abs()
    return dice.chance(BARS) * torch.sigmoid((dice.between(0.08, 0.16) - away) / 0.03)


def _colour(dice: Dice, hue: tuple[float, float], value: tuple[float, float]) -> Tensor:
    """Red, green and blue of a drawn hue, saturation and value, [n,3,1]."""
    h, s, v = dice.between(*hue), dice.between(*SATURATION), dice.between(*value)
    k = (torch.tensor([5.0, 3.0, 1.0]) + 6 * h).remainder(6)
    return (v - v * s * torch.minimum(k, 4 - k).clamp(0, 1))[:, :, None]
