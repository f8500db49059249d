"""Read Label Studio's own JSON: polygons, ellipses, brush masks and bitmasks of each task.

Coordinates are percents of the width and height that the tool saw. Brush masks keep the pixels whose opacity is above
one half. A task whose annotation is empty is a photo without an object; one without an annotation, or that was skipped,
is not labelled, and is left out with a note. Boxes and points have no mask, and are left out, as are regions of kinds
that are not known.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np

from pais_bench.annotations.complete import stated_size
from pais_bench.annotations.json_file import read_json_file
from pais_bench.converters.coco_dialects import PREFIX
from pais_bench.converters.formats.base import ConverterBase, LeftOut, MissingPhoto, Object, Photo, mask_of, photo_size
from pais_bench.converters.shapes import are_points, ellipse, flat, read_png
from pais_bench.errors import BenchError
from pais_bench.images.files import files_with, image_suffixes, role_of
from pais_bench.images.pixels import Size

WORDS = (b'"annotations"', b'"result"', b'"data"', b'"to_name"')
AREAS = ("polygon", "ellipse", "brush", "bitmask")
WITHOUT_MASK = {"rectangle": "boxes, which have no mask", "keypoint": "points, which are no areas"}
"""Regions that are left out, in the plural."""
STORED = "?d="
"""What the path of a photo in a local storage follows."""


class Entry(NamedTuple):
    """Hold a JSON file, the data of a task in it, what is drawn on its photo, and where that is listed."""

    file: Path
    data: Any
    results: Sequence[Any]
    place: str


class Converter(ConverterBase):
    """Read the exports in the format JSON below a folder."""

    @staticmethod
    def is_format(folder: Path) -> bool:
        """Return whether a JSON file has results of Label Studio."""
        return any(files_with(folder, ".json", *WORDS))

    def subsets(self) -> Mapping[str, Sequence[Entry]]:
        """Return the photos by subset, which the path of their file names; raise BenchError for two annotations."""
        found: dict[str, list[Entry]] = {}
        unlabelled = 0
        for path in files_with(self.folder, ".json", *WORDS):
            for task in _tasks(path):
                place = f"{path}: task {task.get('id')}"
                finished = [
                    annotation
                    for annotation in task["annotations"]
                    if isinstance(annotation, dict) and not annotation.get("was_cancelled")
                ]
                if len(finished) > 1:
                    raise BenchError(f"{place}: has {len(finished)} annotations; leave the one that counts")
                if finished:
                    entry = Entry(path, task.get("data"), finished[0].get("result") or [], place)
                    found.setdefault(role_of(path.relative_to(self.folder)), []).append(entry)
                else:
                    unlabelled += 1
        if unlabelled:
            self.notes.append(f"left out: {unlabelled} tasks without an annotation")
        return found

    def read(self, item: Entry) -> Photo:
        """Read the regions of a task; those without a mask are left out."""
        photo = self._photo_of(item)
        size = _size(item, photo)
        labels = {str(result.get("id")): names for result in item.results if (names := _labels(result))}
        objects, left_out = [], []
        for position, result in enumerate(item.results, start=1):
            kind, place = str(result.get("type")).removesuffix("labels"), f"{item.place}: result {position}"
            if kind in WITHOUT_MASK:
                left_out.append(LeftOut(WITHOUT_MASK[kind], place))
            elif kind in AREAS:
                names = labels.get(str(result.get("id")), [])
                if len(names) != 1:
                    raise BenchError(f"{place}: its labels are {', '.join(names) or 'none'}; give it one")
                objects.append(Object(names[0], _segmentation(kind, result.get("value", {}), size, place)))
            elif kind and _labels(result):  # a result of the type labels names those of a region
                left_out.append(LeftOut(f"regions of the unknown type {kind}", place))
        return Photo(photo, size, objects, left_out, place=item.place)

    def _photo_of(self, item: Entry) -> Path:
        """Return the photo of a task: as find_photo does, also without what an upload puts in front of its name."""
        name = _name(item.data, item.place)
        bare = PREFIX.sub("", Path(name).name, count=1)
        try:
            return self.find_photo(item.file, name)
        except MissingPhoto:
            if bare == Path(name).name:
                raise
        return self.find_photo(item.file, bare)


def _tasks(path: Path) -> list[dict[str, Any]]:
    """Return the tasks of a file; raise BenchError for other content."""
    tasks = read_json_file(path)
    if not isinstance(tasks, list) or not all(
        isinstance(task, dict) and isinstance(task.get("annotations"), list) for task in tasks
    ):
        raise BenchError(f"{path}: no list of tasks with annotations; export it from Label Studio as JSON again")
    return tasks


def _name(data: Any, place: str) -> str:
    """Return the path of a photo in the data of its task: of the key image, or the one that may be one."""
    texts = {key: value for key, value in data.items() if isinstance(value, str)} if isinstance(data, dict) else {}
    names = {key: unquote(value.rpartition(STORED)[2]) for key, value in texts.items()}
    pictures = {key: name for key, name in names.items() if _suffix(name) in image_suffixes()}
    found = [names["image"]] if "image" in names else list((pictures or names).values())
    if len(found) != 1:
        keys = f"may name its photo by {' or '.join(pictures or names)}" if found else "name no photo"
        raise BenchError(f"{place}: its data {keys}; name the key of the photo 'image' in this file")
    return found[0]


def _suffix(name: str) -> str:
    return PurePosixPath(name.partition("?")[0]).suffix.lower()  # an address may have a signature


def _labels(result: Any) -> list[str]:
    """Return the labels of a result: of a region, or of one that names the labels of a region of the same id."""
    value = result.get("value") if isinstance(result, dict) else None
    lists = [names for key, names in value.items() if key.endswith("labels")] if isinstance(value, dict) else []
    return [name for names in lists if isinstance(names, list) for name in names if isinstance(name, str)]


def _size(item: Entry, photo: Path) -> Size:
    """Return the (H, W) of a photo; raise BenchError where the tool saw another size, or turned it."""
    size = None
    for number, result in enumerate(item.results, start=1):
        if not isinstance(result, dict) or not isinstance(result.get("value", {}), dict):
            raise BenchError(f"{item.place}: result {number}: is no region; export it from Label Studio as JSON again")
        if result.get("image_rotation"):
            raise BenchError(f"{item.place}: result {number}: drawn on a photo that was turned; turn the file instead")
        size = stated_size(result.get("original_height"), result.get("original_width")) or size
    return photo_size(photo, Path(item.place), size)


def _segmentation(kind: str, value: Mapping[str, Any], size: Size, place: str) -> Any:
    """Return a region as polygons, or as RLE; raise BenchError for a faulty one."""
    across, down = size[1] / 100, size[0] / 100
    try:
        if kind == "polygon":
            points = value["points"]
            if are_points(points) and len(points) > 2:
                return [flat([(x * across, y * down) for x, y in points])]
        elif kind == "ellipse":
            radii = value["radiusX"] * across, value["radiusY"] * down
            return ellipse((value["x"] * across, value["y"] * down), radii, value.get("rotation") or 0, size)
        elif kind == "bitmask":
            png = base64.b64decode(value["imageDataURL"].rpartition(",")[2], validate=True)
            if (mask := read_png(png, place)).shape == size:
                return mask_of(mask)
        else:
            return mask_of(_unpack(value["rle"], 4 * size[0] * size[1])[3::4].reshape(size) > 127)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        pass
    raise BenchError(
        f"{place}: a {kind} without its numbers, or of another size; draw it as a polygon of three points or more"
    )


def _unpack(packed: Sequence[int], count: int) -> np.ndarray:
    """Return the bytes u8[count], red, green, blue and opacity of each pixel, of a brush.

    Bits of the count (32), of the length of a value (5) and of four lengths of run lengths (4 each), all lengths less
    one; then runs: whether it repeats one value (1), which length its length has (2), its length less one, and its
    values. Raises ValueError for other bits.
    """
    bits, position = "".join(f"{byte:08b}" for byte in packed), 0

    def read(length: int) -> int:
        nonlocal position
        position += length
        return int(bits[position - length : position], 2)

    if read(32) != count:
        raise ValueError("another number of pixels")
    word = read(5) + 1
    lengths = [read(4) + 1 for _ in range(4)]
    values, done = np.empty(count, dtype=np.uint8), 0
    while done < count:
        repeats = read(1)
        end = done + read(lengths[read(2)]) + 1
        values[done:end] = read(word) if repeats else [read(word) for _ in range(end - done)]
        done = end
    return values
