"""Which records are wrong, and in what words? Lists of COCO records become columns at once, or the culprit is found.

A list is converted whole, so that a sound one costs little; only where that fails it is halved until the culprits are
alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pais_bench.masks import MOST_PIXELS, REFUSED, Masks, Whole, Wrong
from pais_bench.masks import columns as mask_columns
from pais_bench.types import BenchError

IMAGE_KEYS = ("id", "file_name", "height", "width")
ANNOTATION_KEYS = ("id", "image_id", "category_id", "iscrowd", "area", "bbox", "segmentation")
CATEGORY_KEYS = ("id", "name")

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """Say how a fault is told, of a record {r} or an image {h} high and {w} wide; mended tells what --repair drops."""

    what: str
    remedy: str
    mended: bool = False


KINDS = {
    "no id": Kind("", "give it an integer"),
    "twice": Kind("is there twice", "give every {noun} an id of its own"),
    "twice, annotation": Kind("is there twice", "give every annotation an id of its own", mended=True),
    "missing key": Kind("has no '{missing}'", "add the key, as the COCO format has it"),
    "nested": Kind("is nested too deeply to be kept", "remove what the COCO format does not have"),
    "size": Kind("has height {r[height]} and width {r[width]}", "give the size of the file in whole pixels"),
    "file name": Kind("has file_name {r[file_name]}", "name its file in the image folder"),
    "name": Kind("has name {r[name]}", "give it a name in quotes"),
    "unknown image": Kind(
        "has image_id {r[image_id]}, which the file does not list",
        "remove the annotation, or add what it refers to",
        mended=True,
    ),
    "unknown category": Kind(
        "has category_id {r[category_id]}, which the file does not list",
        "remove the annotation, or add what it refers to",
        mended=True,
    ),
    "crowd": Kind("has iscrowd {r[iscrowd]}", "give 0, or 1 for a crowd region"),
    "box": Kind("has bbox {r[bbox]}", "give x, y, width, height in pixels, none negative or infinite", mended=True),
    "area": Kind("has area {r[area]}", "give the number of its pixels", mended=True),
    "no mask": Kind("has no segmentation", "give polygons or an RLE, or remove it", mended=True),
    "polygon": Kind(
        "has a polygon with fewer than 3 points, or an odd or infinite coordinate",
        "give x0, y0, x1, y1, x2, y2, ... in pixels",
        mended=True,
    ),
    "far polygon": Kind(
        "has a polygon that leaves its image of {w} x {h} by more than its longer side",
        "give x0, y0, x1, y1, x2, y2, ... in pixels",
        mended=True,
    ),
    "RLE size": Kind(
        "has an RLE of size {size} on an image of [{h}, {w}]",
        "encode the mask at the image's height and width",
        mended=True,
    ),
    "RLE counts": Kind(
        "has an RLE whose counts are not those of {pixels} pixels", "encode the mask again", mended=True
    ),
}
"""Every fault of a record, in the words of its message."""


class Images(NamedTuple):
    """Hold the images of a part as columns; rows are in the order of the ids."""

    id: Whole
    height: Whole
    width: Whole
    file_name: pa.Array
    extra: pa.Array
    sorted_id: Whole
    sorted_row: Whole

    def rows(self, ids: Whole) -> Whole:
        """Give the row of every id; raise Wrong if one is not there."""
        place = np.searchsorted(self.sorted_id, ids)
        if len(ids) and (not len(self.id) or (self.sorted_id[np.minimum(place, len(self.id) - 1)] != ids).any()):
            raise Wrong("unknown image")
        return np.asarray(self.sorted_row[place])


class Annotations(NamedTuple):
    """Hold the annotations of a part as columns, in the source's order; row is that of the image."""

    id: Whole
    row: Whole
    category_id: Whole
    iscrowd: Whole
    area: pa.Array
    bbox: pa.Array
    masks: Masks
    extra: pa.Array


def image_columns(records: Sequence[Record]) -> Images:
    """Convert records of images; raise Wrong if any is wrong."""
    ids = _ids(records)
    _require_keys(records, IMAGE_KEYS)
    height, width = (_integers([record[key] for record in records], "size") for key in ("height", "width"))
    sides = np.stack([height, width])
    if (sides < 1).any() or (sides > MOST_PIXELS).any() or (height * width > MOST_PIXELS).any():
        raise Wrong("size")
    names = [record["file_name"] for record in records]
    if not set(map(type, names)) <= {str} or not all(names) or any("\0" in name for name in names):
        raise Wrong("file name")
    order = np.argsort(ids, kind="stable")
    extra = _extra(records, IMAGE_KEYS)
    return Images(ids, height, width, _converted(names, pa.large_string(), "file name"), extra, ids[order], order)


