"""Divide one annotation file into a training and a validation set, by photo and so that every class is learnt.

Photos that are copies byte for byte, and those that one photo was augmented to, are on one side: Roboflow names these
PHOTO.rf.HASH.jpg. The order is that of the split family `stratified` with a fixed seed, of which the first 80 % train.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pais_bench.annotations.complete import as_integer
from pais_bench.annotations.store import Objects, ignore_progress
from pais_bench.annotations.validate import file_name
from pais_bench.errors import BenchError
from pais_bench.images.check import copies
from pais_bench.images.files import ImageFolder
from pais_bench.splits.draw import draw
from pais_bench.splits.family import ImagePool

TRAIN_PERCENT, SEED, LEAST_PHOTOS = 80, 1, 5
VARIANT = re.compile(r"\.rf\.[0-9A-Za-z]+(?=\.\w+$)")


def divide(content: Mapping[str, Any], source: Path, images: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the contents of the training and the validation file; all other keys are in both.

    Records without a valid image stay in the training file, where `prepare` reports them. Raises BenchError for a file
    of fewer than LEAST_PHOTOS photos, or with objects in too few.
    """
    photo = photos(content["images"], images)
    count = len(set(photo))
    if count < LEAST_PHOTOS:
        raise BenchError(f"{source}: {count} photos are too few to divide; add some, or give a validation file")
    ids = [_integer(image, "id") for image in content["images"]]
    photo_of = {image_id: number for image_id, number in zip(ids, photo, strict=True) if image_id is not None}
    objects = _objects(content["annotations"], photo_of)
    train = set(draw("stratified", ImagePool(range(count), str, lambda: objects), TRAIN_PERCENT, SEED).ids)
    evaluated = {image_id for image_id, number in photo_of.items() if number not in train}
    if len(objects.image_id) and np.isin(objects.image_id, list(train)).all():
        raise BenchError(f"{source}: so few photos have an object that none is left for validation; annotate more")
    parts: list[dict[str, Any]] = []
    for wanted in (False, True):
        lists = {
            "images": [image for image in content["images"] if (_integer(image, "id") in evaluated) == wanted],
            "annotations": [
                annotation
                for annotation in content["annotations"]
                if (_integer(annotation, "image_id") in evaluated) == wanted
            ],
        }
        parts.append({**content, **lists})
    return parts[0], parts[1]


def photos(records: list[Any], images: Path) -> list[int]:
    """Return of each image record the number of its photo, 0.. in the order of the records."""
    names = [file_name(record) for record in records]
    files = ImageFolder(images).find(names)
    keys: list[object] = [VARIANT.sub("", name) if name else row for row, name in enumerate(names)]
    rows: dict[Path, list[int]] = {}
    for row, file in enumerate(files):
        if file is not None:
            rows.setdefault(images / file, []).append(row)
    for group in copies({"": list(rows)}, ignore_progress):
        same = [row for _, path in group for row in rows[path]]
        joined = {keys[row] for row in same}
        keys = [keys[same[0]] if key in joined else key for key in keys]
    numbers: dict[object, int] = {}
    return [numbers.setdefault(key, len(numbers)) for key in keys]


def _objects(annotations: list[Any], photo_of: Mapping[int, int]) -> Objects:
    """Return the annotations of photos as a split family sees those of images, sorted by photo."""
    known = [
        (photo_of[image], category, _integer(annotation, "iscrowd") or 0)
        for annotation in annotations
        if (image := _integer(annotation, "image_id")) is not None
        and image in photo_of
        and (category := _integer(annotation, "category_id")) is not None
    ]
    columns = np.array(sorted(known), dtype=np.int64).reshape(-1, 3)
    return Objects(columns[:, 0], columns[:, 1], columns[:, 2] > 0)


def _integer(record: Any, key: str) -> int | None:
    return as_integer(record.get(key)) if isinstance(record, Mapping) else None
