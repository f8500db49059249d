"""What is the boundary AP of these predictions? COCO AP whose IoU also has to hold along the contour; imports no torch.

The boundary of a mask are its pixels within d of its contour; the IoU that matches is the smaller one of mask IoU and
boundary IoU. Source: Cheng et al. (2021), Boundary IoU: improving object-centric image segmentation evaluation, CVPR.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle
from pycocotools.cocoeval import COCOeval
from scipy import ndimage

from pais_bench.metrics._pycocotools import run, stats

PROTOCOLS = {"boundary": "COCO boundary AP"}
DILATION_RATIO = 0.02
"""d as a share of the image's diagonal; the paper's value for COCO."""

Record = dict[str, Any]
_SQUARE = np.ones((3, 3), dtype=bool)


def evaluate(
    truth: Record | Path, records: Sequence[Record], image_ids: Iterable[int] | None = None
) -> dict[str, dict[str, float | None]]:
    """Give {"boundary": NAMES} as fractions 0..1, None where undefined; arguments are those of metrics/coco.py."""
    content = json.loads(truth.read_text()) if isinstance(truth, Path) else truth
    chosen = sorted({image["id"] for image in content["images"]} if image_ids is None else set(image_ids))
    found = [
        {**record, "id": number, "iscrowd": 0, "area": float(rle.area(record["segmentation"]))}
        for number, record in enumerate(records, start=1)
    ]
    return {"boundary": stats(run(_Evaluation, content, found, "segm", chosen))}


class _Evaluation(COCOeval):  # type: ignore[misc]
    """Match by the smaller of two IoUs; everything else is pycocotools."""

    def computeIoU(self, image: int, category: int) -> Any:  # noqa: N802
        iou = super().computeIoU(image, category)
        if not len(iou):
            return iou
        truths, found = self._gts[image, category], self._dts[image, category]
        order = np.argsort([-one["score"] for one in found], kind="mergesort")[: self.params.maxDets[-1]]
        edges = [_edge(found[index]["segmentation"]) for index in order]
        crowd = [int(one["iscrowd"]) for one in truths]
        return np.minimum(iou, rle.iou(edges, [_edge(one["segmentation"]) for one in truths], crowd))


def _edge(mask: Record) -> Record:
    """Give the pixels of an RLE within d = DILATION_RATIO * diagonal, at least 1, of its contour, as an RLE.

    A mask ends at the frame of the image.
    """
    height, width = mask["size"]
    distance = max(1, round(DILATION_RATIO * float(np.hypot(height, width))))
    x, y, w, h = (int(value) for value in rle.toBbox(mask))
    whole = rle.decode(mask)
    part = whole[y : y + h, x : x + w]
    # Outside its box a mask is empty, so the border of the box counts as outside.
    part -= ndimage.binary_erosion(part, _SQUARE, iterations=distance, border_value=0)
    code: Record = rle.encode(np.asfortranarray(whole))
    return code
