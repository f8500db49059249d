"""Join COCO files of one subset, of which annotation tools export one a task."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pais_bench.annotations.complete import as_integer
from pais_bench.errors import BenchError


def join_files(contents: Mapping[Path, Mapping[str, Any]]) -> tuple[dict[str, Any], list[str]]:
    """Return the three lists of several COCO files as those of one, and what is to be said about it, a line each.

    Images and annotations are numbered anew; classes are one by name, and keep their ids where these are free. A photo
    that several files have with the same objects is taken once. Raises BenchError where its objects differ, and for
    records without an id, or with one that names nothing.
    """
    classes: dict[str, dict[str, Any]] = {}
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    known: dict[Any, tuple[Path, list[str]]] = {}
    repeated: list[str] = []
    for path, content in contents.items():
        names = _add_classes(path, content["categories"], classes)
        objects = _objects_of_images(path, content, names)
        for image in content["images"]:
            own = objects[_id(path, "image", image)]
            described = sorted(json.dumps([name, a.get("segmentation"), a.get("iscrowd", 0)]) for name, a in own)
            first, same = known.setdefault(image.get("file_name"), (path, described))
            if first != path:
                if same != described:
                    raise BenchError(
                        f"{path}: labels {image['file_name']} differently than {first} does; leave one of the two "
                        f"files, or name them by train, val and test"
                    )
                repeated.append(str(image["file_name"]))
                continue
            images.append({**image, "id": len(images) + 1})
            for name, annotation in own:
                identity = {"id": len(annotations) + 1, "image_id": len(images), "category_id": classes[name]["id"]}
                annotations.append({**annotation, **identity})
    lines = [f"joined: {len(contents)} files of one subset, {', '.join(map(str, contents))}"]
    if repeated:
        lines.append(f"{len(repeated)} photos are in several of them with the same objects, the first: {repeated[0]}")
    return {"images": images, "annotations": annotations, "categories": list(classes.values())}, lines


def _add_classes(path: Path, records: Sequence[Any], classes: dict[str, dict[str, Any]]) -> dict[int, str]:
    """Add the classes of a file that are new by name, and return the names of all of its by id."""
    names: dict[int, str] = {}
    for record in records:
        number, name = _id(path, "category", record), record.get("name")
        if not isinstance(name, str):
            raise BenchError(f"{path}: category {number} has no name; name it")
        names[number] = name
        taken = {category["id"] for category in classes.values()}
        if name not in classes:
            classes[name] = {**record, "id": max(taken) + 1 if number in taken else number}
    return names


def _objects_of_images(
    path: Path, content: Mapping[str, Any], names: Mapping[int, str]
) -> defaultdict[int, list[tuple[str, dict[str, Any]]]]:
    """Return the annotations of every image id, each with the name of its class."""
    numbers = {_id(path, "image", image) for image in content["images"]}
    found: defaultdict[int, list[tuple[str, dict[str, Any]]]] = defaultdict(list)
    for position, annotation in enumerate(content["annotations"]):
        image, category = as_integer(annotation.get("image_id")), as_integer(annotation.get("category_id"))
        if image is None or image not in numbers or category is None or category not in names:
            raise BenchError(f"{path}: annotation {position} is of no image or category of this file; remove it")
        found[image].append((names[category], annotation))
    return found


def _id(path: Path, noun: str, record: Mapping[str, Hashable]) -> int:
    number = as_integer(record.get("id"))
    if number is None:
        raise BenchError(f"{path}: {noun} {record.get('id')!r} has no integer as its id; number the {noun} records")
    return number
