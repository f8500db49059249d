"""What is the COCO AP of these predictions? pycocotools answers, and for curves a faster one; imports no torch."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as rle
from pycocotools.cocoeval import COCOeval

from pais_bench.masks import AT_ONCE, Wrong, cover
from pais_bench.metrics._bootstrap import bootstrap_ap
from pais_bench.metrics._curves import numbers
from pais_bench.metrics._matching import Matches, match
from pais_bench.metrics._pycocotools import NAMES, defined, run, stats
from pais_bench.metrics._truth import Truth
from pais_bench.records import culprits, short
from pais_bench.types import BenchError

__all__ = ["NAMES", "Matches", "Truth", "bootstrap_ap", "check", "evaluate", "evaluate_fast", "match", "numbers"]

PROTOCOLS = {"segm": "COCO mask AP", "bbox": "COCO box AP"}
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
    check(content, records)
    chosen = sorted({image["id"] for image in content["images"]} if image_ids is None else set(image_ids))
    _check_ids(content, chosen)
    segm = run(COCOeval, content, _masks(records), "segm", chosen)
    bbox = run(COCOeval, content, _boxes(records), "bbox", chosen)
    return {"segm": stats(segm), "bbox": stats(bbox), "per_class": _per_class(segm, content)}


def evaluate_fast(truth: Truth, records: Sequence[Record]) -> dict[str, Numbers]:
    """Give what evaluate gives under "segm" and "bbox" for the images of a truth, many times as fast, for curves.

    Neither argument is checked: the records are of a network of ours on images of truth.
    """
    return {kind: numbers(match(truth, records, kind=kind)) for kind in ("segm", "bbox")}


def _read(path: Path) -> Record:
    try:
        content: Record = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise BenchError(f"{path}: no such annotation file; prepare the dataset first") from error
    except ValueError as error:
        raise BenchError(f"{path}: not valid JSON ({error}); prepare the dataset again") from error
    return content


def check(truth: Record, records: Sequence[Record]) -> None:
    """Find what pycocotools would answer with a bare assertion, by reading where it may not, or not at all.

    Raises BenchError that gives the place of the first wrong record in the list.
    """
    sizes = {image["id"]: [image["height"], image["width"]] for image in truth["images"]}
    categories = {category["id"] for category in truth["categories"]}
    for number, record in enumerate(records):
        if fault := _fault(record, sizes, categories):
            raise BenchError(f"prediction record {number}: {fault}; predict on the images that the truth describes")
    for number, kind in culprits(records, _require_masks):
        mask = short(records[number]["segmentation"]["counts"])
        raise BenchError(f"prediction record {number}: its {kind} {mask} are not those of its size; encode it again")


def _require_masks(records: Sequence[Record]) -> None:
    """Raise Wrong if the counts of any compressed RLE are not those of so many pixels."""
    masks = [record["segmentation"] for record in records]
    texts = [one["counts"].decode("latin-1") if isinstance(one["counts"], bytes) else one["counts"] for one in masks]
    pixels = np.array([one["size"][0] * one["size"][1] for one in masks], dtype=np.int64)
    for start in range(0, len(texts), AT_ONCE):
        some = slice(start, start + AT_ONCE)
        if not all(texts[some]) or not cover(texts[some], pixels[some]):
            raise Wrong("counts")


def _fault(record: Record, sizes: dict[int, list[int]], categories: set[int]) -> str | None:
    if missing := {"image_id", "category_id", "segmentation", "score"} - record.keys():
        return f"missing key '{min(missing)}'"
    mask, image = record["segmentation"], record["image_id"]
    if not isinstance(image, int) or image not in sizes:
        return f"the truth has no image_id {image}"
    if not isinstance(record["category_id"], int) or record["category_id"] not in categories:
        return f"the truth has no category_id {record['category_id']} (image_id {image})"
    if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str | bytes):
        return f"its segmentation is not a compressed RLE (image_id {image})"
    size, score = mask.get("size"), record["score"]
    if not isinstance(size, list | tuple) or list(size) != sizes[image]:
        return f"its mask is {size} [height, width], image_id {image} is {sizes[image]}"
    if "bbox" in record and not _is_box(record["bbox"]):
        return f"its bbox is {short(record['bbox'])} (image_id {image})"
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        return f"its score is {score} (image_id {image})"
    return None


def _is_box(box: Any) -> bool:
    """Tell whether it is x, y, width, height, all finite."""
    numbers = isinstance(box, list | tuple) and all(isinstance(side, int | float) for side in box)
    return numbers and len(box) == 4 and all(map(math.isfinite, box))


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


def _per_class(evaluation: COCOeval, truth: Record) -> Numbers:
    """Average precision[IoU, recall, class, area = all, detections = 100] over IoU and recall, class by class."""
    names = {category["id"]: category["name"] for category in truth["categories"]}
    precision = evaluation.eval["precision"][:, :, :, 0, -1]
    return {
        names[category]: defined(float(np.mean(precision[:, :, index])))
        for index, category in enumerate(evaluation.params.catIds)
    }
