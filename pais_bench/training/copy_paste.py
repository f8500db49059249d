"""Paste the instances of another image on top of a strong view: copy-paste [arXiv 2012.07177, as in S4M]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from pais_bench import geometry
from pais_bench.study.run import CopyPaste
from pais_bench.training.received import Received, count_pixels, with_masks
from pais_bench.types import Instances, Size, Targets, View


class Measured(NamedTuple):
    """Hold the index of an instance of a view, the tight box of its mask, and the mask's number of pixels."""

    instance: int
    box: tuple[int, int, int, int]
    pixels: int


def measure(instances: Sequence[Instances], stuff: Sequence[int]) -> list[list[Measured]]:
    """Measure the instances of each view, by falling score; those of the classes of stuff have 0 pixels."""
    if not instances:
        return []
    boxes = torch.cat([geometry.masks_to_boxes(view.masks) for view in instances])
    order = [view.scores.argsort(descending=True, stable=True) for view in instances]
    numbers = [
        torch.stack((count_pixels(view.masks), view.labels, best), 1)
        for view, best in zip(instances, order, strict=True)
    ]
    rows = iter(torch.cat((boxes.long(), torch.cat(numbers)), 1).tolist())
    return [_by_score(list(islice(rows, len(view))), stuff) for view in instances]


def _by_score(rows: Sequence[Sequence[int]], stuff: Sequence[int]) -> list[Measured]:
    """Return the instances of a view in the order that the last column of their rows gives."""
    measured = []
    for index in [row[-1] for row in rows]:
        x0, y0, x1, y1, pixels, label, _ = rows[index]
        measured.append(Measured(index, (x0, y0, x1, y1), 0 if label in stuff else pixels))
    return measured


def paste(
    view: View,
    other: View,
    own: Targets,
    theirs: Targets,
    measured: Sequence[Measured],
    mix: CopyPaste,
    rng: np.random.Generator,
) -> Received:
    """Paste the other view's instances that are large enough on top of a view, the surest on top of the others."""
    instances = theirs.instances
    image, boxes, (height, width) = view.image.clone(), instances.boxes.clone(), view.size
    masks, cover = instances.masks.new_zeros((len(instances), height, width)), instances.masks.new_zeros(view.size)
    pixels = torch.zeros(len(instances), dtype=torch.int64, device=masks.device)
    maps = None if theirs.pixel_weight is None else geometry.upright_maps(theirs.pixel_weight, outside=1.0)
    for index, (x0, y0, x1, y1), area in measured:  # by falling score
        if area < mix.min_pixels:
            continue
        colours, mask = other.image[:, y0:y1, x0:x1], instances.masks[index, y0:y1, x0:x1]
        (top, left), size = _draw_place((x0, y0, x1, y1), view.size, other.size, mix.scale, rng)
        if size != (y1 - y0, x1 - x0):
            colours, mask = _resize(colours, size), _resize(mask[None].float(), size)[0] > 0.5
        rows, from_rows = _overlap(top, size[0], height)
        columns, from_columns = _overlap(left, size[1], width)
        visible = mask[from_rows, from_columns] & ~cover[rows, columns]
        below = image[:, rows, columns]
        image[:, rows, columns] = torch.where(visible, colours[:, from_rows, from_columns], below)
        masks[index, rows, columns] = visible
        cover[rows, columns] |= visible
        pixels[index] = mask.sum()
        resize = geometry.scale(size[1] / (x1 - x0), size[0] / (y1 - y0))
        matrix = geometry.shift(left, top) @ resize @ geometry.shift(-x0, -y0)
        boxes[index] = geometry.warp_boxes(instances.boxes[index, None], matrix, view.size)[0]
        if maps is not None:
            maps.boxes[index] = geometry.move_boxes(maps.boxes[index, None], matrix)[0]
    pasted = with_masks(replace(instances, boxes=boxes), masks, pixels)
    return Received(image, cover, replace(theirs, instances=pasted, pixel_weight=maps), masks, own.background)


def _draw_place(
    box: tuple[int, int, int, int],
    size: Size,
    other: Size,
    scale: tuple[float, float] | None,
    rng: np.random.Generator,
) -> tuple[tuple[int, int], Size]:
    """Return (top, left), in a view of size (H, W), and the new (height, width) of a box of another view.

    Without scale the box stays where it is, measured from the centres of both views. Else it comes to lie inside of the
    view, or to fill it.
    """
    x0, y0, x1, y1 = box
    if scale is None:
        return (y0 + (size[0] - other[0]) // 2, x0 + (size[1] - other[1]) // 2), (y1 - y0, x1 - x0)
    factor = rng.uniform(*scale)
    height, width = max(round(factor * (y1 - y0)), 1), max(round(factor * (x1 - x0)), 1)
    spare = size[0] - height, size[1] - width
    top, left = (int(rng.integers(min(side, 0), max(side, 0) + 1)) for side in spare)
    return (top, left), (height, width)


def _resize(values: Tensor, size: Size) -> Tensor:
    """Resize f32[C,h,w] bilinearly."""
    return F.interpolate(values[None], size, mode="bilinear", align_corners=False)[0]


def _overlap(start: int, length: int, limit: int) -> tuple[slice, slice]:
    """Return what of a side that begins at start lies in 0..limit: as a slice of 0..limit, and of the side itself."""
    first = max(start, 0)
    end = max(min(start + length, limit), first)
    return slice(first, end), slice(first - start, end - start)
