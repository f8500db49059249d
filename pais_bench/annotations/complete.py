"""Complete COCO records as other tools write them: what follows from the rest is filled in, other spellings are read.

Only a form with a single meaning is accepted, and a note counts its records. What needs a decision stays as it is, and
is reported as a fault.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, TypeGuard

import numpy as np
from pycocotools import mask as rle

from pais_bench.annotations.rle import compress
from pais_bench.annotations.rle_columns import IntArray
from pais_bench.annotations.validate import name_record

FORMS = {
    "integer": "an integer as text or with a fraction of 0, which is read as the integer",
    "iscrowd": "no 'iscrowd', which is taken as 0",
    "area": "no 'area', which is taken from the mask",
    "bbox": "no 'bbox', which is taken from the mask",
    "id": "no integer as 'id', which are numbered",
    "repeated id": "the id of an earlier and different annotation, which are numbered anew",
    "flat polygon": "a polygon outside of a list of polygons, which is put into one",
    "pairs": "polygons of [x, y] pairs, which are read as x, y, x, y, ...",
    "nested polygon": "a list of polygons inside of another list, which is removed",
    "text": "numbers as text, which are read as numbers",
}
"""The forms of records that are accepted with a note, in its words."""
UNMEASURED: dict[str, Any] = {"area": 0.0, "bbox": [0.0, 0.0, 0.0, 0.0]}
"""What stands for a missing value until the mask is known to be valid."""
INTEGERS = {
    "image": ("id", "height", "width"),
    "annotation": ("image_id", "category_id", "iscrowd"),
    "category": ("id",),
}


class Notes:
    """Count the records of every form that was accepted, and remember the first of each."""

    def __init__(self, source: str, noun: str) -> None:
        """Start with none; source is the file, noun is image, annotation or category."""
        self.source, self.noun = source, noun
        self._found: dict[str, tuple[int, str]] = {}

    def add(self, form: str, position: int, record: Mapping[str, Any]) -> None:
        """Count a record, which has a position in the source's list."""
        count, first = self._found.get(form, (0, ""))
        self._found[form] = count + 1, first or name_record(self.noun, position, record)

    def lines(self) -> list[str]:
        """Return a line per form, which names the file."""
        plural = {"category": "categories"}.get(self.noun, f"{self.noun}s")
        return [
            f"{self.source}: {count} {self.noun if count == 1 else plural} with {FORMS[form]}; the first: {first}"
            for form, (count, first) in self._found.items()
        ]


def complete_integers(records: Sequence[Any], noun: str, notes: Notes) -> list[Any]:
    """Return records of images, annotations or categories with integers where they have one in another spelling."""
    completed = list(records)
    for position, record in enumerate(records):
        if isinstance(record, Mapping):
            found = {key: as_integer(record[key]) for key in INTEGERS[noun] if type(record.get(key)) in (str, float)}
            if changed := {key: value for key, value in found.items() if value is not None}:
                completed[position] = {**record, **changed}
                notes.add("integer", position, completed[position])
    return completed


def complete_annotations(records: Sequence[Any], notes: Notes) -> tuple[list[Any], dict[int, list[str]]]:
    """Return annotations with what they miss, and the keys, by position, that have to be measured in the mask."""
    completed = complete_integers(records, "annotation", notes)
    unmeasured: dict[int, list[str]] = {}
    used = {record["id"] for record in completed if isinstance(record, Mapping) and _is_id(record.get("id"))}
    numbers = unused_ids(used)
    for position, record in enumerate(completed):
        if not isinstance(record, Mapping):
            continue
        changed = dict(record)
        forms: list[str] = []
        if isinstance(mask := record.get("segmentation"), list) and mask:
            changed["segmentation"], forms = _complete_polygons(mask)
        if record.get("iscrowd") is None:
            changed["iscrowd"] = 0
            forms.append("iscrowd")
        for key, placeholder in UNMEASURED.items():
            if record.get(key) is None:
                changed[key] = placeholder
                unmeasured.setdefault(position, []).append(key)
                forms.append(key)
            elif (value := _read_texts(record[key], depth=1)) is not record[key] and value != record[key]:
                changed[key] = value
                forms.append("text")
        if not _is_id(record.get("id")):
            changed["id"] = next(numbers)
            forms.append("id")
        if forms:
            completed[position] = changed
            for form in dict.fromkeys(forms):
                notes.add(form, position, record)
    return completed, unmeasured


