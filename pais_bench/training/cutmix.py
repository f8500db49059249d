"""Replace a rectangle of a strong view by that of another image: CutMix [arXiv 1905.04899]."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from pais_bench import geometry
from pais_bench.study.run import CutMix
from pais_bench.training.received import Received, count_pixels, with_masks
from pais_bench.types import Size, Targets, View

LEAST_RATIO = 0.3
"""Least height of a rectangle over its width, and least width over its height [DEARLi's code, as UniMatch's]."""


def cut(view: View, other: View, own: Targets, theirs: Targets, mix: CutMix, rng: np.random.Generator) -> Received:
    """Replace a rectangle of a view by the one at the same relative place of the other."""
    (height, width), (top, left), (from_top, from_left) = _draw_rectangle(view.size, other.size, mix.area, rng)
    rows, columns = slice(top, top + height), slice(left, left + width)
    from_rows, from_columns = slice(from_top, from_top + height), slice(from_left, from_left + width)
    image = view.image.clone()
    image[:, rows, columns] = other.image[:, from_rows, from_columns]
    source = theirs.instances.masks
    masks = source.new_zeros((len(source), *view.size))
    masks[:, rows, columns] = source[:, from_rows, from_columns]
    cover = source.new_zeros(view.size)
    cover[rows, columns] = True
    matrix = geometry.shift(left - from_left, top - from_top)
    boxes = geometry.warp_boxes(theirs.instances.boxes, matrix, view.size)
    maps = theirs.pixel_weight
    moved = replace(
        theirs,
        instances=with_masks(replace(theirs.instances, boxes=boxes), masks, count_pixels(source)),
        pixel_weight=None if maps is None else replace(maps, matrix=matrix @ maps.matrix),
    )
    background = own.background
    if callable(background) and callable(theirs.background):
        inside = geometry.project_background(theirs.background, matrix, other.size)
        background = _blend(background, inside, (left, top, left + width, top + height))
    return Received(image, cover, moved, cover[None], background)


def _draw_rectangle(
    size: Size, other: Size, area: tuple[float, float], rng: np.random.Generator
) -> tuple[Size, tuple[int, int], tuple[int, int]]:
    """Return (height, width) of a rectangle in pixels, and its (top, left) in views of size (H, W) and of another."""
    height, width = min(size[0], other[0]), min(size[1], other[1])
    pixels, ratio = rng.uniform(*area) * height * width, rng.uniform(LEAST_RATIO, 1 / LEAST_RATIO)
    sides = (
        min(max(round(math.sqrt(pixels * ratio)), 1), height),
        min(max(round(math.sqrt(pixels / ratio)), 1), width),
    )
    down, across = rng.random(2)
    places = [
        (int(down * (limits[0] - sides[0] + 1)), int(across * (limits[1] - sides[1] + 1))) for limits in (size, other)
    ]
    return sides, places[0], places[1]


def _blend(
    outside: Callable[[Tensor], Tensor], inside: Callable[[Tensor], Tensor], place: tuple[int, int, int, int]
) -> Callable[[Tensor], Tensor]:
    """Return the mean of two background functions of the mixed view, each by its share of the area of a box."""
    return lambda boxes: torch.lerp(outside(boxes), inside(boxes), _share_inside(boxes, place))


def _share_inside(boxes: Tensor, place: tuple[int, int, int, int]) -> Tensor:
    """Return the share f32[n] of the area of boxes f32[n,4] that lies in a rectangle x0 y0 x1 y1."""
    x0, y0, x1, y1 = boxes.unbind(1)
    width = (x1.clamp(max=place[2]) - x0.clamp(min=place[0])).clamp(min=0)
    height = (y1.clamp(max=place[3]) - y0.clamp(min=place[1])).clamp(min=0)
    return width * height / ((x1 - x0) * (y1 - y0)).clamp(min=1e-6)
