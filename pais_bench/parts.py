"""How does a list of COCO records become the tables of a part? Checked, repaired if asked to, and grouped by image."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pais_bench import records
from pais_bench.masks import Whole, Wrong
from pais_bench.records import Annotations, Images, Record
from pais_bench.tables import ANNOTATIONS, IMAGES, taken
from pais_bench.types import BenchError

OFTEN = 20_000
"""Records between two looks for culprits: a repair of many faults costs then no more than one of few."""


@dataclass(frozen=True)
class Dropped:
    """Say which record of a source's list ('images' or 'annotations') a repair left out, and why."""

    list: str
    position: int
    kind: str
    reason: str
    record: Any


@dataclass(frozen=True)
class Part:
    """Hold the COCO records of one part; source is the file that a message about them names.

    extra is what the file holds beside its lists (info, licenses) | dropped is what the dataset itself left out.
    """

    source: str
    folder: Path
    images: Sequence[Record]
    annotations: Sequence[Record]
    categories: Sequence[Record]
    extra: Mapping[str, Any] = field(default_factory=dict)
    dropped: Sequence[Dropped] = ()


class Converted(NamedTuple):
    """Hold the tables of a part, its (id, name) sorted by id, and what a repair dropped."""

    tables: dict[str, pa.RecordBatch]
    classes: list[dict[str, Any]]
    dropped: list[Dropped]


def convert(part: Part, repair: bool = False) -> Converted:
    """Convert a part; raise BenchError that names the file and the id of the first wrong record.

    A repair drops annotations that are wrong in a way that real datasets know, and refuses what is worse.
    """
    categories = _categories(part)
    images = _images(part)
    annotations, dropped = _annotations(part, images, categories, repair)
    try:
        about = {"categories": records.canonical(part.categories), "extra": records.canonical(part.extra)}
    except Wrong as error:
        raise BenchError(f"{part.source}: {_told(error.kind)}") from error
    classes = [{"id": one["id"], "name": one["name"]} for one in sorted(part.categories, key=lambda one: one["id"])]
    return Converted(_tables(images, annotations, about), classes, [*part.dropped, *dropped])


def _told(kind: str) -> str:
    return f"{records.KINDS[kind].what}; {records.KINDS[kind].remedy}"


def _categories(part: Part) -> Whole:
    _require_some(part, part.categories, "category")
    for position, kind in records.culprits(part.categories, records.category_ids):
        raise records.refuse(part.source, "category", part.categories, position, kind)
    ids = records.category_ids(part.categories)
    for position in records.twice(ids):
        raise records.refuse(part.source, "category", part.categories, position, "twice")
    return ids


def _images(part: Part) -> Images:
    _require_some(part, part.images, "image")
    try:
        found = records.image_columns(part.images)
    except Wrong:
        for position, kind in records.culprits(part.images, records.image_columns):
            raise records.refuse(part.source, "image", part.images, position, kind) from None
        raise
    for position in records.twice(found.id):
        raise records.refuse(part.source, "image", part.images, position, "twice")
    return found


def _require_some(part: Part, found: Sequence[Record], noun: str) -> None:
    if not found:
        raise BenchError(f"{part.source}: it has no {noun}; give a file that has some")


def _annotations(part: Part, images: Images, categories: Whole, repair: bool) -> tuple[Annotations, list[Dropped]]:
    columns = partial(records.annotation_columns, images=images, categories=categories)
    describe = partial(_describe, part, images)
    kept, dropped = list(enumerate(part.annotations)), []
    try:
        found = columns(part.annotations)
    except Wrong:
        dropped = _culprits(part, columns, describe, repair)
        if not dropped:
            raise
        wrong = {one.position for one in dropped}
        kept = [(position, record) for position, record in kept if position not in wrong]
        found = columns([record for _, record in kept])
    again = set(records.twice(found.id))
    for index in sorted(again):
        dropped.append(_drop(describe, repair, *kept[index], "twice, annotation"))
    if again:
        found = columns([record for index, (_, record) in enumerate(kept) if index not in again])
    return found, dropped


def _culprits(
    part: Part, columns: Callable[[Sequence[Any]], object], describe: Callable[..., str], repair: bool
) -> list[Dropped]:
    found = []
    for start in range(0, len(part.annotations), OFTEN):
        for position, kind in records.culprits(part.annotations[start : start + OFTEN], columns):
            found.append(_drop(describe, repair, start + position, part.annotations[start + position], kind))
    return found


def _drop(describe: Callable[..., str], repair: bool, position: int, record: Any, kind: str) -> Dropped:
    message = describe(position, record, kind)
    if not (repair and records.KINDS[kind].mended):
        raise BenchError(message)
    return Dropped("annotations", position, kind, message, record)


def _describe(part: Part, images: Images, position: int, record: Any, kind: str) -> str:
    size, image = (0, 0), record.get("image_id") if isinstance(record, Mapping) else None
    if kind == "unknown image" and image in [one.record.get("id") for one in part.dropped]:
        return f"{part.source}: annotation {record['id']} is of image {image}, which was dropped"
    if type(image) is int and kind != "unknown image":
        try:
            row = images.rows(np.array([image]))[0]
            size = int(images.height[row]), int(images.width[row])
        except (Wrong, OverflowError):
            pass
    return records.describe(part.source, "annotation", position, record, kind, size)


def _tables(images: Images, annotations: Annotations, about: Mapping[str, str]) -> dict[str, pa.RecordBatch]:
    """Group annotations by image; within one they keep the source's order."""
    order = np.argsort(annotations.row, kind="stable")
    count = np.bincount(annotations.row, minlength=len(images.id)).astype(np.int64)
    table = [images.id, images.height, images.width, images.file_name, images.extra, np.cumsum(count) - count, count]
    notes = [annotations.id, np.arange(len(order)), annotations.category_id, annotations.iscrowd, annotations.area]
    notes += [annotations.bbox, *annotations.masks, annotations.extra]
    metadata = {key: value.encode() for key, value in about.items()}
    return {
        "images": pa.record_batch([*table, images.sorted_id, images.sorted_row], IMAGES.with_metadata(metadata)),
        "annotations": pa.record_batch(
            [taken(one if isinstance(one, pa.Array) else pa.array(one), order) for one in notes], ANNOTATIONS
        ),
    }
