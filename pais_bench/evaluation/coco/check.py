"""Check COCO result records before pycocotools reads them: a broken RLE makes it read beyond its memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from pais_bench.annotations.rle_columns import CHUNK_SIZE, InvalidRecords, counts_cover
from pais_bench.annotations.validate import abbreviate, find_faults
from pais_bench.errors import BenchError

Record = dict[str, Any]


def check_records(ground_truth: Record, records: Sequence[Record]) -> None:
    """Raise BenchError with the list index of the first record that is wrong or does not fit the ground truth."""
    sizes = {image["id"]: [image["height"], image["width"]] for image in ground_truth["images"]}
    categories = {category["id"] for category in ground_truth["categories"]}
    for index, record in enumerate(records):
        if fault := _fault(record, sizes, categories):
            remedy = "predict on the images of the ground truth"
            raise BenchError(f"prediction record {index}: {fault}; {remedy}")
    for index, _ in find_faults(records, _require_whole_masks):
        counts = abbreviate(records[index]["segmentation"]["counts"])
        fault = f"RLE counts {counts} do not sum to height x width"
        raise BenchError(f"prediction record {index}: {fault}; encode the mask again")


def _require_whole_masks(records: Sequence[Record]) -> None:
    """Raise InvalidRecords if the counts of any compressed RLE do not sum to height x width."""
    masks = [record["segmentation"] for record in records]
    counts = [
        mask["counts"].decode("latin-1") if isinstance(mask["counts"], bytes) else mask["counts"] for mask in masks
    ]
    pixels = np.array([mask["size"][0] * mask["size"][1] for mask in masks], dtype=np.int64)
    for start in range(0, len(counts), CHUNK_SIZE):
        chunk = slice(start, start + CHUNK_SIZE)
        if not all(counts[chunk]) or not counts_cover(counts[chunk], pixels[chunk]):
            raise InvalidRecords("counts")


def _fault(record: Record, sizes: dict[int, list[int]], categories: set[int]) -> str | None:
    if missing := {"image_id", "category_id", "segmentation", "score"} - record.keys():
        return f"missing key '{min(missing)}'"
    mask, image = record["segmentation"], record["image_id"]
    if not isinstance(image, int) or image not in sizes:
        return f"the ground truth has no image_id {image}"
    if not isinstance(record["category_id"], int) or record["category_id"] not in categories:
        return f"the ground truth has no category_id {record['category_id']} (image_id {image})"
    if not isinstance(mask, dict) or not isinstance(mask.get("counts"), str | bytes):
        return f"its segmentation is not a compressed RLE (image_id {image})"
    size, score = mask.get("size"), record["score"]
    if not isinstance(size, list | tuple) or list(size) != sizes[image]:
        return f"its mask is {size} [height, width], image_id {image} is {sizes[image]}"
    if "bbox" in record and not _is_box(record["bbox"]):
        return f"its bbox is {abbreviate(record['bbox'])} (image_id {image})"
    if isinstance(score, bool) or not isinstance(score, int | float) or not math.isfinite(score):
        return f"its score is {score} (image_id {image})"
    return None


def _is_box(box: Any) -> bool:
    """Return whether a value is x, y, width, height, all finite."""
    numbers = isinstance(box, list | tuple) and all(isinstance(side, int | float) for side in box)
    return numbers and len(box) == 4 and all(map(math.isfinite, box))
