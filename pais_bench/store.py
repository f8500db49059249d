"""What does a prepared dataset hold? COCO records of its parts, where their images lie, and what identifies them.

dataset.json holds the label, the classes, and of each part its image folder, its number of images and annotations, and
the sha256 of its records; train.json and val.json hold these in COCO instances format, images in the source's order.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pais_bench.types import BenchError

MANIFEST = "dataset.json"
PREPARE = "run `pais-bench prepare` for this dataset"
IMAGE_KEYS = ("id", "file_name", "height", "width")
ANNOTATION_KEYS = ("id", "image_id", "category_id", "iscrowd", "area", "bbox", "segmentation")
CATEGORY_KEYS = ("id", "name")

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """Hold the COCO records of one part; source is the file that a message about them names."""

    source: str
    folder: Path
    images: Sequence[Record]
    annotations: Sequence[Record]
    categories: Sequence[Record]


class Objects(NamedTuple):
    """Hold all annotations of a part as columns, in the order of its images: ids i64[n], crowd bool[n]."""

    image_id: np.ndarray
    category_id: np.ndarray
    crowd: np.ndarray


class Store:
    """Give the annotations of one part of a prepared dataset, and where its images lie; no image is opened.

    digest is the sha256 of the part's records | image_ids are in the order of the source file | categories are
    (id, name), sorted by id | label_of takes a category id to 0..C-1.
    """

    def __init__(self, folder: Path, digest: str, records: dict[str, Any]) -> None:
        """Index COCO records whose images lie in a folder."""
        self.digest = digest
        self._folder, self._records = folder, records
        self._images = {image["id"]: image for image in records["images"]}
        self._annotations: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for annotation in records["annotations"]:
            self._annotations[annotation["image_id"]].append(annotation)
        self.image_ids: tuple[int, ...] = tuple(self._images)
        self.categories: tuple[tuple[int, str], ...] = tuple((one["id"], one["name"]) for one in records["categories"])
        self.label_of: dict[int, int] = {number: label for label, (number, _) in enumerate(self.categories)}

    @staticmethod
    def open(folder: Path, part: str) -> Store:
        """Open part 'train' or 'val'; raise BenchError where it is not prepared, or was changed since."""
        entries = _read_entries(folder)
        if part not in entries:
            raise BenchError(f"{folder}: there is no part '{part}'; choose one of {', '.join(entries)}")
        images, digest = entries[part]
        path = folder / f"{part}.json"
        if not path.is_file():
            raise BenchError(f"{path}: the records of part '{part}' are missing; {PREPARE} again")
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != digest:
            raise BenchError(f"{path}: not the records that {MANIFEST} tells of; {PREPARE} again")
        return Store(folder / images, digest, json.loads(content))

    def path(self, image_id: int) -> Path:
        """Give the image's file."""
        return self._folder / str(self._images[image_id]["file_name"])

    def size(self, image_id: int) -> tuple[int, int]:
        """Give (height, width) in pixels."""
        image = self._images[image_id]
        return image["height"], image["width"]

    def annotations(self, image_id: int) -> list[dict[str, Any]]:
        """Give the COCO records of an image, crowds included.

        A mask may cover no pixel: COCO's train2017 has two boxes of height 0.
        """
        return list(self._annotations.get(image_id, ()))

    def objects(self) -> Objects:
        """Give what splits are drawn by, without the masks."""
        notes = [note for image_id in self.image_ids for note in self._annotations.get(image_id, ())]
        image, category, crowd = ([note[key] for note in notes] for key in ("image_id", "category_id", "iscrowd"))
        return Objects(np.array(image, dtype=np.int64), np.array(category, dtype=np.int64), np.array(crowd, dtype=bool))

    def coco_dict(self) -> dict[str, Any]:
        """Give all records as pycocotools takes them; it may add keys, the store keeps its own."""
        return {key: [dict(record) for record in records] for key, records in self._records.items()}


def write_store(folder: Path, label: str, parts: Mapping[str, Part]) -> None:
    """Validate and write the parts of a dataset, the manifest last.

    Raises BenchError that names the file and the id of the first wrong record, or two parts whose classes differ; then
    nothing is written.
    """
    valid = {name: _checked(part) for name, part in parts.items()}
    classes = _same_classes({part.source: valid[name]["categories"] for name, part in parts.items()})
    entries = {}
    for name, part in parts.items():
        content = json.dumps(valid[name], separators=(",", ":"))
        write_text(folder / f"{name}.json", content)
        entries[name] = {
            "folder": _relative(part.folder, folder),
            "images": len(part.images),
            "annotations": len(part.annotations),
            "sha256": hashlib.sha256(content.encode()).hexdigest(),
        }
    write_text(folder / MANIFEST, json.dumps({"label": label, "classes": classes, "parts": entries}, indent=2) + "\n")


def write_text(path: Path, content: str) -> None:
    """Write a file whole or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(content, encoding="utf-8")
    os.replace(partial, path)


def _read_entries(folder: Path) -> dict[str, tuple[str, str]]:
    """Give the image folder and the sha256 of every part in a manifest."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return {name: (entry["folder"], entry["sha256"]) for name, entry in manifest["parts"].items()}
    except FileNotFoundError as error:
        raise BenchError(f"{folder}: not a prepared dataset; {PREPARE} first") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BenchError(f"{folder / MANIFEST}: not the manifest of a dataset; {PREPARE} again") from error


