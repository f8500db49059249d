"""Read Labelme's JSON files, one for each photo, whose shapes are polygons, rectangles, circles and masks.

Shapes of one label and one group_id are one object. Polygons and rectangles keep their coordinates; a circle has the
pixels whose centres are inside. Points and lines are no areas, and are left out.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pais_bench.annotations.complete import stated_size
from pais_bench.annotations.json_file import read_json_file
from pais_bench.converters.formats.base import ConverterBase, LeftOut, Object, Photo, photo_size
from pais_bench.converters.shapes import are_points, ellipse, flat, join_parts, paste, read_png
from pais_bench.errors import BenchError
from pais_bench.images.files import files_below, files_with, image_files, role_of
from pais_bench.images.pixels import Size

WORD = b'"shapes"'
LINES = {"point": "points", "points": "points", "line": "lines", "linestrip": "lines"}
"""Shapes that are no areas, and their plural."""
JOINED = "have shapes of one label and group_id, which are one object; where they are several, remove the group_id"
"""What is said of photos of joined shapes, as some tools write group_id 0 for every shape."""


class Converter(ConverterBase):
    """Read the JSON files below a folder that have shapes; each names its photo."""

    @staticmethod
    def is_format(folder: Path) -> bool:
        """Return whether a JSON file has shapes."""
        return any(files_with(folder, ".json", WORD))

    def subsets(self) -> Mapping[str, Sequence[Path]]:
        """Return the JSON files by subset."""
        found: dict[str, list[Path]] = {}
        for path in files_with(self.folder, ".json", WORD):
            found.setdefault(role_of(path.relative_to(self.folder).parent), []).append(path)
        labelled = sum(map(len, found.values()))
        if others := len(files_below(self.folder, ".json")) - labelled:
            self.notes.append(f"left out: {others} JSON files without shapes")
        if (others := len(image_files(self.folder)) - labelled) > 0:
            self.notes.append(f"left out: {others} photos without a JSON file")
        return found

    def read(self, item: Path) -> Photo:
        """Read a JSON file; shapes that are no areas are left out."""
        content = read_json_file(item)
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            raise BenchError(f"{item}: has no list 'shapes'; save it with Labelme again")
        photo = self._photo_of(item, content)
        size = photo_size(photo, item, stated_size(content.get("imageHeight"), content.get("imageWidth")))
        groups: dict[Any, list[Any]] = {}
        names: dict[Any, str] = {}
        left_out: list[LeftOut] = []
        for position, shape in enumerate(content["shapes"]):
            place = f"{item}: shape {position + 1}"
            name, group = _label(shape, place), shape.get("group_id")
            kind = shape.get("shape_type") or "polygon"
            if kind in LINES:
                left_out.append(LeftOut(f"{LINES[kind]}, which are no areas", place))
            elif kind == "polygon" and len(shape["points"]) < 3:
                left_out.append(LeftOut("polygons of less than three points", place))
            else:
                key = (name, str(group)) if group is not None else position
                names[key] = name
                groups.setdefault(key, []).append(_part(kind, shape, size, place))
        objects = [Object(names[key], join_parts(parts, size)) for key, parts in groups.items()]
        doubts = [JOINED] * any(len(parts) > 1 for parts in groups.values())
        return Photo(photo, size, objects, left_out, doubts, place=str(item))

    def _photo_of(self, path: Path, content: Mapping[str, Any]) -> Path:
        """Return the photo of a JSON file; raise BenchError where it is missing, also if the file holds a copy."""
        named = str(content.get("imagePath") or "").replace("\\", "/")
        if not named:
            raise BenchError(f"{path}: has no imagePath; save it with Labelme again")
        try:
            return self.find_photo(path, named)
        except BenchError as error:
            if not content.get("imageData"):
                raise
            raise BenchError(f"{error}; it holds a copy as imageData, which labelme_export_json writes") from None


def _label(shape: Any, place: str) -> str:
    """Return the label of a shape; raise BenchError where it has none, or no list of points."""
    points = shape.get("points") if isinstance(shape, dict) else None
    if not are_points(points):
        raise BenchError(f"{place}: its points are no list of pairs of finite x, y; draw it again")
    if not isinstance(shape.get("label"), str) or not shape["label"]:
        raise BenchError(f"{place}: has no label; give it one")
    return str(shape["label"])


def _part(kind: str, shape: Mapping[str, Any], size: Size, place: str) -> Any:
    """Return a shape as a polygon [x0, y0, ...], or as RLE."""
    points: list[list[float]] = shape["points"]
    if kind in ("polygon", "rotation", "oriented_rectangle") or (kind == "rectangle" and len(points) == 4):
        return flat(points)
    if kind in ("rectangle", "circle", "mask") and len(points) == 2:
        (x0, y0), (x1, y1) = points
        if kind == "rectangle":
            return [x0, y0, x1, y0, x1, y1, x0, y1]
        if kind == "circle":
            radius = math.hypot(x1 - x0, y1 - y0)
            return ellipse((x0, y0), (radius, radius), 0, size)
        return paste(_decode(shape.get("mask"), place), round(x0), round(y0), size, place)
    raise BenchError(f"{place}: a {kind} of {len(points)} points is unknown; draw it as a polygon")


def _decode(text: Any, place: str) -> np.ndarray:
    """Return the mask of a shape, a PNG in base64, as bool[h,w]."""
    try:
        data = base64.b64decode(text, validate=True)
    except (TypeError, ValueError) as error:
        raise BenchError(f"{place}: its mask is no PNG in base64 ({error}); draw it again") from error
    return read_png(data, place)