def fill_from_mask(record: Mapping[str, Any], keys: Collection[str], size: tuple[int, int]) -> dict[str, Any]:
    """Return a record whose area (px), bbox (x y width height px) or both are those of its valid mask; size is (H, W).

    keys are what is filled in.
    """
    mask = compress(record["segmentation"], size)
    values = {"area": float(rle.area(mask)), "bbox": rle.toBbox(mask).tolist()}
    return {**record, **{key: values[key] for key in keys}}


def unused_ids(used: Collection[int]) -> Iterator[int]:
    """Yield the positive integers that are not used, from 1 on."""
    return (number for number in itertools.count(1) if number not in used)


def find_repeated(ids: IntArray, records: Sequence[str]) -> tuple[list[int], list[int]]:
    """Return the positions of repeated ids: those whose record equals an earlier one of this id, and all others."""
    order = np.argsort(ids, kind="stable")
    repeated = ids[order][1:] == ids[order][:-1]
    earlier: dict[int, set[str]] = {}
    equal, different = [], []
    involved = np.zeros(len(ids), dtype=bool)
    involved[order[1:][repeated]] = involved[order[:-1][repeated]] = True
    for position in np.flatnonzero(involved).tolist():
        known = earlier.setdefault(int(ids[position]), set())
        if records[position] in known:
            equal.append(position)
        elif known:
            different.append(position)
        known.add(records[position])
    return equal, different


def as_integer(value: object) -> int | None:
    """Return the integer that a number or its text is; None for a fraction, a boolean, or more than 64 bits."""
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= 2**53 else None
    number = int(value) if isinstance(value, str) and re.fullmatch(r"-?[0-9]{1,19}", value) else value
    return number if _is_id(number) else None


def stated_size(height: object, width: object) -> tuple[int, int] | None:
    """Return (H, W) of two numbers or their texts; None where one is no integer, or 0."""
    sides = as_integer(height), as_integer(width)
    return (sides[0], sides[1]) if sides[0] and sides[1] else None


def _is_id(value: object) -> TypeGuard[int]:
    return type(value) is int and -(2**63) <= value < 2**63


def _read_texts(value: Any, depth: int = 3) -> Any:
    """Return a value with finite numbers in place of their texts, also in lists nested up to `depth` levels."""
    if isinstance(value, list):
        return [_read_texts(entry, depth - 1) for entry in value] if depth else value
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return value
    return number if math.isfinite(number) else value


def _complete_polygons(mask: list[Any]) -> tuple[list[Any], list[str]]:
    """Return polygons as the list of lists that COCO has, and the forms that they had."""
    read = _read_texts(mask)
    forms = ["text"] if read != mask else []
    if all(type(value) in (int, float) for value in read):
        return ([read], [*forms, "flat polygon"]) if len(read) >= 6 else (read, forms)
    if _are_pairs(read):
        return [list(itertools.chain.from_iterable(read))], [*forms, "pairs"]
    if all(isinstance(part, list) and part and all(isinstance(inner, list) for inner in part) for part in read):
        if all(map(_are_pairs, read)):
            return [list(itertools.chain.from_iterable(part)) for part in read], [*forms, "pairs"]
        if all(len(inner) >= 6 for part in read for inner in part):
            return list(itertools.chain.from_iterable(read)), [*forms, "nested polygon"]
    return read, forms


def _are_pairs(points: Any) -> bool:
    """Return whether a list holds at least three [x, y] pairs of numbers."""
    return len(points) >= 3 and all(
        isinstance(point, list) and len(point) == 2 and all(type(value) in (int, float) for value in point)
        for point in points
    )
