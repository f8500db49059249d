"""Make weak and strong views of one image, each with the matrix that maps original pixels to its pixels.

Ranges, order and fills are those of PAIS's released code; the coordinates are continuous, so a flip is not off by a
pixel. All random numbers come from the given generator, never from a global one.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from pais_bench import geometry
from pais_bench.study.run import InputOptions
from pais_bench.types import View

FILL = 125 / 255
"""Grey value of pixels from outside of the image and of random erasing."""

Generator = np.random.Generator
Operation = Callable[[View, Generator], View]


def weak(image: Tensor, options: InputOptions, rng: Generator) -> View:
    """Resize to a random scale and flip with probability options.flip_prob: the teacher's view of u8[3,H,W]."""
    return _to_float(_resize_and_flip(image, options, rng))


def labelled(image: Tensor, options: InputOptions, rng: Generator) -> View:
    """Resize, flip and apply a photometric operation: the student's view of a labelled u8[3,H,W]."""
    return _to_float(photometric(_resize_and_flip(image, options, rng), rng))


def strong(image: Tensor, options: InputOptions, rng: Generator) -> View:
    """Resize and flip u8[3,H,W], then apply a photometric and a geometric operation and erasing in random order.

    Pseudo-masks are not erased under a patch: the student has to predict the hidden part.
    """
    view = _resize_and_flip(image, options, rng)
    operations: list[Operation] = [photometric, geometric, random_erasing]
    for i in rng.permutation(len(operations)):
        view = operations[i](view, rng)
    return _to_float(view)


def test(image: Tensor, options: InputOptions) -> View:
    """Resize u8[3,H,W] to the test scale, without a flip."""
    return _to_float(_resize(image, options.min_size_test, options.max_size_test))


def photometric(view: View, rng: Generator) -> View:
    """Apply one of the nine photometric operations, chosen uniformly, at an integer level 1..9."""
    name = PHOTOMETRIC[rng.integers(len(PHOTOMETRIC))]
    return View(apply_photometric(view.image, name, int(rng.integers(1, 10))), view.matrix)


PHOTOMETRIC = (
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


def apply_photometric(image: Tensor, name: str, level: int) -> Tensor:
    """Apply a photometric operation to u8[3,H,W] at a level 1..9: enhancers take the factor 0.18 level + 0.1."""
    factor = 0.18 * level + 0.1
    operations: dict[str, Callable[[], Tensor]] = {
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
    return operations[name]()


def geometric(view: View, rng: Generator) -> View:
    """Apply one of four geometric operations, chosen uniformly: shift x or y by 10 %, rotate by 30 degrees, shear."""
    name, amount = GEOMETRIC[rng.integers(len(GEOMETRIC))], rng.uniform(-1, 1)
    amount_y = rng.uniform(-1, 1) if name == "shear" else 0.0
    matrix = geometric_matrix(name, view.size, amount, amount_y)
    image = geometry.warp(view.image.float(), matrix, view.size, fill=255 * FILL)
    return View(image.round().clamp(0, 255).to(torch.uint8), matrix @ view.matrix)


GEOMETRIC = ("shift_x", "shift_y", "rotate", "shear")


def geometric_matrix(name: str, size: tuple[int, int], amount: float, amount_y: float = 0.0) -> Tensor:
    """Return the matrix of a geometric operation on a view (H, W) by amounts -1..1; amount_y is a shear's along y."""
    height, width = size
    matrices: dict[str, Callable[[], Tensor]] = {
        "shift_x": lambda: geometry.shift(0.1 * amount * width, 0),
        "shift_y": lambda: geometry.shift(0, 0.1 * amount * height),
        "rotate": lambda: geometry.about(rotation(30 * amount), width / 2, height / 2),
        "shear": lambda: shear(30 * amount, 30 * amount_y),
    }
    return matrices[name]()


def rotation(degrees: float) -> Tensor:
    """Return the matrix of a rotation about the origin; positive turns clockwise on the screen."""
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)


def shear(x: float, y: float) -> Tensor:
    """Return the matrix of a shear along x, then along y, by tanh of the angles in degrees: at most 0.48 at 30."""
    along_x = torch.tensor([[1, math.tanh(-math.radians(x)), 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    along_y = torch.tensor([[1, 0, 0], [math.tanh(math.radians(y)), 1, 0], [0, 0, 1]], dtype=torch.float64)
    return along_y @ along_x


def random_erasing(view: View, rng: Generator) -> View:
    """Paint 1 to 4 patches grey; each covers the same fraction, up to 0.2, of the height and of the width."""
    image, (height, width) = view.image.clone(), view.size
    for _ in range(rng.integers(1, 5)):
        fraction = rng.uniform(0, 0.2)
        h, w = int(fraction * height), int(fraction * width)
        top, left = int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1))
        image[:, top : top + h, left : left + w] = round(255 * FILL)
    return View(image, view.matrix)


def _resize_and_flip(image: Tensor, options: InputOptions, rng: Generator) -> View:
    low, high = options.min_size_train
    view = _resize(image, int(rng.integers(low, high + 1)), options.max_size_train)
    if rng.random() >= options.flip_prob:
        return view
    return View(view.image.flip(-1), geometry.flip(view.size[1]) @ view.matrix)


def _resize(image: Tensor, min_size: int, max_size: int) -> View:
    height, width = image.shape[-2:]
    factor = min(max_size / max(height, width), min_size / min(height, width))
    size = max(1, round(height * factor)), max(1, round(width * factor))
    if size != (height, width):
        image = tv.resize(image, list(size), antialias=True)
    return View(image, geometry.scale(size[1] / width, size[0] / height))


def _to_float(view: View) -> View:
    return View(view.image.float() / 255, view.matrix)
