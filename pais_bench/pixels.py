"""How do COCO's segmentations become pixels, and pixels COCO's records? Arrays; imports no torch."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as rle


def decode(segmentation: object, size: tuple[int, int]) -> np.ndarray:
    """Decode COCO polygons, or compressed or uncompressed RLE, as bool[H,W]."""
    if isinstance(segmentation, list):
        packed = rle.merge(rle.frPyObjects(segmentation, *size))
    elif isinstance(segmentation, dict) and isinstance(segmentation["counts"], list):
        packed = rle.frPyObjects(segmentation, *size)
    else:
        packed = segmentation
    return np.asarray(rle.decode(packed), dtype=bool)


def shape(mask: np.ndarray) -> dict[str, Any]:
    """Give segmentation (compressed RLE with counts as text), bbox x y w h and area of a mask bool[H,W]."""
    packed = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = {"size": [int(side) for side in packed["size"]], "counts": packed["counts"].decode("ascii")}
    return {"segmentation": text, "bbox": rle.toBbox(packed).tolist(), "area": float(rle.area(packed))}
