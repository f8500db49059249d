"""Read Labelme's JSON files, one for each photo, whose shapes are polygons, rectangles, circles and masks.

Shapes of one label and one group_id are one object. Polygons and rectangles keep their coordinates; a circle has the
pixels whose centres are inside. Points and lines are no areas, and are left out.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from pais_bench.annotations.complete import as_integer
from pais_bench.annotations.json_file import read_json_file
from pais_bench.annotations.rle import compress
from pais_bench.converters.formats.base import ConverterBase, LeftOut, Object, Photo, mask_of, photo_size
from pais_bench.errors import BenchError
from pais_bench.images.files import image_files, role_of
from pais_bench.images.pixels import Size

LINES = {"point": "points", "points": "points", "line": "lines", "linestrip": "lines"}
"""Shapes that are no areas, and their plural."""


class Converter(ConverterBase):
    """Read the JSON files below a folder that have shapes; each names its photo."""

    @staticmethod
    def is_format(folder: Path) -> bool:
        """Return whether one of the first JSON files has shapes."""
        return any(map(_has_shapes, sorted(folder.rglob("*.json"))[:20]))

    def subsets(self) -> Mapping[str, Sequence[Path]]:
        """Return the JSON files by subset."""
        paths = sorted(self.folder.rglob("*.json"))
        found: dict[str, list[Path]] = {}
        for path in filter(_has_shapes, paths):
            found.setdefault(role_of(path.relative_to(self.folder).parent), []).append(path)
        labelled = sum(map(len, found.values()))
        if labelled < len(paths):
            self.notes.append(f"left out: {len(paths) - labelled} JSON files without shapes")
        if (others := len(image_files(self.folder)) - labelled) > 0:
            self.notes.append(f"left out: {others} photos without a JSON file")
        return found

    def read(self, item: Path) -> Photo:
        """Read a JSON file; shapes that are no areas are left out."""
        content = read_json_file(item)
        if not isinstance(content, dict) or not isinstance(content.get("shapes"), list):
            raise BenchError(f"{item}: has no list 'shapes'; save it with Labelme again")
        photo = _find_photo(item, content)
        height, width = (as_integer(content.get(key)) for key in ("imageHeight", "imageWidth"))
        size = photo_size(photo, item, (height, width) if height and width else None)
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
        objects = [Object(names[key], _join(parts, size)) for key, parts in groups.items()]
        return Photo(photo, size, objects, left_out)


def _has_shapes(path: Path) -> bool:
    return b'"shapes"' in path.read_bytes()


def _find_photo(path: Path, content: Mapping[str, Any]) -> Path:
    """Return the photo of a JSON file; raise BenchError where it is neither at its path nor beside the file."""
    named = str(content.get("imagePath") or "").replace("\\", "/")
    for candidate in (path.parent / named, path.parent / Path(named).name):
        if named and candidate.is_file():
            return candidate
    kept = (
        "; the JSON file holds a copy as imageData, which labelme_export_json writes"
        if content.get("imageData")
        else ""
    )
    raise BenchError(
        f"{path}: its photo {named or 'has no imagePath and'} is missing; put it beside the JSON file{kept}"
    )


def _label(shape: Any, place: str) -> str:
    """Return the label of a shape; raise BenchError where it has none, or no list of points."""
    points = shape.get("points") if isinstance(shape, dict) else None
    if not isinstance(points, list) or not all(_is_point(point) for point in points):
        raise BenchError(f"{place}: its points are no list of pairs of finite x, y; draw it again")
    if not isinstance(shape.get("label"), str) or not shape["label"]:
        raise BenchError(f"{place}: has no label; give it one")
    return str(shape["label"])


def _is_point(point: Any) -> bool:
    return isinstance(point, list) and len(point) == 2 and all(map(_is_finite, point))


def _is_finite(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def _part(kind: str, shape: Mapping[str, Any], size: Size, place: str) -> Any:
    """Return a shape as a polygon [x0, y0, ...], or as RLE."""
    points: list[list[float]] = shape["points"]
    if kind in ("polygon", "rotation", "oriented_rectangle") or (kind == "rectangle" and len(points) == 4):
        return [value for point in points for value in point]
    if kind in ("rectangle", "circle", "mask") and len(points) == 2:
        (x0, y0), (x1, y1) = points
        if kind == "rectangle":
            return [x0, y0, x1, y0, x1, y1, x0, y1]
        if kind == "circle":
            rows, columns = np.ogrid[: size[0], : size[1]]
            return mask_of((columns + 0.5 - x0) ** 2 + (rows + 0.5 - y0) ** 2 <= (x1 - x0) ** 2 + (y1 - y0) ** 2)
        return mask_of(_paste(_decode(shape.get("mask"), place), round(x0), round(y0), size, place))
    raise BenchError(f"{place}: a {kind} of {len(points)} points is unknown; draw it as a polygon")


def _decode(text: Any, place: str) -> np.ndarray:
    """Return the mask of a shape, a PNG in base64, as bool[h,w]."""
    try:
        with Image.open(io.BytesIO(base64.b64decode(text, validate=True))) as file:
            return np.asarray(file.convert("L")) > 0
    except (TypeError, ValueError, OSError, binascii.Error) as error:
        raise BenchError(f"{place}: its mask is no PNG in base64 ({error}); draw it again") from error


def _paste(part: np.ndarray, x: int, y: int, size: Size, place: str) -> np.ndarray:
    """Return a mask bool[H,W] with a part whose upper left pixel is x, y."""
    if min(x, y) < 0 or y + part.shape[0] > size[0] or x + part.shape[1] > size[1]:
        raise BenchError(f"{place}: its mask leaves the photo of {size[1]} x {size[0]} pixels; draw it again")
    mask = np.zeros(size, dtype=bool)
    mask[y : y + part.shape[0], x : x + part.shape[1]] = part
    return mask


def _join(parts: Sequence[Any], size: Size) -> Any:
    """Return polygons together as they are, and anything else as one RLE."""
    if all(isinstance(part, list) for part in parts):
        return list(parts)
    if len(parts) == 1:
        return parts[0]
    joined = rle.merge([compress([part] if isinstance(part, list) else part, size) for part in parts])
    return {"size": list(size), "counts": joined["counts"].decode("ascii")}
