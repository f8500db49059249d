"""Hold the objects of a dataset as arrays, prepared once for any number of evaluations.

Rasterising the polygons is the larger half of an evaluation, and the ground truth is the same every time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from pais_bench.annotations.panoptic import things_alone

Record = dict[str, Any]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

AREA_CHUNK = 200
"""Masks per call of rle.area: pycocotools 2.0.11 puts their number into a byte."""


@dataclass(frozen=True)
class GroundTruth:
    """Hold the G objects of a dataset's images, sorted by group, which is category * I + image.

    images, categories: ids, sorted | annotations: the objects' COCO annotations | sizes: (height, width) by image id |
    group i64[G] | crowd bool[G] | area f64[G], as annotated. The ids of objects do not enter.
    """

    images: Ints
    categories: Ints
    annotations: Sequence[Record]
    sizes: dict[int, tuple[int, int]]
    group: Ints
    crowd: Bools
    area: Floats

    @staticmethod
    def of(content: Record, image_ids: Iterable[int] | None = None) -> GroundTruth:
        """Prepare the things of a COCO annotation file's content, which is neither checked nor changed."""
        content = things_alone(content)
        sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
        images = np.array(sorted(sizes if image_ids is None else set(image_ids)), dtype=np.int64)
        categories = np.array(sorted(category["id"] for category in content["categories"]), dtype=np.int64)
        annotations, group = group_records(content["annotations"], images, categories)
        order = np.argsort(group, kind="stable")
        annotations = [annotations[index] for index in order]
        crowd = np.array([bool(annotation.get("iscrowd", 0)) for annotation in annotations], dtype=bool)
        area = np.array([annotation["area"] for annotation in annotations], dtype=np.float64)
        return GroundTruth(images, categories, annotations, sizes, group[order], crowd, area)

    @cached_property
    def boxes(self) -> Floats:
        """Return the annotated boxes f64[G,4], x y width height."""
        return boxes(self.annotations)

    @cached_property
    def masks(self) -> list[Record]:
        """Return the masks as compressed RLEs, G of them."""
        masks: list[Record] = [{}] * len(self.annotations)
        image = np.array([annotation["image_id"] for annotation in self.annotations], dtype=np.int64)
        order = np.argsort(image, kind="stable")
        for objects in np.split(order, np.flatnonzero(np.diff(image[order])) + 1) if len(order) else []:
            segmentations = [self.annotations[index]["segmentation"] for index in objects]
            encoded = _encode(segmentations, *self.sizes[int(image[objects[0]])])
            for index, mask in zip(objects, encoded, strict=True):
                masks[index] = mask
        return masks

    @cached_property
    def mask_areas(self) -> Floats:
        """Return the number of pixels of every mask, f64[G]."""
        return mask_areas(self.masks)


def group_records(records: Sequence[Record], images: Ints, categories: Ints) -> tuple[list[Record], Ints]:
    """Return the records of these images and categories, and the group category * I + image of each."""
    image_index = {image: index for index, image in enumerate(images.tolist())}
    offset = {category: index * len(images) for index, category in enumerate(categories.tolist())}
    kept = [record for record in records if record["image_id"] in image_index and record["category_id"] in offset]
    group = [offset[record["category_id"]] + image_index[record["image_id"]] for record in kept]
    return kept, np.array(group, dtype=np.int64)


def boxes(records: Sequence[Record]) -> Floats:
    """Return the boxes f64[N,4] of records; that of the mask where a record has none."""
    rows = [record["bbox"] if "bbox" in record else rle.toBbox(record["segmentation"]).tolist() for record in records]
    return np.array(rows, dtype=np.float64).reshape(-1, 4)


def mask_areas(masks: Sequence[Record]) -> Floats:
    """Return the number of pixels of compressed RLEs, f64[N]."""
    chunks = [rle.area(list(masks[start : start + AREA_CHUNK])) for start in range(0, len(masks), AREA_CHUNK)]
    return np.concatenate(chunks).astype(np.float64) if chunks else np.zeros(0)


def _encode(segmentations: Sequence[Any], height: int, width: int) -> list[Record]:
    """Return compressed RLEs of polygons and RLEs; the polygons of all objects are rasterised in one call."""
    polygons = [polygon for mask in segmentations if isinstance(mask, list) for polygon in mask]
    rasterised = iter(rle.frPyObjects(polygons, height, width)) if polygons else iter(())
    encoded: list[Record] = []
    for mask in segmentations:
        if isinstance(mask, list):
            parts = [next(rasterised) for _ in mask]
            encoded.append(parts[0] if len(parts) == 1 else rle.merge(parts))
        else:
            encoded.append(rle.frPyObjects(mask, height, width) if isinstance(mask["counts"], list) else mask)
    return encoded
