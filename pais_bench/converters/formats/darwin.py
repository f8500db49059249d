"""Read the Darwin JSON 2.0 of V7, one file for each photo, whose masks are polygons.

A polygon of one path keeps its coordinates; of several paths, a pixel that an odd number of them has is of the object,
so that a path inside another is a hole. Boxes, ellipses, raster masks and all else are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pais_bench.annotations.complete import stated_size
from pais_bench.annotations.json_file import read_json_file
from pais_bench.annotations.rle import decode_mask
from pais_bench.converters.formats.base import ConverterBase, LeftOut, Object, Photo, mask_of, photo_size
from pais_bench.converters.shapes import are_points, flat
from pais_bench.errors import BenchError
from pais_bench.images.files import files_with, role_of
from pais_bench.images.pixels import Size

WORDS = (b'"item"', b'"slots"', b'"annotations"')
OTHERS = "shapes of V7 that are no polygons"


class Converter(ConverterBase):
    """Read the JSON files below a folder; one without an annotation is not labelled, and is left out with a note."""

    @staticmethod
    def is_format(folder: Path) -> bool:
        """Return whether a JSON file has an item with slots."""
        return any(files_with(folder, ".json", *WORDS))

    def subsets(self) -> Mapping[str, Sequence[Path]]:
        """Return the JSON files by subset."""
        found: dict[str, list[Path]] = {}
        unlabelled = 0
        for path in files_with(self.folder, ".json", *WORDS):
            if _content(path)["annotations"]:
                found.setdefault(role_of(path.relative_to(self.folder).parent), []).append(path)
            else:
                unlabelled += 1
        if unlabelled:
            self.notes.append(f"left out: {unlabelled} photos without an annotation")
        return found

    def read(self, item: Path) -> Photo:
        """Read the annotations of a photo; those that are no polygons are left out."""
        content = _content(item)
        (slot,) = content["item"]["slots"]
        folder, name = str(content["item"].get("path") or "").strip("/"), content["item"].get("name")
        photo = self.find_photo(item, f"{folder}/{name}".lstrip("/"))
        size = photo_size(photo, item, stated_size(slot.get("height"), slot.get("width")))
        objects, left_out = [], []
        for position, annotation in enumerate(content["annotations"]):
            place = f"{item}: annotation {position + 1}"
            if (
                not isinstance(annotation, dict)
                or not isinstance(annotation.get("name"), str)
                or not annotation["name"]
            ):
                raise BenchError(f"{place}: has no name; give it a class in V7")
            if "polygon" in annotation:
                objects.append(Object(annotation["name"], _polygon(annotation["polygon"], size, place)))
            else:
                left_out.append(LeftOut(OTHERS, place))
        return Photo(photo, size, objects, left_out, place=str(item))


def _content(path: Path) -> Any:
    """Return a file of one image; raise BenchError for a video, or several images."""
    content = read_json_file(path)
    item = content.get("item") if isinstance(content, dict) else None
    slots = item.get("slots") if isinstance(item, dict) else None
    if not isinstance(slots, list) or not isinstance(content.get("annotations"), list):
        raise BenchError(f"{path}: has no item with slots, or no annotations; export it as Darwin JSON 2.0 again")
    if len(slots) != 1 or not isinstance(slots[0], dict) or slots[0].get("type", "image") != "image":
        raise BenchError(f"{path}: of a video, or of several images; export single images from V7")
    return content


def _polygon(polygon: Any, size: Size, place: str) -> Any:
    paths = polygon.get("paths") if isinstance(polygon, dict) else None
    if isinstance(paths, list) and paths and all(isinstance(path, list) for path in paths):
        pairs: list[Any] = [
            [[point.get("x"), point.get("y")] for point in path if isinstance(point, dict)] for path in paths
        ]
        if all(len(path) > 2 and are_points(path) for path in pairs):
            if len(pairs) == 1:
                return [flat(pairs[0])]
            masks = [decode_mask([flat(path)], size) for path in pairs]
            return mask_of(np.logical_xor.reduce(masks))
    raise BenchError(f"{place}: a polygon without three points, or without their x, y; draw it again in V7")
