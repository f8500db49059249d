"""Read Supervisely's projects: a JSON file in `ann` for each photo in `img`, with polygons and bitmaps.

Polygons without holes keep their coordinates, bitmaps every pixel. Objects of one class and one `instance` are one.
Rectangles, points and lines have no mask, and are left out.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pais_bench.annotations.complete import stated_size
from pais_bench.annotations.json_file import read_json_file
from pais_bench.converters.formats.base import (
    ConverterBase,
    Item,
    LeftOut,
    MissingPhoto,
    Object,
    Photo,
    photo_size,
)
from pais_bench.converters.shapes import are_points, flat, join_parts, paste, read_png, without_holes
from pais_bench.errors import BenchError
from pais_bench.images.files import files_below, role_of
from pais_bench.images.pixels import Size

WITHOUT_MASK = {"rectangle": "boxes, which have no mask", "point": "points, which are no areas"}
WITHOUT_MASK |= {"line": "lines, which are no areas", "cuboid": "cuboids, which have no mask"}
WITHOUT_MASK |= {"graph": "graphs, which have no mask"}
"""Geometries that are left out, in the plural."""


class Converter(ConverterBase):
    """Read the datasets of a project; a photo without a JSON file or an object is not labelled, and is left out."""

    @staticmethod
    def is_format(folder: Path) -> bool:
        """Return whether one of the first JSON files in a folder `ann` has objects, or none, of a photo's size."""
        return any(map(_is_supervisely, _files(folder)[:20]))

    def subsets(self) -> Mapping[str, Sequence[Item]]:
        """Return the photos by subset, which the name of their dataset names."""
        found: dict[str, list[Item]] = {}
        unlabelled = 0
        for path in _files(self.folder):
            photo = path.parent.parent / "img" / path.stem
            if _content(path)["objects"]:
                found.setdefault(role_of(path.parent.parent.relative_to(self.folder)), []).append(Item(photo, [path]))
            else:
                unlabelled += 1
        if unlabelled:
            self.notes.append(f"left out: {unlabelled} photos without an object")
        return found

    def read(self, item: Item) -> Photo:
        """Read a JSON file; geometries without a mask are left out."""
        (path,) = item.labels
        if not item.photo.is_file():
            raise MissingPhoto(f"{path}: its photo {item.photo} is missing; put it back")
        content = _content(path)
        sides = content["size"] if isinstance(content.get("size"), dict) else {}
        size = photo_size(item.photo, path, stated_size(sides.get("height"), sides.get("width")))
        groups: dict[Any, list[Any]] = {}
        left_out = []
        for position, record in enumerate(content["objects"]):
            place = f"{path}: object {position + 1}"
            kind, label = (
                record.get(key) if isinstance(record, dict) else None for key in ("geometryType", "classTitle")
            )
            if kind in WITHOUT_MASK:
                left_out.append(LeftOut(WITHOUT_MASK[kind], place))
                continue
            if not isinstance(label, str) or not label:
                raise BenchError(f"{place}: has no classTitle; give it a class")
            key = (label, str(record["instance"]) if record.get("instance") else position)
            groups.setdefault(key, []).append(_part(kind, record, size, place))
        objects = [Object(label, join_parts(parts, size)) for (label, _), parts in groups.items()]
        return Photo(item.photo, size, objects, left_out, place=str(path))


def _files(folder: Path) -> list[Path]:
    files = (path for path in files_below(folder, ".json") if path.parent.name == "ann")
    return [path for path in files if (path.parent.parent / "img").is_dir()]


def _is_supervisely(path: Path) -> bool:
    content = path.read_bytes()
    return b'"objects"' in content and b'"size"' in content


def _content(path: Path) -> dict[str, Any]:
    """Return a file with a list of objects; raise BenchError for another one."""
    content = read_json_file(path)
    if not isinstance(content, dict) or not isinstance(content.get("objects"), list):
        raise BenchError(f"{path}: has no list 'objects'; export the project from Supervisely again")
    return content


def _part(kind: Any, record: Mapping[str, Any], size: Size, place: str) -> Any:
    """Return a geometry as a polygon [x0, y0, ...], or as RLE; raise BenchError for an unknown or faulty one."""
    try:
        if kind == "polygon":
            exterior, holes = record["points"]["exterior"], record["points"].get("interior") or []
            if len(exterior) > 2 and all(map(are_points, [exterior, *holes])):
                return without_holes(flat(exterior), [flat(hole) for hole in holes], size)
        elif kind == "bitmap":
            x, y = record["bitmap"]["origin"]
            data = zlib.decompress(base64.b64decode(record["bitmap"]["data"], validate=True))
            return paste(read_png(data, place), x, y, size, place)
    except (KeyError, TypeError, ValueError, zlib.error):
        pass
    raise BenchError(f"{place}: a {kind} without its numbers, or unknown; draw it as a polygon")
