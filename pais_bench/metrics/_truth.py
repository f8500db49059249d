"""What has to be found? The objects of a data set as arrays, prepared once for any number of evaluations.

Drawing the polygons is the larger half of an evaluation, and the truth is the same every time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

Record = dict[str, Any]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

AT_ONCE = 200
"""Masks whose areas are asked for at a time: pycocotools 2.0.11 puts their number into a byte."""


@dataclass(frozen=True)
class Truth:
    """Hold the G objects of a data set's images, sorted by group, which is category * I + image.

    images, categories: ids, sorted | notes: their COCO annotations | sizes: (height, width) by image id | group i64[G]
    | crowd bool[G] | area f64[G], as annotated | real bool[G]: COCOeval marks a match by the id of the object, so an
    object of id 0 is found by nobody.
    """

    images: Ints
    categories: Ints
    notes: Sequence[Record]
    sizes: dict[int, tuple[int, int]]
    group: Ints
    crowd: Bools
    area: Floats
    real: Bools

    @staticmethod
    def of(truth: Record, image_ids: Iterable[int] | None = None) -> Truth:
        """Take the content of a COCO annotation file, which is neither checked nor changed."""
        sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
        images = np.array(sorted(sizes if image_ids is None else set(image_ids)), dtype=np.int64)
        categories = np.array(sorted(category["id"] for category in truth["categories"]), dtype=np.int64)
        notes, group = grouped(truth["annotations"], images, categories)
        order = np.argsort(group, kind="stable")
        notes = [notes[index] for index in order]
        crowd = np.array([bool(note.get("iscrowd", 0)) for note in notes], dtype=bool)
        area = np.array([note["area"] for note in notes], dtype=np.float64)
        real = np.array([note["id"] != 0 for note in notes], dtype=bool)
        return Truth(images, categories, notes, sizes, group[order], crowd, area, real)

    @cached_property
    def boxes(self) -> Floats:
        """Give the annotated boxes f64[G,4], x y width height."""
        return boxes(self.notes)

    @cached_property
    def masks(self) -> list[Record]:
        """Give the masks as compressed RLEs, G of them."""
        found: list[Record] = [{}] * len(self.notes)
        image = np.array([note["image_id"] for note in self.notes], dtype=np.int64)
        order = np.argsort(image, kind="stable")
        for here in np.split(order, np.flatnonzero(np.diff(image[order])) + 1) if len(order) else []:
            size = self.sizes[int(image[here[0]])]
            for index, mask in zip(
                here, _encode([self.notes[index]["segmentation"] for index in here], *size), strict=True
            ):
                found[index] = mask
        return found

    @cached_property
    def pixels(self) -> Floats:
        """Give the number of pixels of every mask, f64[G]."""
        return pixels(self.masks)


def grouped(records: Sequence[Record], images: Ints, categories: Ints) -> tuple[list[Record], Ints]:
    """Keep the records of these images and categories; give the number category * I + image of each."""
    place = {image: position for position, image in enumerate(images.tolist())}
    base = {category: position * len(images) for position, category in enumerate(categories.tolist())}
    kept = [one for one in records if one["image_id"] in place and one["category_id"] in base]
    return kept, np.array([base[one["category_id"]] + place[one["image_id"]] for one in kept], dtype=np.int64)


def boxes(records: Sequence[Record]) -> Floats:
    """Give the boxes f64[N,4] of records; that of the mask where a record has none."""
    found = [one["bbox"] if "bbox" in one else rle.toBbox(one["segmentation"]).tolist() for one in records]
    return np.array(found, dtype=np.float64).reshape(-1, 4)


def pixels(masks: Sequence[Record]) -> Floats:
    """Give the number of pixels of compressed RLEs, f64[N]."""
    parts = [rle.area(list(masks[start : start + AT_ONCE])) for start in range(0, len(masks), AT_ONCE)]
    return np.concatenate(parts).astype(np.float64) if parts else np.zeros(0)


def _encode(masks: Sequence[Any], height: int, width: int) -> list[Record]:
    """Give compressed RLEs of polygons and RLEs; the polygons of all objects in one call."""
    polygons = [points for mask in masks if isinstance(mask, list) for points in mask]
    drawn = iter(rle.frPyObjects(polygons, height, width)) if polygons else iter(())
    result: list[Record] = []
    for mask in masks:
        if isinstance(mask, list):
            parts = [next(drawn) for _ in mask]
            result.append(parts[0] if len(parts) == 1 else rle.merge(parts))
        else:
            result.append(rle.frPyObjects(mask, height, width) if isinstance(mask["counts"], list) else mask)
    return result
