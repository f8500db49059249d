"""Compare box, area and mask of every annotation, to find those that contradict themselves.

A few in a hundred are warned of. More are a mistake of the whole file, such as boxes of corners, and stop the
preparation: each record is valid, but what is computed from it would be wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pycocotools import mask as rle

from pais_bench.annotations.rle import compress
from pais_bench.annotations.rle_columns import POLYGONS, IntArray

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

CHUNK_SIZE = 20_000
"""Annotations whose polygons are in memory at a time."""
SHARE, COUNT = 0.05, 3
"""More than this share of a file's annotations, and at least so many, are a mistake of the whole file."""
SLACK = 3.0
"""Pixels that a box may differ from that of its mask, however small both are."""


class Contradiction(NamedTuple):
    """Hold what annotations look like, the remedy, and the keys that --repair takes from the mask."""

    looks: str
    remedy: str
    measured: tuple[str, ...] = ()


_BOX = (
    "write bbox as x, y, width, height in pixels, or leave it out: it is taken from the mask, as by `prepare --repair`"
)
CONTRADICTIONS = {
    "normalised polygons": Contradiction(
        "polygons look normalised to 0..1", "multiply x by the width and y by the height of the image"
    ),
    "swapped polygons": Contradiction("polygons look like y, x pairs", "write x, y"),
    "corners": Contradiction("boxes look like x1 y1 x2 y2", _BOX, ("bbox",)),
    "centres": Contradiction("boxes look like x and y of the centre, width, height", _BOX, ("bbox",)),
    "normalised boxes": Contradiction("boxes look normalised to 0..1", _BOX, ("bbox",)),
    "outside": Contradiction(
        "masks leave their images, as if drawn on images of another size", "annotate the images at their own size"
    ),
    "box": Contradiction("boxes are not those of the masks", _BOX, ("bbox",)),
    "no pixel": Contradiction("masks cover no pixel", "draw them again, or remove them"),
    "area": Contradiction(
        "areas are not those of the masks",
        "write area in pixels, or leave it out: it is taken from the mask, as by `prepare --repair`",
        ("area",),
    ),
}
"""What an annotation can look like. Of the entries about mask and box, the first that fits is reported."""


class Extents(NamedTuple):
    """Hold the corners f64[n,4] of every mask, x0 y0 x1 y1 px, and its area f64[n] px; polygons count as drawn."""

    corners: Floats
    area: Floats


def find_contradictions(records: Sequence[Any], height: IntArray, width: IntArray) -> dict[str, list[int]]:
    """Return the positions of contradictory annotations by key of CONTRADICTIONS; height, width i64[n]: their images'.

    The records are valid. A crowd region is compared like any other. The area is compared also where the box is wrong.
    """
    if not records:
        return {}
    with np.errstate(over="ignore", invalid="ignore"):  # a box may be 1e308 px wide
        return _find_contradictions(records, height, width)


def _find_contradictions(records: Sequence[Any], height: IntArray, width: IntArray) -> dict[str, list[int]]:
    mask = _extents(records, height, width)
    bbox = np.array([record["bbox"] for record in records], dtype=np.float64)
    annotated = np.array([record["area"] for record in records], dtype=np.float64)
    box = np.concatenate([bbox[:, :2], bbox[:, :2] + bbox[:, 2:]], axis=1)
    image = np.stack([width, height], axis=1).astype(np.float64)
    unlike = (_iou(box, mask.corners) < 0.5) & (np.abs(box - mask.corners).max(axis=1) > SLACK)
    large = (image > 4).all(axis=1)
    half = bbox[:, 2:] / 2
    swapped = mask.corners[:, [1, 0, 3, 2]]
    leaves = _leaves(mask.corners, image)
    flags = {
        "normalised polygons": large & (mask.corners >= 0).all(axis=1) & (mask.corners <= 1).all(axis=1),
        "swapped polygons": (unlike & (_iou(box, swapped) > 0.8)) | (leaves & ~_leaves(swapped, image)),
        "corners": unlike & (_iou(bbox, mask.corners) > 0.8),
        "centres": unlike
        & (_iou(np.concatenate([bbox[:, :2] - half, bbox[:, :2] + half], axis=1), mask.corners) > 0.8),
        "normalised boxes": unlike & (bbox <= 1).all(axis=1) & (bbox[:, 2:] > 0).all(axis=1),
        "outside": leaves,
        "box": unlike,
    }
    found: dict[str, list[int]] = {}
    rest = np.ones(len(records), dtype=bool)
    for name, flag in flags.items():
        found[name] = np.flatnonzero(flag & rest).tolist()
        rest &= ~flag
    comparable = ~(flags["normalised polygons"] | flags["swapped polygons"] | leaves)
    extent = (mask.corners[:, 2:] - mask.corners[:, :2]).prod(axis=1)
    box_area = np.where(unlike, extent, bbox[:, 2:].prod(axis=1))  # a wrong box explains no area
    found["no pixel"], found["area"] = _compare_areas(records, comparable, mask, annotated, box_area, image)
    return {name: positions for name, positions in found.items() if positions}


