"""Convert the COCO records of a subset to tables: validated, repaired on request, and grouped by image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pais_bench.annotations.arrow import ANNOTATIONS, IMAGES
from pais_bench.annotations.rle_columns import IntArray, InvalidRecords
from pais_bench.annotations.validate import (
    FAULTS,
    Annotations,
    Images,
    Record,
    annotation_columns,
    canonical_json,
    category_ids,
    fault_message,
    find_duplicates,
    find_faults,
    image_columns,
)
from pais_bench.errors import BenchError

CHUNK_SIZE = 20_000
"""Records that are searched for faults at a time: a repair of many faults then costs no more than one of few."""


@dataclass(frozen=True)
class DroppedRecord:
    """Hold a record that a repair left out, its position in the source's list 'images' or 'annotations', and why."""

    list: str
    position: int
    fault: str
    reason: str
    record: Any


@dataclass(frozen=True)
class Subset:
    """Hold the COCO records of a subset, such as the training set; source is the file that messages name.

    extra is what the file holds beside its lists (info, licenses) | dropped is what the dataset itself left out.
    """

    source: str
    folder: Path
    images: Sequence[Record]
    annotations: Sequence[Record]
    categories: Sequence[Record]
    extra: Mapping[str, Any] = field(default_factory=dict)
    dropped: Sequence[DroppedRecord] = ()


class Converted(NamedTuple):
    """Hold the tables of a subset, its classes {id, name} sorted by id, and what a repair dropped."""

    tables: dict[str, pa.RecordBatch]
    classes: list[dict[str, Any]]
    dropped: list[DroppedRecord]


def convert(subset: Subset, repair: bool = False) -> Converted:
    """Convert a subset; raise BenchError that names the file and the id of the first invalid record.

    A repair drops annotations whose fault is repairable, and refuses the others.
    """
    categories = _category_ids(subset)
    images = _image_columns(subset)
    annotations, dropped = _annotation_columns(subset, images, categories, repair)
    try:
        metadata = {key: canonical_json(getattr(subset, key)).encode() for key in ("categories", "extra")}
    except InvalidRecords as error:
        raise BenchError(f"{subset.source}: {FAULTS[error.fault].problem}; {FAULTS[error.fault].remedy}") from error
    by_id = sorted(subset.categories, key=lambda category: category["id"])
    classes = [{"id": category["id"], "name": category["name"]} for category in by_id]
    return Converted(_tables(images, annotations, metadata), classes, [*subset.dropped, *dropped])


def _category_ids(subset: Subset) -> IntArray:
    _require_any(subset, subset.categories, "category")
    for position, fault in find_faults(subset.categories, category_ids):
        raise _error(subset, "category", position, fault)
    ids = category_ids(subset.categories)
    for position in find_duplicates(ids):
        raise _error(subset, "category", position, "duplicate id")
    return ids


def _image_columns(subset: Subset) -> Images:
    _require_any(subset, subset.images, "image")
    try:
        images = image_columns(subset.images)
    except InvalidRecords:
        for position, fault in find_faults(subset.images, image_columns):
            raise _error(subset, "image", position, fault) from None
        raise
    for position in find_duplicates(images.id):
        raise _error(subset, "image", position, "duplicate id")
    return images


def _require_any(subset: Subset, records: Sequence[Record], noun: str) -> None:
    if not records:
        raise BenchError(f"{subset.source}: it has no {noun}; give a file that has some")


def _error(subset: Subset, noun: str, position: int, fault: str) -> BenchError:
    record = {"image": subset.images, "category": subset.categories}[noun][position]
    return BenchError(fault_message(subset.source, noun, position, record, fault))


def _annotation_columns(
    subset: Subset, images: Images, categories: IntArray, repair: bool
) -> tuple[Annotations, list[DroppedRecord]]:
    """Convert annotations; those with a repairable fault are dropped by a repair."""
    columns = partial(annotation_columns, images=images, categories=categories)
    drop = partial(_drop, subset, images, repair)
    records, positions = subset.annotations, list(range(len(subset.annotations)))
    dropped: list[DroppedRecord] = []
    try:
        annotations = columns(records)
    except InvalidRecords:
        for start in range(0, len(records), CHUNK_SIZE):
            for position, fault in find_faults(records[start : start + CHUNK_SIZE], columns):
                dropped.append(drop(start + position, fault))
        if not dropped:
            raise
        positions = sorted(set(positions) - {record.position for record in dropped})
        annotations = columns([records[position] for position in positions])
    duplicates = {positions[row] for row in find_duplicates(annotations.id)}
    if duplicates:
        dropped += [drop(position, "duplicate annotation id") for position in sorted(duplicates)]
        annotations = columns([records[position] for position in positions if position not in duplicates])
    return annotations, dropped


def _drop(subset: Subset, images: Images, repair: bool, position: int, fault: str) -> DroppedRecord:
    record = subset.annotations[position]
    message = _annotation_message(subset, images, position, record, fault)
    if not (repair and FAULTS[fault].repairable):
        raise BenchError(message)
    return DroppedRecord("annotations", position, fault, message, record)


def _annotation_message(subset: Subset, images: Images, position: int, record: Any, fault: str) -> str:
    size, image_id = (0, 0), record.get("image_id") if isinstance(record, Mapping) else None
    if fault == "unknown image" and image_id in [dropped.record.get("id") for dropped in subset.dropped]:
        return f"{subset.source}: annotation {record['id']} is of image {image_id}, which was dropped"
    if type(image_id) is int and fault != "unknown image":
        try:
            row = images.rows(np.array([image_id]))[0]
            size = int(images.height[row]), int(images.width[row])
        except (InvalidRecords, OverflowError):
            pass
    return fault_message(subset.source, "annotation", position, record, fault, size)


def _tables(images: Images, annotations: Annotations, metadata: Mapping[str, bytes]) -> dict[str, pa.RecordBatch]:
    """Group annotations by image; those of one image keep the source's order."""
    order = np.argsort(annotations.row, kind="stable")
    count = np.bincount(annotations.row, minlength=len(images.id)).astype(np.int64)
    rows = [images.id, images.height, images.width, images.records, np.cumsum(count) - count, count]
    records = [annotations.records[row] for row in order.tolist()]
    return {
        "images": _batch([*rows, images.sorted_id, images.sorted_row], IMAGES.with_metadata(metadata)),
        "annotations": _batch(
            [order, annotations.category_id[order], annotations.iscrowd[order], records], ANNOTATIONS
        ),
    }


def _batch(columns: Sequence[Any], schema: pa.Schema) -> pa.RecordBatch:
    return pa.record_batch(
        [pa.array(column, type_) for column, type_ in zip(columns, schema.types, strict=True)], schema=schema
    )
