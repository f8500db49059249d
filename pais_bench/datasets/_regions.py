"""Encode the regions of equal value of an array as COCO masks, without a mask per region in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as rle


def encode_regions(values: npt.NDArray[np.int32]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield every value above 0 of i32[H,W], ascending, with segmentation, area and bbox of its pixels."""
    pixels = values.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(np.diff(pixels)) + 1])
    ends, run_values = np.append(starts[1:], pixels.size), pixels[starts]
    for value in np.unique(run_values[run_values > 0]).tolist():
        runs = run_values == value
        bounds = np.stack([starts[runs], ends[runs]], axis=1).ravel()
        yield value, _encode(bounds, values.shape)


def _encode(bounds: npt.NDArray[np.int64], size: Sequence[int]) -> dict[str, Any]:
    """Return segmentation, area and bbox of a mask from the starts and ends of its runs down the columns."""
    pixels = size[0] * size[1]
    counts = np.diff(np.concatenate([[0], bounds, [pixels] if bounds[-1] < pixels else []]).astype(int)).tolist()
    compressed = rle.frPyObjects({"size": list(size), "counts": counts}, *size)
    return {
        "segmentation": {"size": list(size), "counts": compressed["counts"].decode("ascii")},
        "area": int(rle.area(compressed)),
        "bbox": [int(side) for side in rle.toBbox(compressed)],
    }
