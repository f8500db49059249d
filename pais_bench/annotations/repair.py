"""Convert annotations: complete what is left out, repair faults on request, and compare box, area and mask."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from pais_bench.annotations.complete import (
    UNMEASURED,
    Notes,
    as_integer,
    complete_annotations,
    fill_from_mask,
    find_repeated,
    unused_ids,
)
from pais_bench.annotations.contradictions import CONTRADICTIONS, COUNT, SHARE, find_contradictions
from pais_bench.annotations.rle_columns import IntArray, InvalidRecords, check_segmentations
from pais_bench.annotations.validate import (
    FAULTS,
    Annotations,
    Images,
    annotation_columns,
    fault_message,
    find_faults,
    name_record,
)
from pais_bench.errors import BenchError

MASK_FAULTS = ("no mask", "polygon", "far polygon", "RLE size", "RLE counts")
"""Faults of a mask. Where an annotation is dropped for one, its object is still in the image, without a label."""
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
class ChangedRecord(DroppedRecord):
    """Hold a record that a repair kept, and what it was replaced by."""

    replacement: Any


class AnnotationRepair:
    """Convert the annotations of a file.

    lines says in a line each which forms were accepted and which annotations contradict themselves.
    """

    def __init__(
        self,
        source: str,
        originals: Sequence[Any],
        images: Images,
        categories: IntArray,
        dropped_images: Collection[int],
        repair: bool,
    ) -> None:
        """Start with all records; dropped_images are the ids of images that the dataset left out."""
        self.source, self.originals, self.images, self.repair = source, originals, images, repair
        self.dropped_images = dropped_images
        self.records = list(originals)
        self.lines: list[str] = []
        self._kept = list(range(len(originals)))
        self._notes = Notes(source, "annotation")
        self._unmeasured: dict[int, list[str]] = {}
        self._repairs: list[tuple[int, str, str]] = []
        self._dropped: set[int] = set()
        self._convert: Callable[[Sequence[Any]], Annotations] = partial(
            annotation_columns, images=images, categories=categories
        )

    def columns(self) -> Annotations:
        """Return valid annotations as columns; raise BenchError that names the file and the first invalid one."""
        try:
            annotations = self._convert(self.records)
        except InvalidRecords:
            self.records, self._unmeasured = complete_annotations(self.records, self._notes)
            annotations = self._repair_faults()
        annotations = self._number_again(self._measure(annotations))
        annotations = self._compare(annotations)
        self.lines = [*self._notes.lines(), *self.lines]
        return annotations

    def kept_records(self) -> list[Any]:
        """Return the records that columns() converted."""
        return [self.records[position] for position in self._kept]

    def emptied(self) -> Collection[int]:
        """Return the ids of the images that have dropped annotations, of no valid mask, and no other ones."""
        lost = {position for position, fault, _ in self._repairs if fault in MASK_FAULTS} & self._dropped
        if not lost:
            return ()
        ids = {as_integer(self.records[position].get("image_id")) for position in lost}
        return {one for one in ids if one is not None}.difference(record["image_id"] for record in self.kept_records())

    def repaired(self) -> list[DroppedRecord]:
        """Return what the repair dropped and changed, once columns() is done: an entry per record, its last fault."""
        entries: list[DroppedRecord] = []
        last = {position: (fault, reason) for position, fault, reason in self._repairs}
        for position, (fault, reason) in last.items():
            entry = ("annotations", position, fault, reason, self.originals[position])
            dropped = position in self._dropped
            entries.append(DroppedRecord(*entry) if dropped else ChangedRecord(*entry, self.records[position]))
        return entries

    def _repair_faults(self) -> Annotations:
        """Drop or change what is invalid; without a repair it is refused."""
        for start in range(0, len(self.records), CHUNK_SIZE):
            for offset, fault in find_faults(self.records[start : start + CHUNK_SIZE], self._convert):
                self._repair_record(start + offset, fault)
        return self._convert_kept()

    def _repair_record(self, position: int, fault: str | None) -> None:
        """Repair one fault after the other."""
        while fault is not None:
            reason, kind = self._message(position, fault), FAULTS[fault].repair
            if not self.repair or kind is None:
                raise BenchError(reason)
            record = dict(self.records[position])
            if kind == "measure":
                key = {"box": "bbox"}.get(fault, fault)
                self._unmeasured.setdefault(position, []).append(key)
                record[key] = UNMEASURED[key]
            elif kind == "polygon":
                record["segmentation"] = self._valid_polygons(position)
            self._repairs.append((position, fault, reason))
            if kind == "drop" or (kind == "polygon" and not record["segmentation"]):
                self._dropped.add(position)
                return
            self.records[position] = record
            fault = next((fault for _, fault in find_faults([record], self._convert)), None)

    def _valid_polygons(self, position: int) -> list[Any]:
        """Return the polygons of an annotation that can be drawn."""
        height, width = (np.array([side]) for side in self._size(position))
        valid = []
        for polygon in self.records[position]["segmentation"]:
            try:
                check_segmentations([[polygon]], height, width)
            except InvalidRecords:
                continue
            valid.append(polygon)
        return valid

    def _measure(self, annotations: Annotations) -> Annotations:
        """Fill in areas and boxes from the masks, which are valid now."""
        kept = set(self._kept)
        for position in self._unmeasured.keys() & kept:
            keys = self._unmeasured[position]
            self.records[position] = fill_from_mask(self.records[position], keys, self._size(position))
        return self._convert_kept() if self._unmeasured else annotations

    def _number_again(self, annotations: Annotations) -> Annotations:
        """Give repeated ids of different annotations new ones; the same annotation twice is a fault."""
        equal, different = find_repeated(annotations.id, annotations.records)
        if not equal and not different:
            return annotations
        numbers = unused_ids(set(annotations.id.tolist()))
        for row in different:
            position = self._kept[row]
            self.records[position] = {**self.records[position], "id": next(numbers)}
            self._notes.add("repeated id", position, self.originals[position])
        for position in [self._kept[row] for row in equal]:
            reason = self._message(position, "duplicate annotation")
            if not self.repair:
                raise BenchError(reason)
            self._repairs.append((position, "duplicate annotation", reason))
            self._dropped.add(position)
        return self._convert_kept()

    def _compare(self, annotations: Annotations) -> Annotations:
        """Compare box, area and mask; many contradictions are refused, few are reported."""
        height, width = self.images.height[annotations.row], self.images.width[annotations.row]
        records = self.kept_records()
        found = find_contradictions(records, height, width)
        repaired = {name: rows for name, rows in found.items() if self.repair and CONTRADICTIONS[name].measured}
        reported = {name: rows for name, rows in found.items() if name not in repaired}
        for name, rows in repaired.items():
            for position in [self._kept[row] for row in rows]:
                keys = CONTRADICTIONS[name].measured
                self.records[position] = fill_from_mask(self.records[position], keys, self._size(position))
                reason = f"{self.source}: {self._name(position)}: {CONTRADICTIONS[name].looks}"
                self._repairs.append((position, name, reason))
        total = len(set().union(*reported.values()))
        for name, rows in sorted(reported.items(), key=lambda item: -len(item[1])):
            looks, remedy, _ = CONTRADICTIONS[name]
            first = self._name(self._kept[rows[0]])
            line = f"{self.source}: {looks} in {len(rows)} of {len(records)} annotations, the first: {first}; {remedy}"
            if total >= COUNT and total > SHARE * len(records):
                raise BenchError(line)
            self.lines.append(line)
        return self._convert_kept() if repaired else annotations

    def _convert_kept(self) -> Annotations:
        self._kept = [position for position in range(len(self.records)) if position not in self._dropped]
        return self._convert(self.kept_records())

    def _message(self, position: int, fault: str) -> str:
        record = self.records[position]
        image_id = record.get("image_id") if isinstance(record, Mapping) else None
        if fault == "unknown image" and type(image_id) is int and image_id in self.dropped_images:
            return f"{self.source}: {self._name(position)} is of image {image_id}, which was dropped"
        if isinstance(record, Mapping) and type(self.originals[position].get("id")) is not int:
            record = {key: value for key, value in record.items() if key != "id"}
        return fault_message(self.source, "annotation", position, record, fault, self._size(position))

    def _name(self, position: int) -> str:
        return name_record("annotation", position, self.originals[position])

    def _size(self, position: int) -> tuple[int, int]:
        """Return (H, W) of the image of an annotation; 0, 0 if it has none."""
        record = self.records[position]
        image_id = as_integer(record.get("image_id")) if isinstance(record, Mapping) else None
        if image_id is None:
            return 0, 0
        try:
            row = self.images.rows(np.array([image_id]))[0]
        except InvalidRecords:
            return 0, 0
        return int(self.images.height[row]), int(self.images.width[row])
