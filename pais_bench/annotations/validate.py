"""Validate lists of COCO records by converting them to columns, and describe the fault of an invalid record.

A list is converted at once, so that a valid one costs little; only where that fails it is halved until the invalid
records are alone.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from pais_bench.annotations.rle_columns import (
    CONVERSION_ERRORS,
    MAX_PIXELS,
    IntArray,
    InvalidRecords,
    check_segmentations,
)

KEYS = {
    "image": ("id", "file_name", "height", "width"),
    "annotation": ("id", "image_id", "category_id", "iscrowd", "area", "bbox", "segmentation"),
    "category": ("id", "name"),
}
"""The keys that the COCO format requires of a record."""
LISTS = ("images", "annotations", "categories")
"""The lists that a COCO annotation file has."""

Record = Mapping[str, Any]


class Fault(NamedTuple):
    """Hold the words for a fault of a record {r} or an image {h} high and {w} wide, and what --repair does.

    It can drop the record; drop the polygon, or the record where no other one is left; or measure bbox or area in the
    mask. None: it refuses the record.
    """

    problem: str
    remedy: str
    repair: Literal["drop", "polygon", "measure"] | None = None


_IN_PIXELS = "give x0, y0, x1, y1, x2, y2, ... in pixels"
FAULTS = {
    "no record": Fault("is {value}, no mapping of keys", "write a record, as the COCO format has it"),
    "no id": Fault("has {id}", "give it an integer"),
    "duplicate id": Fault("is there twice", "give every {noun} an id of its own"),
    "duplicate annotation": Fault("is there twice", "remove one of the two", "drop"),
    "missing key": Fault("has no '{missing}'", "add the key, as the COCO format has it"),
    "nested": Fault("is nested too deeply to be kept", "remove what the COCO format does not have"),
    "size": Fault("has height {r[height]} and width {r[width]}", "give the size of the file in whole pixels"),
    "file name": Fault("has file_name {r[file_name]}", "name its file in the image folder"),
    "name": Fault("has name {r[name]}", "give it a name in quotes"),
    "isthing": Fault("has isthing {isthing}", "give 1 for a class of single objects, 0 for stuff, such as sky"),
    "unknown image": Fault(
        "has image_id {r[image_id]}, which the file does not list",
        "remove the annotation, or add what it refers to",
        "drop",
    ),
    "unknown category": Fault(
        "has category_id {r[category_id]}, which the file does not list",
        "remove the annotation, or add what it refers to",
        "drop",
    ),
    "crowd": Fault("has iscrowd {r[iscrowd]}", "give 0, or 1 for a crowd region"),
    "box": Fault(
        "has bbox {r[bbox]}",
        "give x, y, width, height in pixels, none negative or infinite, or no bbox at all",
        "measure",
    ),
    "area": Fault("has area {r[area]}", "give the number of its pixels, or no area at all", "measure"),
    "no mask": Fault("has no segmentation", "give polygons or an RLE, or remove it", "drop"),
    "polygon": Fault("has {polygon}", _IN_PIXELS, "polygon"),
    "far polygon": Fault(
        "has a polygon that leaves its image of {w} x {h} by more than its longer side", _IN_PIXELS, "polygon"
    ),
    "RLE size": Fault(
        "has an RLE of size {size} on an image of [{h}, {w}]", "encode the mask at the image's height and width", "drop"
    ),
    "RLE counts": Fault("has an RLE whose counts are not those of {pixels} pixels", "encode the mask again", "drop"),
}
"""Every fault of a record."""


class Images(NamedTuple):
    """Hold the images of a subset as columns, in the source's order; records are JSON."""

    id: IntArray
    height: IntArray
    width: IntArray
    records: list[str]
    sorted_id: IntArray
    sorted_row: IntArray

    def rows(self, ids: IntArray) -> IntArray:
        """Return the row of every id; raise InvalidRecords if one is unknown."""
        index = np.searchsorted(self.sorted_id, ids)
        if len(ids) and (not len(self.id) or (self.sorted_id[np.minimum(index, len(self.id) - 1)] != ids).any()):
            raise InvalidRecords("unknown image")
        return np.asarray(self.sorted_row[index])


