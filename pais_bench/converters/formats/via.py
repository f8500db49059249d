"""Read the JSON of the VGG Image Annotator (VIA), of version 1 and 2, as an export or a project.

Polygons keep their coordinates, and so do lines that end where they begin, as VIA's tool for lines is taken for that of
outlines; circles and ellipses have the pixels whose centres are inside. Rectangles, points and other lines have no
mask, and are left out. The class of an object is its region attribute; where regions have several, the one that is
named class, label, category, name or type, in any case; of several of these, the one that was filled in. Without one,
the class is that which the command names.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pais_bench.annotations.json_file import read_json_file
from pais_bench.converters.formats.base import ConverterBase, LeftOut, Object, Photo, photo_size
from pais_bench.converters.shapes import are_points, ellipse, flat
from pais_bench.errors import BenchError
from pais_bench.images.files import files_with, role_of
from pais_bench.images.pixels import Size

NAMES = ("class", "label", "category", "name", "type")
UNFILLED: tuple[Any, ...] = (None, "", {}, "not_defined", "unknown")
"""Values of an attribute that nobody has set; the last two are those of VIA's example of attributes."""
WORD = b'"shape_attributes"'
WITHOUT_MASK = {
    "rect": "boxes, which have no mask",
    "point": "points, which are no areas",
    "polyline": "lines, which are no areas",
}
"""Shapes that are left out, in the plural."""
CLOSED = "have lines that end where they begin, which are read as outlines"
GAP = 0.02
"""How far apart the ends of a closed line may be, as a part of its length."""


class Entry(NamedTuple):
    """Hold a VIA file, the name of a photo in it, the regions of the photo, and where they are listed."""

    file: Path
    photo: str
    regions: Sequence[Any]
    place: str


class Converter(ConverterBase):
    """Read the VIA files below a folder; a photo without a region is not labelled, and is left out with a note."""

    @staticmethod
    def is_format(folder: Path) -> bool:
        """Return whether a JSON file has regions of VIA."""
        return any(files_with(folder, ".json", WORD))

    def subsets(self) -> Mapping[str, Sequence[Entry]]:
        """Return the photos by subset, which the path of their VIA file names."""
        found: dict[str, list[Entry]] = {}
        unlabelled = 0
        for path in files_with(self.folder, ".json", WORD):
            for name, regions in _photos(path):
                if regions:
                    entry = Entry(path, name, regions, f"{path}: {name}")
                    found.setdefault(role_of(path.relative_to(self.folder)), []).append(entry)
                else:
                    unlabelled += 1
        if unlabelled:
            self.notes.append(f"left out: {unlabelled} photos without a region")
        self._find_attributes([entry for entries in found.values() for entry in entries])
        return found

    def _find_attributes(self, entries: Sequence[Entry]) -> None:
        """Find the region attribute of the class in each file, and note those that are not used."""
        self._spellings: dict[Path, list[str]] = {}
        others: set[str] = set()
        for file, of_file in itertools.groupby(entries, lambda entry: entry.file):
            self._spellings[file], unused = _class_attribute(file, of_file)
            others.update(unused)
        named = sorted(set(itertools.chain(*self._spellings.values())))
        if others or len(named) > 1:
            unused_names = f"; not used: {', '.join(sorted(others))}" if others else ""
            self.notes.append(f"classes are of the attribute {' or '.join(named)}{unused_names}")

    def read(self, item: Entry) -> Photo:
        """Read the regions of a photo; shapes without a mask are left out."""
        photo = self.find_photo(item.file, item.photo)
        size = photo_size(photo, Path(item.place), None)
        objects, left_out, doubts = [], [], []
        for position, region in enumerate(item.regions, start=1):
            place = f"{item.place}: region {position}"
            shape = region["shape_attributes"]
            kind = shape.get("name")
            if kind == "polyline" and _is_closed(shape):
                kind, doubts = "polygon", [CLOSED]
            if kind in WITHOUT_MASK:
                left_out.append(LeftOut(WITHOUT_MASK[kind], place))
            else:
                objects.append(
                    Object(self._class_of(item.file, region, place), _segmentation(kind, shape, size, place))
                )
        return Photo(photo, size, objects, left_out, doubts, place=item.place)

    def _class_of(self, file: Path, region: Mapping[str, Any], place: str) -> str:
        if not any(self._spellings.values()):
            return self.class_name
        attributes, spellings = region["region_attributes"], self._spellings[file] or ["attribute of a class"]
        spelling = next(filter(attributes.__contains__, spellings), spellings[0])
        value = attributes.get(spelling)
        chosen = [name for name, on in value.items() if on] if isinstance(value, dict) else [value]
        if len(chosen) != 1 or not isinstance(chosen[0], str) or not chosen[0].strip():
            raise BenchError(f"{place}: its {spelling} is {value!r}, not one class; choose one in VIA")
        return chosen[0].strip()