def _compare_areas(
    records: Sequence[Any], comparable: Bools, mask: Extents, annotated: Floats, box_area: Floats, image: Floats
) -> tuple[list[int], list[int]]:
    """Return the positions of masks without a pixel, and of areas that neither mask nor box explains.

    Only suspicious masks are rasterised. An area may also be that of the box, as Roboflow exports it.
    """
    sides = mask.corners[:, 2:] - mask.corners[:, :2]
    beyond = (mask.corners[:, :2] >= image).any(axis=1) | (mask.corners[:, 2:] <= 0).any(axis=1)
    thin = beyond | (mask.area <= sides.max(axis=1) + 1)
    low, high = _limits(mask.area, box_area)
    suspicious = (annotated < low) | (annotated > high)
    empty, wrong = [], []
    for position in np.flatnonzero(comparable & (thin | suspicious)).tolist():
        width, height = image[position].astype(int).tolist()
        pixels = float(rle.area(compress(records[position]["segmentation"], (height, width))))
        low, high = _limits(pixels, float(box_area[position]))
        if not pixels:
            empty.append(position)
        elif not low <= annotated[position] <= high:
            wrong.append(position)
    return empty, wrong


def _limits(area: Any, box_area: Any) -> tuple[Any, Any]:
    """Return the smallest and the largest area that a mask of so many pixels may be annotated with."""
    return area / 2 - SLACK**2, 2 * np.maximum(area, box_area) + SLACK**2


def _extents(records: Sequence[Any], height: IntArray, width: IntArray) -> Extents:
    corners, area = np.zeros((len(records), 4)), np.zeros(len(records))
    for start in range(0, len(records), CHUNK_SIZE):
        masks = [record["segmentation"] for record in records[start : start + CHUNK_SIZE]]
        polygons = [row for row, mask in enumerate(masks) if isinstance(mask, list)]
        if polygons:
            rows = np.array(polygons) + start
            corners[rows], area[rows] = _polygon_extents([masks[row] for row in polygons])
        for row in set(range(len(masks))) - set(polygons):
            encoded = compress(masks[row], (int(height[start + row]), int(width[start + row])))
            x, y, w, h = rle.toBbox(encoded).tolist()
            corners[start + row], area[start + row] = (x, y, x + w, y + h), float(rle.area(encoded))
    return Extents(corners, area)


def _polygon_extents(masks: Sequence[Any]) -> Extents:
    """Return the extents of polygons; the areas of an annotation's polygons are added."""
    column = pa.array(masks, POLYGONS)
    first, ends = column.offsets.to_numpy()[:-1], column.values.offsets.to_numpy() // 2
    points = column.values.values.to_numpy().reshape(-1, 2)
    x, y = points[:, 0], points[:, 1]
    following = np.arange(1, len(x) + 1)
    following[ends[1:] - 1] = ends[:-1]
    doubled = np.add.reduceat(x * y[following] - x[following] * y, ends[:-1])
    starts = ends[first]
    low, high = np.minimum.reduceat(points, starts), np.maximum.reduceat(points, starts)
    return Extents(np.concatenate([low, high], axis=1), np.add.reduceat(np.abs(doubled) / 2, first))


def _leaves(corners: Floats, image: Floats) -> Bools:
    """Return whether corners are beyond an image (width, height) by more than a twentieth of its side."""
    slack = np.maximum(SLACK, image / 20)
    beyond = (corners[:, :2] < -slack) | (corners[:, 2:] > image + slack)
    return np.asarray(beyond.any(axis=1))


def _iou(first: Floats, second: Floats) -> Floats:
    """Return the IoU of pairs of boxes f64[n,4], x0 y0 x1 y1; 0 where one has no extent or its corners are swapped."""
    near, far = np.maximum(first[:, :2], second[:, :2]), np.minimum(first[:, 2:], second[:, 2:])
    overlap = np.maximum(far - near, 0).prod(axis=1)
    sizes = [np.maximum(box[:, 2:] - box[:, :2], 0).prod(axis=1) for box in (first, second)]
    union = sizes[0] + sizes[1] - overlap
    iou: Floats = np.divide(overlap, union, out=np.zeros_like(overlap), where=(overlap > 0) & (union > 0))
    return iou
