"""Turn masks into COCO polygons with as few points as keep the mask, for annotation tools.

A polygon runs along the edges of pixels: OpenCV's contours run through their centres, so the mask is doubled before and
the contour halved after. Rasterised by the COCO API, the polygons of all edges are the mask again.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from pycocotools import mask as rle

Mask = npt.NDArray[np.bool_]
Points = npt.NDArray[np.int32]

TOLERANCES = (1.5, 1.0, 0.5)
"""Pixels by which a polygon may leave the edges of its mask, the fewest points first."""
MIN_IOU = 0.97
"""Least IoU of the rasterised polygons with their mask; where no tolerance gives it, they follow every edge."""


def to_polygons(mask: Mask) -> tuple[list[list[float]], bool]:
    """Return the polygons x y x y ... of a mask bool[H,W], in continuous pixels, and whether they fill a hole.

    A polygon outlines a part of the mask, and has no hole: COCO's format knows none. Holes are filled.
    """
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return [], False
    top, left = int(rows[0]), int(columns[0])
    part = mask[top : rows[-1] + 1, left : columns[-1] + 1]
    exact = _outlines(part)
    size = part.shape
    outlined = _rasterise(exact, size)
    filled = int(rle.area(outlined)) > int(part.sum())
    outlines = exact
    for tolerance in TOLERANCES:
        simpler = [_simplify(points, tolerance) for points in exact]
        if rle.iou([_rasterise(simpler, size)], [outlined], [0])[0, 0] >= MIN_IOU:
            outlines = simpler
            break
    return [_flatten(points + np.array([left, top], np.int32)) for points in outlines], filled


def _outlines(mask: Mask) -> list[Points]:
    """Return the corners i32[n,2] of the outer edges of each part of a mask, in whole pixels."""
    doubled = np.repeat(np.repeat(mask.astype(np.uint8), 2, 0), 2, 1)
    contours, _ = cv2.findContours(doubled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return [_corners((contour[:, 0].astype(np.int32) + 1) // 2) for contour in contours]


def _corners(points: Points) -> Points:
    """Leave out the points of a closed outline at which it does not turn."""
    points = points[(points != np.roll(points, 1, 0)).any(1)]
    before, after = points - np.roll(points, 1, 0), np.roll(points, -1, 0) - points
    corners: Points = points[before[:, 0] * after[:, 1] != before[:, 1] * after[:, 0]]
    return corners


def _simplify(points: Points, tolerance: float) -> Points:
    simpler: Points = np.asarray(cv2.approxPolyDP(points[:, None], tolerance, True)[:, 0], np.int32)
    return simpler if len(simpler) >= 3 else points


def _rasterise(outlines: list[Points], size: tuple[int, ...]) -> dict[str, object]:
    """Return the RLE of outlines as the COCO API rasterises them."""
    rasterised: dict[str, object] = rle.merge(rle.frPyObjects([_flatten(points) for points in outlines], *size))
    return rasterised


def _flatten(points: Points) -> list[float]:
    return [float(value) for value in points.reshape(-1).tolist()]