class Annotations(NamedTuple):
    """Hold the annotations of a subset as columns, in the source's order; row is that of the image."""

    id: IntArray
    row: IntArray
    category_id: IntArray
    iscrowd: IntArray
    records: list[str]


def image_columns(records: Sequence[Record]) -> Images:
    """Convert records of images; raise InvalidRecords if any is invalid."""
    ids = _ids(records)
    _require_keys(records, "image")
    height, width = (_integers([record[key] for record in records], "size") for key in ("height", "width"))
    sides = np.stack([height, width])
    if (sides < 1).any() or (sides > MAX_PIXELS).any() or (height * width > MAX_PIXELS).any():
        raise InvalidRecords("size")
    names = [record["file_name"] for record in records]
    if not set(map(type, names)) <= {str} or not all(names) or any("\0" in name for name in names):
        raise InvalidRecords("file name")
    _arrow_array(names, pa.large_string(), "file name")
    order = np.argsort(ids, kind="stable")
    return Images(ids, height, width, list(map(canonical_json, records)), ids[order], order)


def annotation_columns(records: Sequence[Record], images: Images, categories: IntArray) -> Annotations:
    """Convert records of annotations; raise InvalidRecords if any is invalid. Duplicate ids pass."""
    ids = _ids(records)
    _require_keys(records, "annotation")
    rows = images.rows(_integers([record["image_id"] for record in records], "unknown image"))
    category = _integers([record["category_id"] for record in records], "unknown category")
    if not np.isin(category, categories).all():
        raise InvalidRecords("unknown category")
    boxes = _arrow_array([record["bbox"] for record in records], pa.list_(pa.float64(), 4), "box")
    sides = boxes.values.to_numpy(zero_copy_only=False).reshape(-1, 4)
    if boxes.null_count or boxes.values.null_count or not np.isfinite(sides).all() or (sides[:, 2:] < 0).any():
        raise InvalidRecords("box")  # a side of 0 passes: COCO's own train2017 has two
    areas = _arrow_array([record["area"] for record in records], pa.float64(), "area")
    area = areas.to_numpy(zero_copy_only=False)
    if areas.null_count or not np.isfinite(area).all() or (area < 0).any():
        raise InvalidRecords("area")
    check_segmentations([record["segmentation"] for record in records], images.height[rows], images.width[rows])
    return Annotations(ids, rows, category, _crowds(records), list(map(canonical_json, records)))


def category_ids(records: Sequence[Record]) -> IntArray:
    """Return the ids of categories; raise InvalidRecords if any category is invalid."""
    ids = _ids(records)
    _require_keys(records, "category")
    if not all(isinstance(record["name"], str) for record in records):
        raise InvalidRecords("name")
    if not all(type(thing := record.get("isthing", 1)) in (int, bool) and thing in (0, 1) for record in records):
        raise InvalidRecords("isthing")
    return ids


def find_faults(records: Sequence[Any], convert: Callable[[Sequence[Any]], object]) -> Iterator[tuple[int, str]]:
    """Yield the position and the fault of every record that alone cannot be converted, in order."""
    try:
        convert(records)
    except InvalidRecords as invalid:
        if len(records) == 1:
            yield 0, invalid.fault
            return
        half = len(records) // 2
        yield from find_faults(records[:half], convert)
        yield from ((half + position, fault) for position, fault in find_faults(records[half:], convert))


def find_duplicates(ids: IntArray) -> list[int]:
    """Return the positions of ids that occur at an earlier position too, in order."""
    order = np.argsort(ids, kind="stable")
    return sorted(order[1:][ids[order][1:] == ids[order][:-1]].tolist())