def annotation_columns(records: Sequence[Record], images: Images, categories: Whole) -> Annotations:
    """Convert records of annotations; raise Wrong if any is wrong. An id may be there twice."""
    ids = _ids(records)
    _require_keys(records, ANNOTATION_KEYS)
    rows = images.rows(_integers([record["image_id"] for record in records], "unknown image"))
    category = _integers([record["category_id"] for record in records], "unknown category")
    if not np.isin(category, categories).all():
        raise Wrong("unknown category")
    boxes = _converted([record["bbox"] for record in records], pa.list_(pa.float64(), 4), "box")
    sides = boxes.values.to_numpy(zero_copy_only=False).reshape(-1, 4)
    if boxes.null_count or boxes.values.null_count or not np.isfinite(sides).all() or (sides[:, 2:] < 0).any():
        raise Wrong("box")  # a side of 0 passes: COCO's own train2017 has two
    areas = _converted([record["area"] for record in records], pa.float64(), "area")
    area = areas.to_numpy(zero_copy_only=False)
    if areas.null_count or not np.isfinite(area).all() or (area < 0).any():
        raise Wrong("area")
    masks = mask_columns([record["segmentation"] for record in records], images.height[rows], images.width[rows])
    return Annotations(ids, rows, category, _crowds(records), areas, boxes, masks, _extra(records, ANNOTATION_KEYS))


def category_ids(records: Sequence[Record]) -> Whole:
    """Give the ids of categories; raise Wrong if any category is wrong."""
    ids = _ids(records)
    _require_keys(records, CATEGORY_KEYS)
    if not all(isinstance(record["name"], str) for record in records):
        raise Wrong("name")
    return ids


def culprits(records: Sequence[Any], convert: Callable[[Sequence[Any]], object]) -> Iterator[tuple[int, str]]:
    """Give the position and the kind of fault of every record that alone cannot be converted, in order."""
    try:
        convert(records)
    except Wrong as wrong:
        if len(records) == 1:
            yield 0, wrong.kind
            return
        half = len(records) // 2
        yield from culprits(records[:half], convert)
        yield from ((half + position, kind) for position, kind in culprits(records[half:], convert))


def twice(ids: Whole) -> list[int]:
    """Give the positions of ids that were there before, in order."""
    order = np.argsort(ids, kind="stable")
    return sorted(order[1:][ids[order][1:] == ids[order][:-1]].tolist())


def describe(source: str, noun: str, position: int, record: Any, kind: str, size: tuple[int, int] = (0, 0)) -> str:
    """Give the message about a wrong record: the file, the record, what is wrong, and the remedy."""
    if kind == "no id":
        return f"{source}: {noun} number {position} of the list has no 'id'; {KINDS[kind].remedy}"
    keys = {"image": IMAGE_KEYS, "annotation": ANNOTATION_KEYS, "category": CATEGORY_KEYS}[noun]
    mask = record.get("segmentation")
    told = {
        "r": {key: short(record[key]) for key in keys if key in record},
        "missing": next((key for key in keys if key not in record), ""),
        "size": short(mask.get("size")) if isinstance(mask, dict) else "",
        "noun": noun,
        "h": size[0],
        "w": size[1],
        "pixels": size[0] * size[1],
    }
    what, remedy = (words.format(**told) for words in (KINDS[kind].what, KINDS[kind].remedy))
    return f"{source}: {noun} {record['id']} {what}; {remedy}"


def refuse(source: str, noun: str, records: Sequence[Any], position: int, kind: str, **more: Any) -> BenchError:
    """Give the error about one record of a list."""
    return BenchError(describe(source, noun, position, records[position], kind, **more))


def short(value: Any) -> str:
    """Give a value in one line of at most 80 characters."""
    try:
        text = ascii(value)
    except (RecursionError, ValueError):  # an int of more than 4300 digits cannot be told
        text = type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."


def canonical(value: Any) -> str:
    """Give JSON that is the same for equal mappings; raise Wrong if it is nested too deeply."""
    try:
        return json.dumps(value, separators=(",", ":"), sort_keys=True)
    except RecursionError as error:
        raise Wrong("nested") from error


def _ids(records: Sequence[Any]) -> Whole:
    try:
        return _integers([record["id"] for record in records], "no id")
    except REFUSED as error:
        raise Wrong("no id") from error


def _require_keys(records: Sequence[Any], keys: Sequence[str]) -> None:
    if not all(map(set(keys).issubset, records)):
        raise Wrong("missing key")


def _integers(values: Sequence[Any], kind: str) -> Whole:
    """Convert integers; a boolean is none."""
    if not set(map(type, values)) <= {int}:
        raise Wrong(kind)
    try:
        return np.array(values, dtype=np.int64)
    except OverflowError as error:
        raise Wrong(kind) from error


def _converted(values: Sequence[Any], kind: pa.DataType, fault: str) -> pa.Array:
    try:
        return pa.array(values, kind)
    except REFUSED as error:
        raise Wrong(fault) from error


def _crowds(records: Sequence[Record]) -> Whole:
    values = [record["iscrowd"] for record in records]
    try:
        if set(values) <= {0, 1}:
            return np.array(values, dtype=np.uint8)
    except TypeError:  # a list, say
        pass
    raise Wrong("crowd")


def _extra(records: Sequence[Record], keys: Sequence[str]) -> pa.Array:
    """Give as JSON what a record holds beyond the format's keys, in its RLE too; nothing for nothing."""
    known, found = set(keys), []
    for record in records:
        more = {key: value for key, value in record.items() if key not in known} if len(record) > len(known) else {}
        mask = record.get("segmentation")
        if type(mask) is dict and len(mask) > 2 and "segmentation" in known:
            more["segmentation"] = {key: value for key, value in mask.items() if key not in ("size", "counts")}
        found.append(canonical(more) if more else "")
    return pa.array(found, pa.large_string())
