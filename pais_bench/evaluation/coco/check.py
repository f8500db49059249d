"""Check COCO result records before pycocotools reads them, and give every mask as a compressed RLE.

A broken RLE makes pycocotools read beyond its memory, and ids or boxes in another convention give an AP near 0.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from pais_bench.annotations.rle import compress
from pais_bench.annotations.rle_columns import check_segmentations
from pais_bench.annotations.validate import abbreviate, find_faults, is_finite
from pais_bench.errors import BenchError

Record = dict[str, Any]

MASK_FAULTS = {
    "no mask": "its segmentation is empty; leave the record out, or give the RLE of a mask",
    "RLE counts": "RLE counts {counts} do not sum to height x width; encode the mask again",
    "polygon": "it has a polygon with fewer than 3 points, or an odd or infinite coordinate; give x0, y0, x1, y1, ... "
    "in pixels",
    "far polygon": "it has a polygon far outside of its image; give x0, y0, x1, y1, ... in pixels of the image file",
}
"""Problem and remedy of a mask, by the faults of rle_columns.check_segmentations."""
CORNERS = 0.5
"""The fraction of boxes that leave their image, from which on they are taken for corners."""
OUTSIDE = 0.05
"""The least part of the image's side by which such a box leaves it; detectors cut boxes at the border."""


def have_masks(records: Sequence[Record]) -> bool:
    """Return whether records are of masks; results of boxes alone have no segmentation in any record."""
    return not records or any(record.get("segmentation") is not None for record in records)


def checked_records(ground_truth: Record, records: Sequence[Record]) -> list[Record]:
    """Return records with integer ids and compressed RLEs; those that have them already are returned themselves.

    A segmentation may be a compressed or uncompressed RLE, or polygons; where no record has one, the records are boxes.
    Raises BenchError with the list index of the first record that is wrong or does not fit the ground truth, and with
    what to do about it.
    """
    check = _Check(ground_truth, records)
    checked: list[Record] = []
    for index, record in enumerate(records):
        if fault := check.fault(record):
            raise BenchError(f"prediction record {index}: {fault}")
        ids = {key: int(record[key]) for key in ("image_id", "category_id") if type(record[key]) is not int}
        checked.append({**record, **ids} if ids else record)
    check.require_no_corners()
    if check.masks:
        check.require_whole_masks()
    return [_compress(record, check.sizes) for record in checked] if check.masks else checked


@dataclass(frozen=True)
class _Check:
    """Describe the faults of records; each description ends with its remedy."""

    ground_truth: Record
    records: Sequence[Record]

    @cached_property
    def sizes(self) -> dict[int, list[int]]:
        """Return [height, width] of every image."""
        return {image["id"]: [image["height"], image["width"]] for image in self.ground_truth["images"]}

    @cached_property
    def categories(self) -> dict[int, str]:
        """Return the name of every category."""
        return {category["id"]: category["name"] for category in self.ground_truth["categories"]}

    @cached_property
    def masks(self) -> bool:
        """Return whether the records are of masks."""
        return have_masks(self.records)

    def fault(self, record: Record) -> str | None:
        """Return the fault of a record; None where it has none."""
        shape = "segmentation" if self.masks else "bbox"
        if missing := {"image_id", "category_id", "score"} - record.keys():
            return f"missing key '{min(missing)}'; a result has image_id, category_id, score, and segmentation or bbox"
        if record.get(shape) is None:
            return (
                "it has no segmentation, which others have; give every record one, or none"
                if self.masks
                else "it has neither segmentation nor bbox; give it one, or leave the record out"
            )
        return (
            self._image_fault(record["image_id"])
            or self._category_fault(record)
            or _score_fault(record)
            or (_box_fault(record) if "bbox" in record else None)
            or (self._mask_fault(record) if self.masks else None)
        )

    def _image_fault(self, image_id: Any) -> str | None:
        if _is_one_of(image_id, self.sizes):
            return None
        problem = f"the ground truth has no image_id {abbreviate(image_id)}"
        if isinstance(image_id, str):
            files = {image["file_name"]: image["id"] for image in self.ground_truth["images"] if "file_name" in image}
            names = {alias: number for name, number in files.items() for alias in _aliases(name)}
            if image_id in names:
                return f"{problem}, which is the name of image {names[image_id]}; write the ids of the images"
            return f"{problem}; write the ids of the images as numbers, without quotes"
        ids = [record.get("image_id") for record in self.records]
        known = sum(isinstance(number, int | float) and number in self.sizes for number in ids)
        count = len(self.sizes)
        if max(self.sizes) > count and all(isinstance(number, int) and 0 <= number <= count for number in ids):
            return f"{problem}, as the records count the images; write the ids of the images"
        if known:
            return f"{problem}, nor those of {len(ids) - known} of {len(ids)} records; predict on its images alone"
        return f"{problem}, nor any other of the records; give the annotation file of the images that were predicted on"

    def _category_fault(self, record: Record) -> str | None:
        category = record["category_id"]
        if _is_one_of(category, self.categories):
            return None
        problem = f"the ground truth has no category_id {abbreviate(category)} (image_id {record['image_id']})"
        known = sorted(self.categories)
        if isinstance(category, str):
            number = next((number for number, name in self.categories.items() if name == category), None)
            remedy = f"write {number}, the id of this class" if number is not None else "write the id of a class"
            return f"{problem}; {remedy}, without quotes"
        ids = {number for record in self.records if isinstance(number := record.get("category_id"), int)}
        listed = ", ".join(map(str, known[:10])) + (", ..." if len(known) > 10 else "")
        gapless = known == list(range(known[0], known[0] + len(known)))
        if 0 in ids and ids <= set(range(len(known))):
            return f"{problem}, as the records count the classes from 0; write {known[0]} for 0, and so on: {listed}"
        if not gapless and 0 not in ids and ids <= set(range(1, len(known) + 1)):
            return f"{problem}, as the records count the classes without gaps; write its ids: {listed}"
        if gapless and ids <= {number + 1 for number in known}:
            return f"{problem}, as the records count the background too; subtract 1 from every category_id"
        return f"{problem}; write one of its ids, which are {listed}"

    def _mask_fault(self, record: Record) -> str | None:
        mask, image = record["segmentation"], record["image_id"]
        if isinstance(mask, dict):
            size, expected = mask.get("size"), self.sizes[image]
            if not isinstance(size, list | tuple) or list(size) != expected:
                swapped = isinstance(size, list | tuple) and list(size) == expected[::-1]
                remedy = "write the height first" if swapped else "resize the mask to its image before it is encoded"
                return f"its mask is {abbreviate(size)} [height, width], image_id {image} is {expected}; {remedy}"
            if isinstance(counts := mask.get("counts"), str) and counts.startswith(("b'", 'b"')):
                return f"RLE counts {abbreviate(counts)} are Python's print of bytes; write counts.decode('ascii')"
        elif not isinstance(mask, list):
            remedy = "give an RLE (size and counts) or polygons"
            return f"its segmentation is {abbreviate(mask)} (image_id {image}); {remedy}"
        return None

    def require_whole_masks(self) -> None:
        """Raise BenchError for a mask that cannot be decoded; all are checked together, as one by one takes long."""
        masks = [(_as_text(record["segmentation"]), *self.sizes[int(record["image_id"])]) for record in self.records]
        for index, fault in find_faults(masks, _check_masks):
            mask = masks[index][0]
            counts = abbreviate(mask.get("counts")) if isinstance(mask, dict) else ""
            raise BenchError(f"prediction record {index}: {MASK_FAULTS[fault].format(counts=counts)}")

    def require_no_corners(self) -> None:
        """Raise BenchError where the boxes fit their images as corners x0 y0 x1 y1, but not as x y width height."""
        rows = [index for index, record in enumerate(self.records) if "bbox" in record]
        if not rows:
            return
        boxes = np.array([self.records[index]["bbox"] for index in rows], dtype=np.float64)
        sizes = np.array([self.sizes[int(self.records[index]["image_id"])][::-1] for index in rows], dtype=np.float64)
        outside = (boxes[:, :2] + boxes[:, 2:] > (1 + OUTSIDE) * sizes).any(axis=1)
        corners = (boxes[:, 2:] >= boxes[:, :2]).all() and (boxes[:, 2:] <= sizes + 1).all()
        if corners and outside.mean() > CORNERS:
            first = rows[int(outside.argmax())]
            raise BenchError(
                f"prediction record {first}: its bbox {abbreviate(self.records[first]['bbox'])} leaves its image, as "
                f"do {outside.sum()} of {len(rows)}; give x, y, width, height instead of two corners"
            )


