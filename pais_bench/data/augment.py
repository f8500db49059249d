"""Render a recipe on the CPU: resize, flip and operations of a u8 image by OpenCV and torch, which never leave u8.

Resizing is bilinear with antialiasing (that of Pillow), warping is bilinear at coordinates rounded to 1/32 px.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from pais_bench.data import recipe
from pais_bench.data.photometric import HISTOGRAMS, SCALE, factor, value_table
from pais_bench.data.recipe import FILL, Erasing, Geometric, Matrix, Photometric, Recipe
from pais_bench.study.run import InputOptions
from pais_bench.types import Size, View

cv2.setNumThreads(1)  # its threads do not survive the fork of a loader process, and would compete with those of torch

Pixels = npt.NDArray[np.uint8]
"""An image as OpenCV has it: u8[H,W,3], contiguous."""

CENTRE = np.array([[1, 0, -0.5], [0, 1, -0.5], [0, 0, 1]])
"""Maps continuous coordinates to OpenCV's, in which the centre of the first pixel is 0."""
BLUR = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], dtype=np.float32) / 13


def test(image: Tensor, options: InputOptions) -> View:
    """Resize u8[3,H,W] to the test scale, without a flip."""
    height, width = image.shape[-2:]
    return view(image, recipe.test((height, width), options))


def view(image: Tensor, made: Recipe) -> View:
    """Return the view f32[3,h,w] of an image u8[3,H,W] that a recipe describes."""
    return View(to_float(render(image, made)), torch.from_numpy(made.matrix))


def to_float(pixels: Pixels | Tensor) -> Tensor:
    """Return pixels u8[H,W,3] as f32[3,H,W] in 0..1."""
    channels = torch.as_tensor(pixels).permute(2, 0, 1)
    return channels.to(torch.float32, memory_format=torch.contiguous_format).div_(255)


def render(image: Tensor, made: Recipe) -> Pixels:
    """Return the pixels u8[h,w,3] of a recipe's view of an image u8[3,H,W]; fastest where its memory is [H,W,3]."""
    if made.size != made.source:
        image = F.interpolate(image[None], made.size, mode="bilinear", antialias=True)[0]
    pixels: Pixels = np.ascontiguousarray(image.permute(1, 2, 0).numpy())
    if made.flip:
        pixels = np.asarray(cv2.flip(pixels, 1), dtype=np.uint8)
    for operation in made.operations:
        if isinstance(operation, Photometric):
            pixels = recolour(pixels, operation)
        elif isinstance(operation, Geometric):
            pixels = warp(pixels, operation.matrix, made.size)
        else:
            pixels = erase(pixels, operation)
    return pixels


def recolour(pixels: Pixels, operation: Photometric) -> Pixels:
    """Apply a photometric operation to u8[H,W,3]."""
    name, level = operation.name, operation.level
    height, width, _ = pixels.shape
    if name == "identity" or (name == "sharpness" and min(height, width) < 3):
        return pixels
    if name == "color":
        grey = cv2.cvtColor(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
        return _blend(pixels, np.asarray(grey, dtype=np.uint8), level)
    if name == "sharpness":
        blurred = pixels.copy()
        blurred[1:-1, 1:-1] = cv2.filter2D(pixels, -1, BLUR)[1:-1, 1:-1]
        return _blend(pixels, blurred, level)
    table = value_table(name, level, _histogram(pixels, HISTOGRAMS.get(name))).numpy()
    lut = np.ascontiguousarray(np.broadcast_to(table, (3, 256)).T)[None]
    return np.asarray(cv2.LUT(pixels, lut), dtype=np.uint8)


def warp(pixels: Pixels, matrix: Matrix, size: Size) -> Pixels:
    """Resample u8[H,W,3] bilinearly through a matrix f64[3,3] into u8[*size,3]; outside pixels become FILL.

    What warpAffine of OpenCV 4 does, and that of 5, in floats, does not: a coordinate is the sum of a row's and a
    column's, each rounded to 1/1024 px, cut to 1/32 px.
    """
    sampling = sampling_matrix(matrix)
    rows, columns = np.arange(size[0])[:, None], np.arange(size[1])
    x, y = (
        (np.rint((b * rows + c) * 1024).astype(np.int32) + 16 + np.rint(a * columns * 1024).astype(np.int32)) >> 5
        for a, b, c in sampling[:2]
    )
    whole = np.stack((x >> 5, y >> 5), -1).clip(-(1 << 15), (1 << 15) - 1).astype(np.int16)
    fraction = (((y & 31) << 5) + (x & 31)).astype(np.uint16)
    fill = (FILL,) * 3
    warped = cv2.remap(pixels, whole, fraction, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=fill)
    return np.asarray(warped, dtype=np.uint8)


def sampling_matrix(matrix: Matrix) -> Matrix:
    """Return the matrix f64[3,3] that maps centres of a view's pixels, counted from 0, to those of its source."""
    return np.asarray(CENTRE @ np.linalg.inv(matrix) @ np.linalg.inv(CENTRE))


def erase(pixels: Pixels, operation: Erasing) -> Pixels:
    """Paint patches of u8[H,W,3] grey."""
    pixels = pixels.copy()
    for top, left, height, width in operation.patches:
        pixels[top : top + height, left : left + width] = FILL
    return pixels


def _blend(pixels: Pixels, other: npt.NDArray[np.uint8], level: int) -> Pixels:
    share = factor(level) / SCALE
    return np.asarray(cv2.addWeighted(pixels, share, other, 1 - share, 0), dtype=np.uint8)


def _histogram(pixels: Pixels, kind: str | None) -> Tensor:
    """Return the histogram i64[C,256] of the channels or of the grey image; zeros where none is needed."""
    if kind is None:
        return torch.zeros((1, 256), dtype=torch.int64)
    image = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)[..., None] if kind == "grey" else pixels
    channels = [cv2.calcHist([image], [c], None, [256], [0, 256]).ravel() for c in range(image.shape[-1])]
    return torch.from_numpy(np.stack(channels)).to(torch.int64)
