"""Compute COCO mask AP and box AP with pycocotools."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools.cocoeval import COCOeval

from pais_bench.evaluation.coco.check import have_masks
from pais_bench.evaluation.coco.ground_truth import boxes, mask_areas
from pais_bench.evaluation.coco.pycocotools import defined, run, stats
from pais_bench.evaluation.metrics.base import MetricBase, Numbers, Record


class Metric(MetricBase):
    """Measure AP and AR of masks and of boxes; results that are boxes alone have those of boxes."""

    protocols = {"segm": "COCO mask AP", "bbox": "COCO box AP"}
    needs_masks = False

    def evaluate(self, ground_truth: Record, records: Sequence[Record]) -> dict[str, Numbers]:
        """Return {"segm": NAMES, "bbox": NAMES, "per_class": {class name: segm AP}}, 0..1, None where undefined.

        A box is taken from the mask where a record has none. Where no record has a mask, "bbox" is returned alone.
        """
        bbox = run(COCOeval, ground_truth, _box_records(records), "bbox")
        if not have_masks(records):
            return {"bbox": stats(bbox)}
        segm = run(COCOeval, ground_truth, _mask_records(records), "segm")
        return {"segm": stats(segm), "bbox": stats(bbox), "per_class": _per_class(segm, ground_truth)}


def _mask_records(records: Sequence[Record]) -> list[Record]:
    """Set each area to that of the mask: COCO.loadRes would take the box's, and so other small and large objects."""
    masks = [record["segmentation"] for record in records]
    return [
        {**_header(number, record), "segmentation": mask, "area": area}
        for number, (record, mask, area) in enumerate(zip(records, masks, mask_areas(masks).tolist(), strict=True), 1)
    ]


def _box_records(records: Sequence[Record]) -> list[Record]:
    return [
        {**_header(number, record), "bbox": box, "area": box[2] * box[3]}
        for number, (record, box) in enumerate(zip(records, boxes(records).tolist(), strict=True), 1)
    ]


def _header(number: int, record: Record) -> Record:
    return {"id": number, "iscrowd": 0, **{key: record[key] for key in ("image_id", "category_id", "score")}}


def _per_class(evaluation: COCOeval, ground_truth: Record) -> Numbers:
    """Average precision[IoU, recall, class, area = all, detections = 100] over IoU and recall, class by class."""
    names = {category["id"]: category["name"] for category in ground_truth["categories"]}
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return {
        names[category]: defined(float(np.mean(precision[:, :, index])))
        for index, category in enumerate(evaluation.params.catIds)
    }
