"""Compute COCO boundary AP: COCO AP whose IoU also has to hold along the contour.

The boundary of a mask are its pixels within d of its contour; the IoU that matches is the smaller one of mask IoU and
boundary IoU. Source: Cheng et al. (2021), Boundary IoU: improving object-centric image segmentation evaluation, CVPR.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as rle
from pycocotools.cocoeval import COCOeval
from scipy import ndimage

from pais_bench.evaluation.coco.pycocotools import run, stats
from pais_bench.evaluation.metrics.base import MetricBase, Numbers, Record

DILATION_RATIO = 0.02
"""d as a fraction of the image's diagonal; the paper's value for COCO."""

_SQUARE = np.ones((3, 3), dtype=bool)


class Metric(MetricBase):
    """Measure AP and AR of masks that are matched by the boundary too."""

    protocols = {"boundary": "COCO boundary AP"}

    def evaluate(self, ground_truth: Record, records: Sequence[Record]) -> dict[str, Numbers]:
        """Return {"boundary": NAMES} as fractions 0..1, None where undefined."""
        detections = [
            {**record, "id": number, "iscrowd": 0, "area": float(rle.area(record["segmentation"]))}
            for number, record in enumerate(records, start=1)
        ]
        return {"boundary": stats(run(_BoundaryEvaluation, ground_truth, detections, "segm"))}


class _BoundaryEvaluation(COCOeval):  # type: ignore[misc]
    """Match by the smaller of two IoUs; everything else is pycocotools."""

    def computeIoU(self, image: int, category: int) -> Any:  # noqa: N802
        iou = super().computeIoU(image, category)
        if not len(iou):
            return iou
        objects, detections = self._gts[image, category], self._dts[image, category]
        scores = [-detection["score"] for detection in detections]
        order = np.argsort(scores, kind="mergesort")[: self.params.maxDets[-1]]
        boundaries = [boundary(detections[index]["segmentation"]) for index in order]
        gt_boundaries = [boundary(annotation["segmentation"]) for annotation in objects]
        crowd = [int(annotation["iscrowd"]) for annotation in objects]
        return np.minimum(iou, rle.iou(boundaries, gt_boundaries, crowd))


def boundary(mask: Record) -> Record:
    """Return the pixels of an RLE within d = DILATION_RATIO * diagonal, at least 1, of its contour, as an RLE.

    The border of the image is part of the contour.
    """
    height, width = mask["size"]
    distance = max(1, round(DILATION_RATIO * float(np.hypot(height, width))))
    x, y, w, h = (int(value) for value in rle.toBbox(mask))
    pixels = rle.decode(mask)
    crop = pixels[y : y + h, x : x + w]
    # Outside its box a mask is empty, so the border of the box counts as outside.
    crop -= ndimage.binary_erosion(crop, _SQUARE, iterations=distance, border_value=0)
    encoded: Record = rle.encode(np.asfortranarray(pixels))
    return encoded
