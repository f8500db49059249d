"""Draw how a view is made of an image: a recipe of sizes, operations and levels, without touching a pixel.

Ranges, order and fills are those of PAIS's released code; the coordinates are continuous, so a flip is not off by a
pixel. All random numbers come from the given generator, never from a global one. A recipe is rendered on the CPU
(augment.py) or on the training's device (augment_device.py), to the same pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pais_bench import geometry
from pais_bench.study.run import InputOptions
from pais_bench.types import Size

FILL = 125
"""Grey value 0..255 of pixels from outside of the image and of random erasing."""

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
GEOMETRIC = ("shift_x", "shift_y", "rotate", "shear")

Generator = np.random.Generator
Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Photometric:
    """Hold a photometric operation, one of PHOTOMETRIC, and its level 1..9."""

    name: str
    level: int


@dataclass(frozen=True)
class Geometric:
    """Hold a geometric operation on a view as its matrix f64[3,3], which maps pixels of the view before it."""

    matrix: Matrix


@dataclass(frozen=True)
class Erasing:
    """Hold the patches (top, left, height, width), in pixels, that are painted grey."""

    patches: tuple[tuple[int, int, int, int], ...]


Operation = Photometric | Geometric | Erasing


@dataclass(frozen=True)
class Recipe:
    """Hold how a view is made: resize to size (H, W), flip, then the operations in their order.

    The matrices are NumPy's: a tensor would take a file descriptor of its own on its way from a loader process.
    """

    source: Size
    size: Size
    flip: bool = False
    operations: tuple[Operation, ...] = ()

    @property
    def matrix(self) -> Matrix:
        """Return the matrix f64[3,3] that maps original pixels to pixels of the view."""
        (height, width), (source_height, source_width) = self.size, self.source
        matrix: Matrix = geometry.scale(width / source_width, height / source_height).numpy()
        if self.flip:
            matrix = geometry.flip(width).numpy() @ matrix
        for operation in self.operations:
            if isinstance(operation, Geometric):
                matrix = operation.matrix @ matrix
        return matrix


def weak(size: Size, options: InputOptions, rng: Generator) -> Recipe:
    """Draw the teacher's view of an image of size (H, W): a random scale, a flip with probability flip_prob."""
    low, high = options.min_size_train
    resized = _resized(size, int(rng.integers(low, high + 1)), options.max_size_train)
    return Recipe(size, resized, flip=bool(rng.random() < options.flip_prob))


def labelled(size: Size, options: InputOptions, rng: Generator) -> Recipe:
    """Draw the student's view of a labelled image: scale, flip and a photometric operation."""
    drawn = weak(size, options, rng)
    return Recipe(size, drawn.size, drawn.flip, (photometric(drawn.size, rng),))


def strong(size: Size, options: InputOptions, rng: Generator) -> Recipe:
    """Draw the student's view of an unlabelled image: scale, flip; photometric, geometric, erasing in random order.

    Pseudo-masks are not erased under a patch: the student has to predict the hidden part.
    """
    drawn = weak(size, options, rng)
    draws: tuple[Callable[[Size, Generator], Operation], ...] = (photometric, geometric, random_erasing)
    operations = tuple(draws[i](drawn.size, rng) for i in rng.permutation(len(draws)))
    return Recipe(size, drawn.size, drawn.flip, operations)


def test(size: Size, options: InputOptions) -> Recipe:
    """Return the view at the test scale, without a flip."""
    return Recipe(size, _resized(size, options.min_size_test, options.max_size_test))


def photometric(size: Size, rng: Generator) -> Photometric:
    """Draw one of the nine photometric operations uniformly, and an integer level 1..9."""
    name = PHOTOMETRIC[rng.integers(len(PHOTOMETRIC))]
    return Photometric(name, int(rng.integers(1, 10)))


def geometric(size: Size, rng: Generator) -> Geometric:
    """Draw one of four geometric operations uniformly: shift x or y by 10 %, rotate by 30 degrees, shear."""
    name, amount = GEOMETRIC[rng.integers(len(GEOMETRIC))], rng.uniform(-1, 1)
    amount_y = rng.uniform(-1, 1) if name == "shear" else 0.0
    return Geometric(geometric_matrix(name, size, amount, amount_y).numpy())


def random_erasing(size: Size, rng: Generator) -> Erasing:
    """Draw 1 to 4 patches; each covers the same fraction, up to 0.2, of the height and of the width."""
    (height, width), patches = size, []
    for _ in range(rng.integers(1, 5)):
        fraction = rng.uniform(0, 0.2)
        h, w = int(fraction * height), int(fraction * width)
        patches.append((int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w))
    return Erasing(tuple(patches))


def geometric_matrix(name: str, size: Size, amount: float, amount_y: float = 0.0) -> Tensor:
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


def _resized(size: Size, min_size: int, max_size: int) -> Size:
    """Return the size of an image with its shorter side at min_size, and its longer one at max_size at most."""
    height, width = size
    factor = min(max_size / max(height, width), min_size / min(height, width))
    return max(1, round(height * factor)), max(1, round(width * factor))