def _is_one_of(number: Any, ids: Container[int]) -> bool:
    """Return whether a value is one of these ids, also with a fraction of 0; a boolean is none."""
    return isinstance(number, int | float) and not isinstance(number, bool) and number in ids


def _aliases(name: str) -> tuple[str, ...]:
    """Return what a file may be called in results: its path, its name, and its name without the ending."""
    path = PurePosixPath(name)
    return name, path.name, path.stem


def _score_fault(record: Record) -> str | None:
    score = record["score"]
    number = isinstance(score, int | float) and not isinstance(score, bool)
    if number and is_finite(score):
        return None
    remedy = "the network has diverged, or the file was written wrong: give finite scores"
    text = score if isinstance(score, str) else abbreviate(score)
    where = f"(image_id {record['image_id']})"
    return f"its score is {text} {where}; {remedy if number else 'give a number, without quotes'}"


def _box_fault(record: Record) -> str | None:
    box = record["bbox"]
    numbers = isinstance(box, list | tuple) and len(box) == 4 and all(isinstance(side, int | float) for side in box)
    finite = numbers and all(map(is_finite, box))
    if finite and box[2] >= 0 and box[3] >= 0:
        return None
    remedy = "none of the last two negative" if finite else "in pixels, or leave the key out, if there is a mask"
    comma = ", " if finite else " "
    return f"its bbox is {abbreviate(box)} (image_id {record['image_id']}); give x, y, width, height{comma}{remedy}"


def _check_masks(masks: Sequence[tuple[Any, int, int]]) -> None:
    """Raise InvalidRecords if any of the masks, each with height and width of its image, cannot be decoded."""
    if masks:
        segmentations, height, width = zip(*masks, strict=True)
        check_segmentations(segmentations, np.array(height), np.array(width))


def _as_text(mask: Any) -> Any:
    """Return a segmentation with its counts as text, where they are bytes."""
    if isinstance(mask, dict) and isinstance(counts := mask.get("counts"), bytes):
        return {**mask, "counts": counts.decode("latin-1")}
    return mask


def _compress(record: Record, sizes: dict[int, list[int]]) -> Record:
    """Return a record whose mask is a compressed RLE."""
    height, width = sizes[record["image_id"]]
    compressed = compress(record["segmentation"], (height, width))
    if compressed is record["segmentation"]:
        return record
    return {**record, "segmentation": {**compressed, "counts": compressed["counts"].decode("ascii")}}