def fault_message(
    source: str, noun: str, position: int, record: Any, fault: str, size: tuple[int, int] = (0, 0)
) -> str:
    """Return the message about an invalid record: file, record, problem and remedy; size: (H, W) of its image."""
    values: dict[str, Any] = {"noun": noun, "h": size[0], "w": size[1], "pixels": size[0] * size[1]}
    if isinstance(record, Mapping):
        mask = record.get("segmentation")
        values |= {
            "r": {key: abbreviate(record[key]) for key in KEYS[noun] if key in record},
            "missing": next((key for key in KEYS[noun] if key not in record), ""),
            "size": abbreviate(mask.get("size")) if isinstance(mask, dict) else "",
            "id": f"the id {abbreviate(record['id'])}, no integer of 64 bits" if "id" in record else "no 'id'",
            "polygon": _describe_polygon(mask),
            "isthing": abbreviate(record.get("isthing")),
        }
    else:
        fault, values["value"] = "no record", abbreviate(record)
    problem, remedy = (text.format(**values) for text in FAULTS[fault][:2])
    return f"{source}: {name_record(noun, position, record)} {problem}; {remedy}"


def name_record(noun: str, position: int, record: Any) -> str:
    """Return what a message calls a record: by its id, or by its position in the list where it has no valid one."""
    has_id = isinstance(record, Mapping) and type(record.get("id")) is int and abs(record["id"]) < 2**63
    return f"{noun} {record['id']}" if has_id else f"{noun} number {position} of the list"


def file_name(image: object) -> str:
    """Return the file name of an image record; nothing where the record has none."""
    name = image.get("file_name") if isinstance(image, Mapping) else None
    return name if isinstance(name, str) else ""


def _describe_polygon(mask: Any) -> str:
    """Return what is wrong with the first invalid polygon of a segmentation."""
    for polygon in mask if isinstance(mask, list) else ():
        if not isinstance(polygon, list):
            return f"{abbreviate(polygon)} where a polygon, a list of numbers, is expected"
        if others := [value for value in polygon if type(value) not in (int, float)]:
            return f"{abbreviate(others[0])} where a number of a polygon is expected"
        if infinite := [value for value in polygon if not is_finite(value)]:
            return f"a polygon with the coordinate {abbreviate(infinite[0])}"
        if len(polygon) % 2:
            return f"a polygon of {len(polygon)} numbers, which are no pairs"
        if len(polygon) < 6:
            return f"a polygon of only {len(polygon) // 2} points, {abbreviate(polygon)}"
    return "a polygon that cannot be read"


def is_finite(number: float) -> bool:
    """Return whether a number is finite as a float: math.isfinite raises OverflowError for an int of 400 digits."""
    return -sys.float_info.max <= number <= sys.float_info.max


def abbreviate(value: Any) -> str:
    """Return a value as one line of at most 80 characters."""
    try:
        text = ascii(value)
    except (RecursionError, ValueError):  # Python writes no int of more than 4300 digits
        text = type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."


def canonical_json(value: Any) -> str:
    """Return ASCII JSON that does not depend on the order of keys; raise InvalidRecords if nested too deeply."""
    try:
        return json.dumps(value, separators=(",", ":"), sort_keys=True)
    except RecursionError as error:
        raise InvalidRecords("nested") from error


def _ids(records: Sequence[Any]) -> IntArray:
    try:
        return _integers([record["id"] for record in records], "no id")
    except CONVERSION_ERRORS as error:
        raise InvalidRecords("no id") from error


def _require_keys(records: Sequence[Any], noun: str) -> None:
    if not all(map(set(KEYS[noun]).issubset, records)):
        raise InvalidRecords("missing key")


def _integers(values: Sequence[Any], fault: str) -> IntArray:
    """Convert integers; a boolean is none."""
    if not set(map(type, values)) <= {int}:
        raise InvalidRecords(fault)
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError as error:
        raise InvalidRecords(fault) from error


def _arrow_array(values: Sequence[Any], data_type: pa.DataType, fault: str) -> pa.Array:
    try:
        return pa.array(values, data_type)
    except CONVERSION_ERRORS as error:
        raise InvalidRecords(fault) from error


def _crowds(records: Sequence[Record]) -> IntArray:
    values = [record["iscrowd"] for record in records]
    try:
        if set(values) <= {0, 1}:
            return np.array(values, dtype=np.uint8)
    except TypeError:  # an unhashable value, such as a list
        pass
    raise InvalidRecords("crowd")
