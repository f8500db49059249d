"""Bring detections of a test view to the pixels of its image, as COCO RLE.

Masks are resized one by one, and each only where it is, so that a large photo with many objects needs little memory.
A pixel of the image takes the mask's value at its centre, bilinearly, with zeros around the view, and belongs to the
object where that exceeds a half: what geometry.warp_masks computes, here in whole numbers, so that a value of exactly a
half is one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from pycocotools import mask as rle
from torch import Tensor

from pais_bench import geometry
from pais_bench.types import Instances, Size, View

Bools = npt.NDArray[np.bool_]


class Original(NamedTuple):
    """Hold what remains of a view's detections in the pixels of the image.

    kept: their indices among the view's, ascending | boxes f32[K,4] px | masks: compressed RLE with counts as text.
    """

    kept: list[int]
    boxes: Tensor
    masks: list[dict[str, Any]]


def to_original(detections: Instances, view: View, size: Size) -> Original:
    """Return the detections of a view, which shows a whole image of size (H, W) upright, on the CPU.

    One whose mask has no pixel there, or whose box has no extent, is left out.
    """
    masks = detections.masks.cpu().numpy()  # all in one copy
    boxes = geometry.warp_boxes(detections.boxes.cpu(), torch.linalg.inv(view.matrix), size)
    extended = geometry.have_extent(boxes).nonzero()[:, 0].tolist()
    ends = {k: resize_to_ends(masks[k], size) for k in extended}
    kept = [k for k in ends if len(ends[k])]
    return Original(kept, boxes[kept], encode_ends([ends[k] for k in kept], size))


def to_records(
    detections: Instances, view: View, size: Size, categories: Sequence[int]
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the index of each detection that to_original keeps, and its COCO result without an image.

    category_id, of categories by label | bbox: x y width height in px | score | segmentation: compressed RLE.
    """
    original = to_original(detections, view, size)
    labels, scores = detections.labels.tolist(), detections.scores.tolist()
    for index, (x0, y0, x1, y1), mask in zip(original.kept, original.boxes.tolist(), original.masks, strict=True):
        bbox = [x0, y0, x1 - x0, y1 - y0]
        record = {"category_id": categories[labels[index]], "bbox": bbox, "score": scores[index], "segmentation": mask}
        yield index, record


def resize_to_ends(mask: Bools, size: Size) -> npt.NDArray[np.int64]:
    """Resize a mask bool[h,w] to size (H, W); return the ends i64[R] of its runs, counted down the columns.

    Runs are of background and object in turn, the first of background, and maybe empty; the last ends at H·W. Nothing
    is returned where no pixel is left.
    """
    (height, width), mask_size = size, mask.shape
    top, bottom = _filled_range(np.asarray(mask.any(1)))
    left, right = _filled_range(np.asarray(mask[top:bottom].any(0)))
    y0, y1 = _reached_range(top, bottom, mask_size[0], height)
    x0, x1 = _reached_range(left, right, mask_size[1], width)
    if y0 >= y1 or x0 >= x1:
        return np.zeros(0, dtype=np.int64)
    columns = np.pad(mask[top:bottom, left:right].T, 1).astype(np.int32)
    first, share = _neighbours(np.arange(x0, x1), mask_size[1], width)
    columns = _blend(columns, first - left + 1, share[:, None], 2 * width, 0)
    first, share = _neighbours(np.arange(y0, y1), mask_size[0], height)
    values = _blend(columns, first - top + 1, share, 2 * height, 1)
    inside = np.zeros((x1 - x0, height), dtype=bool)
    inside[:, y0:y1] = values > 2 * width * height  # half of 4·width·height: 31 bits for 500 MP
    return _run_ends(inside.reshape(-1), x0 * height, width * height)


def encode_ends(ends: Sequence[npt.NDArray[np.int64]], size: Size) -> list[dict[str, Any]]:
    """Encode masks of size (H, W), given by the ends of their runs, as compressed RLE with counts as text."""
    counts = [{"size": size, "counts": np.diff(one, prepend=0).tolist()} for one in ends]
    encoded = rle.frPyObjects(counts, *size) if counts else []
    return [{"size": list(size), "counts": one["counts"].decode("ascii")} for one in encoded]


def _filled_range(filled: Bools) -> tuple[int, int]:
    """Return the first index at which bool[n] is true, and one more than the last; (0, 0) where there is none."""
    indices = np.flatnonzero(filled)
    return (int(indices[0]), int(indices[-1]) + 1) if len(indices) else (0, 0)


def _reached_range(low: int, high: int, pixels: int, new_pixels: int) -> tuple[int, int]:
    """Return the range of the new pixels whose centres lie on pixels low..high of the old: no other exceeds a half."""
    return -((pixels - 2 * low * new_pixels) // (2 * pixels)), (2 * high * new_pixels - pixels) // (2 * pixels) + 1


def _neighbours(
    positions: npt.NDArray[np.int64], pixels: int, new_pixels: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Return the last old pixel whose centre is not behind that of a new one, and the share of the next, of 2·new."""
    first, share = np.divmod((2 * positions + 1) * pixels - new_pixels, 2 * new_pixels)
    return first, share.astype(np.int32)


def _blend(
    values: npt.NDArray[np.int32], first: npt.NDArray[np.int64], share: npt.NDArray[np.int32], whole: int, axis: int
) -> npt.NDArray[np.int32]:
    """Return (whole - share) times the values at first plus share times the next ones, along an axis."""
    blended = values.take(first, axis) * (np.int32(whole) - share)
    blended += values.take(first + 1, axis) * share
    return blended


def _run_ends(inside: Bools, start: int, total: int) -> npt.NDArray[np.int64]:
    """Return the ends of the runs of `total` pixels, of which those from start on are `inside`, the others empty."""
    bounded = np.concatenate(([False], inside, [False]))
    ends = np.flatnonzero(bounded[1:] != bounded[:-1]) + start
    return np.append(ends, total) if len(ends) and ends[-1] < total else ends
