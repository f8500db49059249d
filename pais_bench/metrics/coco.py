"""What is the COCO AP of these predictions? pycocotools answers; imports no torch."""

from __future__ import annotations

import contextlib
import io
import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pais_bench.metrics._curves import numbers
from pais_bench.metrics._matching import Matches, match
from pais_bench.types import BenchError

__all__ = ["NAMES", "Matches", "evaluate", "match", "numbers"]

NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""The twelve numbers of COCO, in the order of COCOeval.stats."""

Record = dict[str, Any]
Numbers = dict[str, float | None]


def evaluate(
    truth: Record | Path, records: Sequence[Record], image_ids: Iterable[int] | None = None
) -> dict[str, Numbers]:
    """Give {"segm": NAMES, "bbox": NAMES, "per_class": {class name: segm AP}} as fractions 0..1, None where undefined.

    truth is a COCO annotation file or its content. records are COCO results: image_id, category_id, segmentation (a
    compressed RLE), score, and bbox (x y width height in px; taken from the mask where absent). image_ids restricts the
    evaluation to some images of truth. Neither argument is changed. Raises BenchError for a truth that is not
    readable, and for a record or an image id that truth does not know.
    """
    content = _read(truth) if isinstance(truth, Path) else truth
    _check(content, records)
    chosen = sorted({image["id"] for image in content["images"]} if image_ids is None else set(image_ids))
    _check_ids(content, chosen)
    with contextlib.redirect_stdout(io.StringIO()):
        annotations = [dict(annotation) for annotation in content["annotations"]]
        expected = _index(content, annotations)
        segm = _run(expected, _index(content, _masks(records)), "segm", chosen)
        bbox = _run(expected, _index(content, _boxes(records)), "bbox", chosen)
    return {"segm": _numbers(segm), "bbox": _numbers(bbox), "per_class": _per_class(segm, content)}


def _read(path: Path) -> Record:
    try:
        content: Record = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise BenchError(f"{path}: no such annotation file; prepare the dataset first") from error
    except ValueError as error:
        raise BenchError(f"{path}: not valid JSON ({error}); prepare the dataset again") from error
    return content


def _check(truth: Record, records: Sequence[Record]) -> None:
    """Find what pycocotools would answer with a bare assertion, or not at all."""
    sizes = {image["id"]: [image["height"], image["width"]] for image in truth["images"]}
    categories = {category["id"] for category in truth["categories"]}
    for number, record in enumerate(records):
        if fault := _fault(record, sizes, categories):
            raise BenchError(f"prediction record {number}: {fault}; predict on the images that the truth describes")


def _fault(record: Record, sizes: dict[int, list[int]], categories: set[int]) -> str | None:
    if missing := {"image_id", "category_id", "segmentation", "score"} - record.keys():
        return f"missing key '{min(missing)}'"
    mask, image = record["segmentation"], record["image_id"]
    if image not in sizes:
        return f"the truth has no image_id {image}"
    if record["category_id"] not in categories:
        return f"the truth has no category_id {record['category_id']} (image_id {image})"
    if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str | bytes):
        return f"its segmentation is not a compressed RLE (image_id {image})"
    if list(mask["size"]) != sizes[image]:
        return f"its mask is {mask['size']} [height, width], image_id {image} is {sizes[image]}"
    return None if math.isfinite(record["score"]) else f"its score is {record['score']} (image_id {image})"


def _check_ids(truth: Record, image_ids: Iterable[int]) -> None:
    if unknown := set(image_ids) - {image["id"] for image in truth["images"]}:
        raise BenchError(f"the truth has no image_id {min(unknown)}; restrict the evaluation to images that it has")


def _masks(records: Sequence[Record]) -> list[Record]:
    """Size each prediction by its mask: COCO.loadRes would take the box's area, and so other small and large ones."""
    return [
        {
            **_bare(number, record),
            "segmentation": record["segmentation"],
            "area": float(rle.area(record["segmentation"])),
        }
        for number, record in enumerate(records, start=1)
    ]


def _boxes(records: Sequence[Record]) -> list[Record]:
    boxes = [record["bbox"] if "bbox" in record else rle.toBbox(record["segmentation"]).tolist() for record in records]
    return [
        {**_bare(number, record), "bbox": box, "area": box[2] * box[3]}
        for number, (record, box) in enumerate(zip(records, boxes, strict=True), start=1)
    ]


def _bare(number: int, record: Record) -> Record:
    return {"id": number, "iscrowd": 0, **{key: record[key] for key in ("image_id", "category_id", "score")}}


def _index(truth: Record, annotations: list[Record]) -> COCO:
    """Index by hand: COCO.loadRes fails on an empty list and writes into its argument."""
    coco = COCO()
    coco.dataset = {"images": truth["images"], "categories": truth["categories"], "annotations": annotations}
    coco.createIndex()
    return coco


def _run(truth: COCO, predictions: COCO, kind: str, image_ids: list[int]) -> COCOeval:
    evaluation = COCOeval(truth, predictions, iouType=kind)
    evaluation.params.imgIds = image_ids
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def _numbers(evaluation: COCOeval) -> Numbers:
    return {name: _defined(float(value)) for name, value in zip(NAMES, evaluation.stats, strict=True)}


def _per_class(evaluation: COCOeval, truth: Record) -> Numbers:
    """Average precision[IoU, recall, class, area = all, detections = 100] over IoU and recall, class by class."""
    names = {category["id"]: category["name"] for category in truth["categories"]}
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return {
        names[category]: _defined(float(np.mean(precision[:, :, index])))
        for index, category in enumerate(evaluation.params.catIds)
    }


def _defined(value: float) -> float | None:
    """Turn COCO's -1, an average over nothing, into None."""
    return None if value < 0 else value
