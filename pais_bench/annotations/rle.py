"""Convert COCO segmentations to arrays and back. Imports no torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as rle


def decode_mask(segmentation: object, size: tuple[int, int]) -> np.ndarray:
    """Decode COCO polygons, or compressed or uncompressed RLE, as bool[H,W]; size is (H, W)."""
    if isinstance(segmentation, list):
        compressed = rle.merge(rle.frPyObjects(segmentation, *size))
    elif isinstance(segmentation, dict) and isinstance(segmentation["counts"], list):
        compressed = rle.frPyObjects(segmentation, *size)
    else:
        compressed = segmentation
    return np.asarray(rle.decode(compressed), dtype=bool)


def describe_mask(mask: np.ndarray) -> dict[str, Any]:
    """Return segmentation (compressed RLE with counts as text), bbox x y w h px and area px of a mask bool[H,W]."""
    compressed = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    segmentation = {"size": [int(side) for side in compressed["size"]], "counts": compressed["counts"].decode("ascii")}
    return {
        "segmentation": segmentation,
        "bbox": rle.toBbox(compressed).tolist(),
        "area": float(rle.area(compressed)),
    }
