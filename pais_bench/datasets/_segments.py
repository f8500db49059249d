"""Read the segments of a panoptic file and its PNGs as annotations: one for each thing, and one for each stuff class.

A record of the file's list has image_id, file_name, the PNG's, and segments_info: id, category_id and maybe iscrowd of
every segment. Box and area are those of the pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from pais_bench.annotations.ingest import ingest
from pais_bench.annotations.panoptic import MAX_SEGMENT, is_thing, read_map
from pais_bench.annotations.store import ProgressCallback, Subset
from pais_bench.annotations.validate import abbreviate
from pais_bench.datasets._regions import encode_regions
from pais_bench.errors import BenchError
from pais_bench.images.check import in_threads

MEASURED = ("id", "bbox", "area")
"""Keys of a segment that an annotation has in another meaning, or from its pixels."""


class _Image(NamedTuple):
    """Hold the segments of an image by id, and those that another one of their stuff class takes in, with its id."""

    image_id: int
    size: tuple[int, int]
    path: Path
    segments: dict[int, Mapping[str, Any]]
    joined: dict[int, int]


def read_segments(subset: Subset, folder: Path, progress: ProgressCallback) -> Subset:
    """Return a subset of a panoptic file with annotations in place of its records; folder holds the PNGs.

    An annotation keeps its segment's id as segment_id. Several segments of one stuff class in an image become one.
    Raises BenchError that names the file and the image of the first fault.
    """
    if not folder.is_dir():
        raise BenchError(f"{folder}: no such folder of segments; put the PNGs there, or name it in dataset.options")
    ingest(replace(subset, annotations=()))  # reports wrong images and categories
    images = _images(subset, folder)
    source = subset.source
    read = in_threads(lambda image: _read_image(image, source), images, str(folder), progress)
    records = [
        {"image_id": image.image_id, **record} for image, found in zip(images, read, strict=True) for record in found
    ]
    notes = list(subset.notes)
    if joined := [image for image in images if image.joined]:
        count = sum(len(image.joined) for image in joined)
        notes.append(
            f"{source}: {count} segments of a stuff class that their image has already, which are joined with that "
            f"one; the first: image {joined[0].image_id}"
        )
    return replace(subset, annotations=[{"id": k, **record} for k, record in enumerate(records, 1)], notes=notes)


def _images(subset: Subset, folder: Path) -> list[_Image]:
    """Return the images in the order of the file; raise BenchError unless each has one record of the format."""
    things = {category["id"]: is_thing(category) for category in subset.categories}
    records: dict[int, Mapping[str, Any]] = {}
    ids = {image["id"] for image in subset.images}
    for position, record in enumerate(subset.annotations):
        if not isinstance(record, Mapping) or type(record.get("image_id")) is not int:
            raise BenchError(
                f"{subset.source}: annotation number {position} of the list has no integer as image_id; give the id of "
                f"its image"
            )
        image_id = record["image_id"]
        if image_id not in ids or image_id in records:
            problem = "of another annotation too" if image_id in records else "which the file does not list"
            remedy = "remove one of the two" if image_id in records else "remove the annotation, or add the image"
            raise BenchError(
                f"{subset.source}: annotation number {position} of the list is of image {image_id}, {problem}; {remedy}"
            )
        if not isinstance(record.get("file_name"), str) or not isinstance(record.get("segments_info"), list):
            raise BenchError(
                f"{subset.source}: the annotation of image {image_id} lacks file_name, the name of its PNG, or "
                f"segments_info, the list of its segments; COCO's panoptic format has both"
            )
        records[image_id] = record
    images = []
    for image in subset.images:
        if (number := image["id"]) not in records:
            raise BenchError(
                f"{subset.source}: image {number} has no annotation; add its segments, or remove the image"
            )
        segments = _segments(subset.source, number, records[number]["segments_info"], things)
        path = folder / records[number]["file_name"]
        images.append(_Image(number, (image["height"], image["width"]), path, segments, _joined(segments, things)))
    return images


def _segments(source: str, image_id: int, found: list[Any], things: Mapping[int, bool]) -> dict[int, Mapping[str, Any]]:
    """Return the segments of an image by id; raise BenchError for one that is none."""
    segments: dict[int, Mapping[str, Any]] = {}
    for position, segment in enumerate(found):
        values = segment if isinstance(segment, Mapping) else {}
        number, category, crowd = values.get("id"), values.get("category_id"), values.get("iscrowd", 0)
        if type(number) is not int or not 0 < number <= MAX_SEGMENT:
            problem = f"number {position} of the list has the id {abbreviate(number)}; give R + 256 G + 65536 B"
        elif number in segments:
            problem = f"{number} is there twice; give every segment a colour and an id of its own"
        elif type(category) is not int or category not in things:
            problem = (
                f"{number} has category_id {abbreviate(category)}, which the file does not list; give a category's"
            )
        elif type(crowd) is not int or crowd not in (0, 1):
            problem = f"{number} has iscrowd {abbreviate(crowd)}; give 0, or 1 for a crowd region"
        else:
            segments[number] = segment
            continue
        raise BenchError(f"{source}: image {image_id}: segment {problem}")
    return segments


def _joined(segments: Mapping[int, Mapping[str, Any]], things: Mapping[int, bool]) -> dict[int, int]:
    """Return the segments whose stuff class an earlier one of the image has, each with the id of that one."""
    first: dict[tuple[int, int], int] = {}
    joined = {}
    for number, segment in segments.items():
        if not things[segment["category_id"]]:
            earlier = first.setdefault((segment["category_id"], segment.get("iscrowd", 0)), number)
            if earlier != number:
                joined[number] = earlier
    return joined


def _read_image(image: _Image, source: str) -> list[dict[str, Any]]:
    """Return the annotations of an image, without ids; raise BenchError where PNG and segments differ."""
    values = read_map(image.path, image.size, image.image_id)
    regions = dict(encode_regions(values))
    if unknown := regions.keys() - image.segments.keys():
        raise BenchError(
            f"{image.path}: image {image.image_id} has the colour {_colour(min(unknown))}, and {source} has no segment "
            f"{min(unknown)} for it; add it to segments_info, or paint it black, which is void"
        )
    if absent := image.segments.keys() - regions.keys():
        raise BenchError(
            f"{image.path}: image {image.image_id} has no pixel of the colour {_colour(min(absent))}, which is segment "
            f"{min(absent)} of {source}; paint it, or remove it from segments_info"
        )
    for number, first in image.joined.items():
        values[values == number] = first
    if image.joined:
        regions = dict(encode_regions(values))
    return [
        {"iscrowd": 0, **_without_measured(image.segments[number]), "segment_id": number, **region}
        for number, region in regions.items()
    ]


def _without_measured(segment: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in segment.items() if key not in MEASURED}


def _colour(segment: int) -> str:
    return f"({segment & 255}, {segment >> 8 & 255}, {segment >> 16})"
