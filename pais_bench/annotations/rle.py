"""Convert COCO segmentations to arrays and back. Imports no torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as rle


def decode_mask(segmentation: object, size: tuple[int, int]) -> np.ndarray:
    """Decode COCO polygons, or compressed or uncompressed RLE, as bool[H,W]; size is (H, W)."""
    return np.asarray(rle.decode(compress(segmentation, size)), dtype=bool)


def compress(segmentation: Any, size: tuple[int, int]) -> Any:
    """Return COCO polygons, or any RLE, as compressed RLE, whose counts are text or bytes; size is (H, W)."""
    if isinstance(segmentation, list):
        return rle.merge(rle.frPyObjects(segmentation, *size))
    return rle.frPyObjects(segmentation, *size) if isinstance(segmentation["counts"], list) else segmentation


def describe_mask(mask: np.ndarray) -> dict[str, Any]:
    """Return segmentation (compressed RLE with counts as text), bbox x y w h px and area px of a mask bool[H,W]."""
    compressed = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    segmentation = {"size": [int(side) for side in compressed["size"]], "counts": compressed["counts"].decode("ascii")}
    return {
        "segmentation": segmentation,
        "bbox": rle.toBbox(compressed).tolist(),
        "area": float(rle.area(compressed)),
    }