def _photos(path: Path) -> list[tuple[str, list[Any]]]:
    """Return name and regions of every photo of a VIA file; raise BenchError for other content."""
    content = read_json_file(path)
    listed = content.get("_via_img_metadata", content) if isinstance(content, dict) else None
    if not isinstance(listed, dict):
        raise BenchError(f"{path}: no file of VIA; export the annotations as JSON")
    photos = []
    for key, record in listed.items():
        regions = record.get("regions") if isinstance(record, dict) else None
        regions = list(regions.values()) if isinstance(regions, dict) else regions
        if not isinstance(regions, list) or not all(map(_is_region, regions)) or not record.get("filename"):
            raise BenchError(
                f"{path}: {key}: has no filename, or no regions with shape and attributes; export it again"
            )
        photos.append((str(record["filename"]), regions))
    return photos


def _is_region(region: Any) -> bool:
    keys = ("shape_attributes", "region_attributes")
    return isinstance(region, dict) and all(isinstance(region.get(key), dict) for key in keys)


def _class_attribute(file: Path, entries: Iterable[Entry]) -> tuple[list[str], list[str]]:
    """Return the spellings of the region attribute of the class, none where regions have none, and other attributes.

    Names that differ in case alone are one attribute, unless a region has two of them. One that no region has filled in
    is not that of the class where there is another. Raises BenchError where several may be the one of the class.
    """
    of_regions = [region["region_attributes"] for entry in entries for region in entry.regions]
    found: set[str] = set().union(*of_regions)
    named = [name for name in sorted(found) if name.lower() in NAMES] or sorted(found)
    if _differ(named):
        filled = [name for name in named if any(values.get(name) not in UNFILLED for values in of_regions)]
        named = filled or named[:1]
    if _differ(named) or any(len(values.keys() & named) > 1 for values in of_regions):
        raise BenchError(
            f"{file}: its regions have the attributes {', '.join(sorted(found))}; name the one of the class 'class', "
            f"and no other {', '.join(NAMES[1:])}"
        )
    return named, sorted(found.difference(named))


def _differ(names: Iterable[str]) -> bool:
    return len({name.lower() for name in names}) > 1


def _is_closed(shape: Mapping[str, Any]) -> bool:
    """Return whether a line is an outline: its ends nearly meet, and it has corners between them."""
    try:
        points = [*zip(shape["all_points_x"], shape["all_points_y"], strict=True)]
        length = sum(map(math.dist, points, points[1:]))
        return len(points) > 3 and math.dist(points[0], points[-1]) <= GAP * length
    except (KeyError, TypeError, ValueError):
        return False


def _segmentation(kind: Any, shape: Mapping[str, Any], size: Size, place: str) -> Any:
    """Return a shape as polygons, or as RLE; raise BenchError for an unknown one."""
    try:
        if kind == "polygon":
            points = [list(pair) for pair in zip(shape["all_points_x"], shape["all_points_y"], strict=True)]
            if len(points) > 2 and are_points(points):
                return [flat(points)]
        elif kind in ("circle", "ellipse"):
            radii = (shape["r"], shape["r"]) if kind == "circle" else (shape["rx"], shape["ry"])
            return ellipse((shape["cx"], shape["cy"]), radii, math.degrees(shape.get("theta", 0)), size)
    except (KeyError, TypeError, ValueError):
        pass
    raise BenchError(f"{place}: a {kind} without its numbers, or unknown; draw it as a polygon of three points or more")
