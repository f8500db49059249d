"""What do teacher and student see? Weak and strong views of one image, each with the matrix that made it.

Ranges, order and fills are those of the PAIS release [paper.md 2.4]; the coordinates are continuous, so a flip is not
off by a pixel. Every draw comes from the generator given, never from a global one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from pais_bench import geometry
from pais_bench.config import Views
from pais_bench.types import View

FILL = 125 / 255
"""Grey of pixels from beyond the image and of erased patches."""

Generator = np.random.Generator
Operation = Callable[[View, Generator], View]


def weak(image: Tensor, views: Views, rng: Generator) -> View:
    """Resize to a random scale and flip with probability views.flip: the teacher's view of u8[3,H,W]."""
    return _normal(_resize_and_flip(image, views, rng))


def labelled(image: Tensor, views: Views, rng: Generator) -> View:
    """Resize, flip and one colour operation: the student's view of a labelled u8[3,H,W]."""
    return _normal(colour(_resize_and_flip(image, views, rng), rng))


def strong(image: Tensor, views: Views, rng: Generator) -> View:
    """Resize, flip, then a colour operation, a geometric one and erased patches in random order, of u8[3,H,W].

    Pseudo-masks are not erased under a patch: the student has to fill in what it does not see.
    """
    view = _resize_and_flip(image, views, rng)
    operations: list[Operation] = [colour, move, erase]
    for i in rng.permutation(len(operations)):
        view = operations[i](view, rng)
    return _normal(view)


def test(image: Tensor, views: Views) -> View:
    """Resize to the test scale, without flip, of u8[3,H,W]."""
    return _normal(_resize(image, views.test_short, views.test_long))


def colour(view: View, rng: Generator) -> View:
    """Apply one of nine colour operations, uniformly, at an integer level 1..9."""
    name = COLOURS[rng.integers(len(COLOURS))]
    return View(recolour(view.image, name, int(rng.integers(1, 10))), view.matrix)


COLOURS = (
    "identity",
    "autocontrast",
    "equalize",
    "solarize",
    "color",
    "contrast",
    "brightness",
    "sharpness",
    "posterize",
)


def recolour(image: Tensor, name: str, level: int) -> Tensor:
    """Apply a named colour operation to u8[3,H,W] at a level 1..9: enhancers take the factor 0.18 level + 0.1."""
    factor = 0.18 * level + 0.1
    changes: dict[str, Callable[[], Tensor]] = {
        "identity": lambda: image,
        "autocontrast": lambda: tv.autocontrast(image),
        "equalize": lambda: tv.equalize(image),
        "solarize": lambda: tv.solarize(image, min(int(25.6 * level), 255)),
        "color": lambda: tv.adjust_saturation(image, factor),
        "contrast": lambda: tv.adjust_contrast(image, factor),
        "brightness": lambda: tv.adjust_brightness(image, factor),
        "sharpness": lambda: tv.adjust_sharpness(image, factor),
        "posterize": lambda: tv.posterize(image, 4 - int(0.4 * level)),
    }
    return changes[name]()


def move(view: View, rng: Generator) -> View:
    """Apply one of four geometric operations, uniformly: shift x or y by 10 %, rotate by 30 degrees, shear."""
    name, amount = MOVES[rng.integers(len(MOVES))], rng.uniform(-1, 1)
    other = rng.uniform(-1, 1) if name == "shear" else 0.0
    matrix = displacement(name, view.size, amount, other)
    image = geometry.warp(view.image.float(), matrix, view.size, fill=255 * FILL)
    return View(image.round().clamp(0, 255).to(torch.uint8), matrix @ view.matrix)


MOVES = ("shift_x", "shift_y", "rotate", "shear")


def displacement(name: str, size: tuple[int, int], amount: float, other: float = 0.0) -> Tensor:
    """Give the matrix of a named move of a view (H, W) by amounts -1..1; a shear takes the other along y."""
    height, width = size
    moves: dict[str, Callable[[], Tensor]] = {
        "shift_x": lambda: geometry.shift(0.1 * amount * width, 0),
        "shift_y": lambda: geometry.shift(0, 0.1 * amount * height),
        "rotate": lambda: geometry.about(rotation(30 * amount), width / 2, height / 2),
        "shear": lambda: shear(30 * amount, 30 * other),
    }
    return moves[name]()


def rotation(degrees: float) -> Tensor:
    """Give the matrix of a rotation about the origin; positive turns clockwise on the screen."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)


def shear(x: float, y: float) -> Tensor:
    """Give the matrix of a shear along x, then along y, by tanh of the angles in degrees: at most 0.48 at 30."""
    along_x = torch.tensor([[1, math.tanh(-math.radians(x)), 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    along_y = torch.tensor([[1, 0, 0], [math.tanh(math.radians(y)), 1, 0], [0, 0, 1]], dtype=torch.float64)
    return along_y @ along_x


def erase(view: View, rng: Generator) -> View:
    """Paint 1 to 4 patches grey; each has the same share, up to 0.2, of the height and of the width."""
    image, (height, width) = view.image.clone(), view.size
    for _ in range(rng.integers(1, 5)):
        share = rng.uniform(0, 0.2)
        h, w = int(share * height), int(share * width)
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        image[:, top : top + h, left : left + w] = round(255 * FILL)
    return View(image, view.matrix)


def _resize_and_flip(image: Tensor, views: Views, rng: Generator) -> View:
    view = _resize(image, int(rng.integers(views.short[0], views.short[1] + 1)), views.long)
    if rng.random() >= views.flip:
        return view
    return View(view.image.flip(-1), geometry.flip(view.size[1]) @ view.matrix)


def _resize(image: Tensor, short: int, long: int) -> View:
    height, width = image.shape[-2:]
    factor = min(long / max(height, width), short / min(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    if size != (height, width):
        image = tv.resize(image, list(size), antialias=True)
    return View(image, geometry.scale(size[1] / width, size[0] / height))


def _normal(view: View) -> View:
    return View(view.image.float() / 255, view.matrix)