def _relative(images: Path, folder: Path) -> str:
    """Give the image folder such that a prepared dataset that holds its images can be moved."""
    images, folder = images.resolve(), folder.resolve()
    return images.relative_to(folder).as_posix() if images.is_relative_to(folder) else images.as_posix()


def _same_classes(classes: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Give the classes that every source has."""
    (first, known), *others = classes.items()
    for source, found in others:
        if found != known:
            raise BenchError(f"{source}: its categories differ from those of {first}; give both the same ids and names")
    return known


def _checked(part: Part) -> dict[str, Any]:
    """Give a part's records, valid, with the keys that the format needs and no others; categories sorted by id."""
    categories = _by_id(part, part.categories, "category", CATEGORY_KEYS)
    images = _by_id(part, part.images, "image", IMAGE_KEYS)
    annotations = _by_id(part, part.annotations, "annotation", ANNOTATION_KEYS)
    for category in categories.values():
        if not isinstance(category["name"], str):
            raise _fault(part, "category", category["id"], f"has name {category['name']}", "give it a name in quotes")
    for image in images.values():
        _check_image(part, image)
    for annotation in annotations.values():
        _check_annotation(part, annotation, images, categories)
    return {
        "images": list(images.values()),
        "annotations": list(annotations.values()),
        "categories": sorted(categories.values(), key=lambda category: category["id"]),
    }


def _by_id(part: Part, records: Iterable[Record], noun: str, keys: Sequence[str]) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for position, record in enumerate(records):
        number = record.get("id") if isinstance(record, Mapping) else None
        if not isinstance(number, int):
            raise BenchError(f"{part.source}: {noun} number {position} of the list has no 'id'; give it an integer")
        missing = [key for key in keys if key not in record]
        if missing:
            raise _fault(part, noun, number, f"has no '{missing[0]}'", "add the key, as the COCO format has it")
        if number in found:
            raise _fault(part, noun, number, "is there twice", f"give every {noun} an id of its own")
        found[number] = {key: record[key] for key in keys}
    if not found and noun != "annotation":
        raise BenchError(f"{part.source}: it has no {noun}; give a file that has some")
    return found


def _check_image(part: Part, image: Record) -> None:
    size = (image["height"], image["width"])
    if not all(isinstance(side, int) and side > 0 for side in size):
        what = f"has height {size[0]} and width {size[1]}"
        raise _fault(part, "image", image["id"], what, "give the size of the file in whole pixels")
    if not isinstance(image["file_name"], str) or not image["file_name"]:
        raise _fault(part, "image", image["id"], "has an empty 'file_name'", "name its file in the image folder")


def _check_annotation(
    part: Part, record: Record, images: Mapping[int, Record], categories: Mapping[int, Record]
) -> None:
    number = record["id"]
    for key, known in (("image_id", images), ("category_id", categories)):
        if not isinstance(record[key], int) or record[key] not in known:
            what = f"has {key} {record[key]}, which the file does not list"
            raise _fault(part, "annotation", number, what, "remove the annotation, or add what it refers to")
    if record["iscrowd"] not in (0, 1):
        raise _fault(part, "annotation", number, f"has iscrowd {record['iscrowd']}", "give 0, or 1 for a crowd region")
    # A side of 0 passes: COCO's own train2017 has two, and a split of it must keep its identity.
    if not (_finite(record["bbox"], 4) and min(record["bbox"][2:]) >= 0):
        what = f"has bbox {record['bbox']}"
        raise _fault(part, "annotation", number, what, "give x, y, width, height in pixels, none negative or infinite")
    if not (_finite([record["area"]], 1) and record["area"] >= 0):
        raise _fault(part, "annotation", number, f"has area {record['area']}", "give the number of its pixels")
    image = images[record["image_id"]]
    _check_mask(part, number, record["segmentation"], [image["height"], image["width"]])


def _check_mask(part: Part, number: int, mask: Any, size: list[int]) -> None:
    if isinstance(mask, Mapping):
        if list(mask.get("size", ())) != size or not isinstance(mask.get("counts"), (str, list)):
            what = f"has an RLE of size {mask.get('size')} on an image of {size}"
            raise _fault(part, "annotation", number, what, "encode the mask at the image's height and width")
        if isinstance(mask["counts"], list) and not _covers(mask["counts"], size[0] * size[1]):
            what = f"has an RLE whose counts are not those of {size[0] * size[1]} pixels"
            raise _fault(part, "annotation", number, what, "encode the mask again")
    elif not isinstance(mask, list) or not mask:
        raise _fault(part, "annotation", number, "has no segmentation", "give polygons or an RLE, or remove it")
    elif not all(_is_polygon(points) for points in mask):
        what = "has a polygon with fewer than 3 points, or an odd or infinite coordinate"
        raise _fault(part, "annotation", number, what, "give x0, y0, x1, y1, x2, y2, ... in pixels")


def _covers(counts: Sequence[Any], pixels: int) -> bool:
    return all(isinstance(run, int) and run >= 0 for run in counts) and sum(counts) == pixels


def _is_polygon(points: Any) -> bool:
    return isinstance(points, list) and len(points) >= 6 and len(points) % 2 == 0 and _finite(points, len(points))


def _finite(values: Any, count: int) -> bool:
    try:
        return len(values) == count and all(map(math.isfinite, values))
    except TypeError:
        return False


def _fault(part: Part, noun: str, number: int, what: str, remedy: str) -> BenchError:
    return BenchError(f"{part.source}: {noun} {number} {what}; {remedy}")
