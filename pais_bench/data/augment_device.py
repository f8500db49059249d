"""Render a recipe on the training's device, by integer arithmetic, to the very pixels that augment.py renders.

Nothing here reads a value back from the device. The tables of a resize are computed where the recipe is drawn, because
they come from sums in float64, and travel with the image.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from pais_bench.data.augment import sampling_matrix
from pais_bench.data.photometric import GREY_SHIFT, GREY_WEIGHTS, HISTOGRAMS, SCALE, factor, value_table
from pais_bench.data.recipe import FILL, Erasing, Geometric, Matrix, Photometric, Recipe
from pais_bench.types import Size


class ResizeTable(NamedTuple):
    """Hold how one side is resized from n to m pixels: pixel = (sum over K taps of weight · image[source]) >> shift.

    source i32[K,m] | weight i32[K,m] | shift, bits.
    """

    source: Tensor
    weight: Tensor
    shift: int


def render(image: Tensor, made: Recipe, tables: tuple[ResizeTable, ResizeTable]) -> Tensor:
    """Return the view u8[3,h,w] of an image u8[3,H,W] on its device; tables resize its rows and its columns."""
    rows, columns = tables
    if made.size[1] != made.source[1]:
        image = _resize(image, columns, -1)
    if made.size[0] != made.source[0]:
        image = _resize(image, rows, -2)
    if made.flip:
        image = image.flip(-1)
    for operation in made.operations:
        if isinstance(operation, Photometric):
            image = recolour(image, operation)
        elif isinstance(operation, Geometric):
            image = warp(image, operation.matrix, made.size)
        else:
            image = erase(image, operation)
    return image


def resize_taps(source: int, target: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], int]:
    """Return source, weight and shift of a ResizeTable as torch has them for u8: a triangle, normalised, of 16 bits."""
    scale = source / target
    support = max(scale, 1.0)
    centre = scale * (np.arange(target) + 0.5)
    first = np.maximum((centre - support + 0.5).astype(np.int64), 0)
    last = np.minimum((centre + support + 0.5).astype(np.int64), source)
    taps = first[:, None] + np.arange(int((last - first).max()))
    weight = np.maximum(1 - np.abs((taps - centre[:, None] + 0.5) / support), 0) * (taps < last[:, None])
    weight /= weight.sum(1, keepdims=True)
    shift = next((bits for bits in range(22) if int(0.5 + weight.max() * 2 ** (bits + 1)) >= 2**15), 22)
    rounded = np.floor(weight * 2**shift + 0.5)
    return np.minimum(taps, source - 1).T.astype(np.int32), rounded.T.astype(np.int32), shift


def recolour(image: Tensor, operation: Photometric) -> Tensor:
    """Apply a photometric operation to u8[3,H,W]."""
    name, level = operation.name, operation.level
    if name == "identity" or (name == "sharpness" and min(image.shape[-2:]) < 3):
        return image
    if name == "color":
        return _blend(image, _grey(image).expand_as(image), level)
    if name == "sharpness":
        return _blend(image, _blurred(image), level)
    table = value_table(name, level, _histogram(image, HISTOGRAMS.get(name)))
    return table.expand(3, -1).gather(1, image.flatten(1).long()).view_as(image)


def warp(image: Tensor, matrix: Matrix, size: Size) -> Tensor:
    """Resample u8[3,H,W] bilinearly through a matrix f64[3,3] into u8[3,*size]; outside pixels become FILL.

    OpenCV's fixed point: a coordinate is the sum of a row's and a column's, each rounded to 1/1024 px, cut to 1/32 px.
    """
    height, width = image.shape[-2:]
    sampling = sampling_matrix(matrix)
    rows = torch.arange(size[0], dtype=torch.float64, device=image.device)
    columns = torch.arange(size[1], dtype=torch.float64, device=image.device)
    x, y = (
        (((rows * float(b) + float(c)) * 1024).round().int()[:, None] + 16 + (columns * float(a) * 1024).round().int())
        >> 5
        for a, b, c in sampling[:2]
    )
    padded = F.pad(image, (1, 1, 1, 1), value=FILL).flatten(1)
    left, top = (x >> 5) + 1, (y >> 5) + 1
    right, bottom = (left + 1).clamp(0, width + 1), (top + 1).clamp(0, height + 1)
    left, top = left.clamp(0, width + 1), top.clamp(0, height + 1)
    x, y = x & 31, y & 31
    total = torch.full((3, *size), 512, dtype=torch.int32, device=image.device)
    for row, row_share in ((top, 32 - y), (bottom, y)):
        for column, column_share in ((left, 32 - x), (right, x)):
            values = padded[:, (row * (width + 2) + column).long().flatten()].view(3, *size)
            total += values * (row_share * column_share)
    return (total >> 10).to(torch.uint8)


def erase(image: Tensor, operation: Erasing) -> Tensor:
    """Paint patches of u8[3,H,W] grey."""
    image = image.clone()
    for top, left, height, width in operation.patches:
        image[:, top : top + height, left : left + width].fill_(FILL)
    return image


def _resize(image: Tensor, table: ResizeTable, dim: int) -> Tensor:
    shape = (-1, 1) if dim == -2 else (-1,)
    resized = list(image.shape)
    resized[dim] = table.source.shape[1]
    total = torch.full(resized, 1 << (table.shift - 1), dtype=torch.int32, device=image.device)
    for source, weight in zip(table.source, table.weight, strict=True):
        total += image.index_select(dim, source) * weight.view(shape)
    return (total >> table.shift).clamp(0, 255).to(torch.uint8)


def _blend(image: Tensor, other: Tensor, level: int) -> Tensor:
    share = factor(level) / SCALE
    return (image.float() * share + other.float() * (1 - share)).round().clamp(0, 255).to(torch.uint8)


def _grey(image: Tensor) -> Tensor:
    red, green, blue = (channel.int() * weight for channel, weight in zip(image, GREY_WEIGHTS, strict=True))
    grey: Tensor = (red + green + blue + (1 << (GREY_SHIFT - 1))) >> GREY_SHIFT
    return grey.to(torch.uint8)


def _blurred(image: Tensor) -> Tensor:
    """Return u8[3,H,W] with every pixel counted 5 times beside its neighbours; the border stays as it is."""
    wide = image.int()
    columns = wide[:, :, :-2] + wide[:, :, 1:-1] + wide[:, :, 2:]
    inner = wide[:, 1:-1, 1:-1]
    total = columns[:, :-2] + columns[:, 1:-1] + columns[:, 2:] + 4 * inner
    blurred = image.clone()
    blurred[:, 1:-1, 1:-1] = (2 * total + 13) // 26
    return blurred


def _histogram(image: Tensor, kind: str | None) -> Tensor:
    """Return the histogram i64[C,256] of the channels or of the grey image; zeros where none is needed."""
    if kind is None:
        return torch.zeros((1, 256), dtype=torch.int64, device=image.device)
    values = (_grey(image)[None] if kind == "grey" else image).flatten(1).long()
    return torch.zeros((len(values), 256), dtype=torch.int64, device=image.device).scatter_add_(
        1, values, torch.ones_like(values)
    )
