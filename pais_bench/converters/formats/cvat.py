"""Read the XML of `CVAT for images`: polygons, masks and ellipses of each image.

Polygons keep their coordinates, masks every pixel. Shapes of one label and one group are one object. Boxes, points and
lines have no mask, and are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree
from xml.etree.ElementTree import Element

import numpy as np

from pais_bench.converters.formats.base import ConverterBase, LeftOut, Object, Photo, photo_size
from pais_bench.converters.shapes import are_points, ellipse, flat, join_parts, paste
from pais_bench.errors import BenchError
from pais_bench.images.files import files_with, role_of
from pais_bench.images.pixels import Size

WORDS = (b"<annotations", b"<image ")
WITHOUT_MASK = {"box": "boxes, which have no mask", "points": "points, which are no areas"}
WITHOUT_MASK |= {"polyline": "lines, which are no areas", "tag": "tags of whole photos"}
WITHOUT_MASK |= {"cuboid": "cuboids, which have no mask", "skeleton": "skeletons, which have no mask"}
"""Shapes that are left out, in the plural."""


class Entry(NamedTuple):
    """Hold an XML file, the element of a photo in it, and where that is."""

    file: Path
    element: Element
    place: str


class Converter(ConverterBase):
    """Read the XML files below a folder; an image without a shape is not labelled, and is left out with a note."""

    @staticmethod
    def is_format(folder: Path) -> bool:
        """Return whether an XML file lists images."""
        return any(files_with(folder, ".xml", *WORDS))

    def subsets(self) -> Mapping[str, Sequence[Entry]]:
        """Return the images by subset, which they name, or their path, or that of their file."""
        found: dict[str, list[Entry]] = {}
        unlabelled = 0
        for path in files_with(self.folder, ".xml", *WORDS):
            for element in _images(path):
                if len(element):
                    place = f"{path}: image {element.get('name')}"
                    role = next(filter(None, map(role_of, self._roles(path, element))), "")
                    found.setdefault(role, []).append(Entry(path, element, place))
                else:
                    unlabelled += 1
        if unlabelled:
            self.notes.append(f"left out: {unlabelled} photos without a shape")
        return found

    def read(self, item: Entry) -> Photo:
        """Read the shapes of an image; those without a mask are left out."""
        photo = self._photo_of(item)
        size = _size(item, photo)
        groups: dict[Any, list[Any]] = {}
        left_out = []
        for position, shape in enumerate(item.element):
            place = f"{item.place}: {shape.tag} {position + 1}"
            if shape.tag in WITHOUT_MASK:
                left_out.append(LeftOut(WITHOUT_MASK[shape.tag], place))
                continue
            if not (label := shape.get("label")):
                raise BenchError(f"{place}: has no label; give it one")
            group = shape.get("group_id") or "0"
            groups.setdefault((label, group if group != "0" else position), []).append(_part(shape, size, place))
        objects = [Object(label, join_parts(parts, size)) for (label, _), parts in groups.items()]
        return Photo(photo, size, objects, left_out, place=item.place)

    def _photo_of(self, item: Entry) -> Path:
        """Return the photo of an image: that of its subset, whose tasks number their photos anew, or find_photo's."""
        name, subset = str(item.element.get("name")), item.element.get("subset") or ""
        own = item.file.parent / "images" / subset / name
        return own if subset and own.is_file() else self.find_photo(item.file, name)

    def _roles(self, path: Path, element: Element) -> list[Path]:
        """Return what may name the subset of an image, the most certain first."""
        parts = [Path(element.get("subset") or ""), Path(str(element.get("name"))).parent]
        return [*parts, path.relative_to(self.folder)]


def _images(path: Path) -> list[Element]:
    try:
        return ElementTree.parse(path).getroot().findall("image")
    except ElementTree.ParseError as error:
        raise BenchError(f"{path}: no valid XML ({error}); export it from CVAT again") from error


def _size(item: Entry, photo: Path) -> Size:
    """Return the size that CVAT saw; raise BenchError where it is not that of the photo."""
    try:
        named = int(item.element.attrib["height"]), int(item.element.attrib["width"])
    except (KeyError, ValueError) as error:
        raise BenchError(f"{item.place}: has no width and height; export it from CVAT again") from error
    return photo_size(photo, Path(item.place), named)


def _part(shape: Element, size: Size, place: str) -> Any:
    """Return a shape as a polygon [x0, y0, ...], or as RLE; raise BenchError for an unknown or faulty one."""
    try:
        if shape.tag == "polygon":
            points = [[float(value) for value in point.split(",")] for point in shape.attrib["points"].split(";")]
            if len(points) > 2 and are_points(points):
                return flat(points)
        elif shape.tag == "ellipse":
            x, y, rx, ry = (float(shape.attrib[key]) for key in ("cx", "cy", "rx", "ry"))
            return ellipse((x, y), (rx, ry), float(shape.get("rotation", 0)), size)
        elif shape.tag == "mask":
            left, top, width, height = (int(shape.attrib[key]) for key in ("left", "top", "width", "height"))
            runs = [int(value) for value in shape.attrib["rle"].split(",")]
            values = np.repeat(np.arange(len(runs)) % 2 == 1, runs)  # by rows, from the background on
            return paste(values.reshape(height, width), left, top, size, place)
    except (KeyError, ValueError):
        pass
    raise BenchError(f"{place}: a {shape.tag} without its numbers, or unknown; draw it as a polygon in CVAT")
