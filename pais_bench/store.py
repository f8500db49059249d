"""What does a prepared dataset hold? COCO records of its parts, where their images lie, and what identifies them.

dataset.json holds the label, the classes, and of each part its image folder, its number of images and annotations,
the files of its two tables with their sizes, and the sha256 of their content. The tables' numbers are mapped into
memory: loader processes share them, and reading an image touches a few pages.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pais_bench.parts import Converted, Dropped, Part, convert
from pais_bench.tables import ANNOTATIONS, IMAGES, Table, digest, map_table, write_table
from pais_bench.types import BenchError

__all__ = ["Dropped", "Objects", "Part", "Store", "Tell", "dataset_folder", "silent", "write_store", "write_text"]

MANIFEST, REPAIRED = "dataset.json", "repaired.json"
SCHEMAS = {"images": IMAGES, "annotations": ANNOTATIONS}
PREPARE = "run `pais-bench prepare` for this dataset"

Tell = Callable[[str], None]


def dataset_folder(results: Path, label: str) -> Path:
    """Give the folder of a prepared dataset below the results folder."""
    return results / "datasets" / label


def silent(line: str) -> None:
    """Tell nobody."""


class Objects(NamedTuple):
    """Hold all annotations of a part as columns, in the order of its images: ids i64[n], crowd bool[n]."""

    image_id: np.ndarray
    category_id: np.ndarray
    crowd: np.ndarray


class Store:
    """Give the annotations of one part of a prepared dataset, and where its images lie; no image is opened.

    digest is the sha256 of the part's records | categories are (id, name), sorted by id | label_of takes a category id
    to 0..C-1. A copy in another process maps the same files.
    """

    def __init__(self, folder: Path, part: str, entry: Mapping[str, Any]) -> None:
        """Map the tables that a part's entry in the manifest tells of."""
        self.digest: str = entry["sha256"]
        self._place = folder, part
        self._folder: Path = folder / entry["folder"]
        tables = {name: _mapped(folder / file, entry["files"][file]) for name, file in _files(part).items()}
        self._images, self._annotations = tables["images"], tables["annotations"]
        about = self._images.batch.schema.metadata
        self._categories, self._extra = json.loads(about[b"categories"]), about[b"extra"]
        self.categories: tuple[tuple[int, str], ...] = tuple(
            sorted((one["id"], one["name"]) for one in self._categories)
        )
        self.label_of: dict[int, int] = {number: label for label, (number, _) in enumerate(self.categories)}

    @staticmethod
    def open(folder: Path, part: str) -> Store:
        """Open a part, 'train' say; raise BenchError where it is not prepared, or where a file is not the written one.

        The values are not read: verify() does that.
        """
        entries = _read_entries(folder)
        if part not in entries:
            raise BenchError(f"{folder}: there is no part '{part}'; choose one of {', '.join(entries)}")
        try:
            return Store(folder, part, entries[part])
        except (KeyError, TypeError, ValueError) as error:
            raise _no_manifest(folder) from error

    @staticmethod
    def parts(folder: Path) -> tuple[str, ...]:
        """Give the names of the prepared parts, 'train' and 'val' at least; raise BenchError where there are none."""
        return tuple(_read_entries(folder))

    def __reduce__(self) -> tuple[Any, ...]:
        """Send the place instead of the tables to another process."""
        return Store.open, self._place

    @cached_property
    def image_ids(self) -> tuple[int, ...]:
        """Give the ids of all images in the order of the source file."""
        return tuple(self.id_column.tolist())

    @property
    def id_column(self) -> np.ndarray:
        """Give image_ids as a mapped column i64[n]."""
        return self._images.numbers("id")

    def path(self, image_id: int) -> Path:
        """Give the image's file."""
        return self._folder / self._images.text("file_name", self._row(image_id))

    def size(self, image_id: int) -> tuple[int, int]:
        """Give (height, width) in pixels."""
        row = self._row(image_id)
        return int(self._images.numbers("height")[row]), int(self._images.numbers("width")[row])

    def annotations(self, image_id: int) -> list[dict[str, Any]]:
        """Give the COCO records of an image, crowds included.

        A mask may cover no pixel: COCO's train2017 has two boxes of height 0.
        """
        return self._records(self._row(image_id))

    def objects(self) -> Objects:
        """Give what splits are drawn by, without the masks."""
        image_id = np.repeat(self.id_column, self._images.numbers("count"))
        crowd = self._annotations.numbers("iscrowd").astype(bool)
        return Objects(image_id, self._annotations.numbers("category_id").copy(), crowd)

    def coco_dict(self) -> dict[str, Any]:
        """Give all records as the source had them, in its order; whoever takes them may change them."""
        position = self._annotations.numbers("position").tolist()
        grouped = (record for row in range(len(self.image_ids)) for record in self._records(row))
        ordered = [record for _, record in sorted(zip(position, grouped, strict=True), key=lambda pair: pair[0])]
        images = [self._image(row) for row in range(len(self.image_ids))]
        rest = json.loads(self._extra)
        return {**rest, "images": images, "annotations": ordered, "categories": [dict(one) for one in self._categories]}

    def verify(self) -> None:
        """Read everything; raise BenchError where the content has not the sha256 of the manifest."""
        tables = {"images": self._images.batch, "annotations": self._annotations.batch}
        try:
            for batch in tables.values():
                batch.validate(full=True)
            sound = digest(tables) == self.digest
        except (pa.ArrowException, ValueError):
            sound = False
        if not sound:
            folder, part = self._place
            raise BenchError(f"{folder}: the records of part '{part}' were changed since; {PREPARE} again")

    def _row(self, image_id: int) -> int:
        ids = self._images.numbers("sorted_id")
        place = int(np.searchsorted(ids, image_id))
        if place == len(ids) or ids[place] != image_id:
            raise KeyError(image_id)
        return int(self._images.numbers("sorted_row")[place])

    def _image(self, row: int) -> dict[str, Any]:
        numbers = {key: int(self._images.numbers(key)[row]) for key in ("id", "height", "width")}
        return {**numbers, "file_name": self._images.text("file_name", row), **_extra(self._images, row)}

    def _records(self, row: int) -> list[dict[str, Any]]:
        start = int(self._images.numbers("offset")[row])
        size = [int(self._images.numbers(key)[row]) for key in ("height", "width")]
        image_id, table = int(self.id_column[row]), self._annotations
        found = []
        for index in range(start, start + int(self._images.numbers("count")[row])):
            extra = _extra(table, index)
            mask: list[Any] | dict[str, Any] = table.list("polygons", index)
            if not mask:
                counts = table.text("packed", index) or table.list("runs", index)
                mask = {"size": list(size), "counts": counts, **extra.pop("segmentation", {})}
            found.append(
                {
                    "id": int(table.numbers("id")[index]),
                    "image_id": image_id,
                    "category_id": int(table.numbers("category_id")[index]),
                    "iscrowd": int(table.numbers("iscrowd")[index]),
                    "area": float(table.numbers("area")[index]),
                    "bbox": table.numbers("bbox")[index].tolist(),
                    "segmentation": mask,
                    **extra,
                }
            )
        return found


def write_store(folder: Path, label: str, parts: Mapping[str, Part], repair: bool = False, tell: Tell = silent) -> None:
    """Validate and write the parts of a dataset, the manifest last.

    A repair drops the annotations that records.KINDS calls mended into repaired.json; tell takes a line of progress, or
    about each kind of what was dropped. Raises BenchError that names the file and the id of the first wrong record, or
    two parts whose classes differ; then nothing is written.
    """
    done: dict[str, Converted] = {}
    for name, part in parts.items():
        tell(f"{part.source}: checking {len(part.images)} images, {len(part.annotations)} annotations")
        done[name] = convert(part, repair)
    classes = _same_classes({part.source: done[name].classes for name, part in parts.items()})
    folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for name, part in parts.items():
        files = {table: folder / file for table, file in _files(name).items()}
        for table, path in files.items():
            write_table(path, done[name].tables[table])
        entries[name] = {
            "folder": _relative(part.folder, folder),
            **{table: batch.num_rows for table, batch in done[name].tables.items()},
            "repaired": len(done[name].dropped),
            "files": {path.name: path.stat().st_size for path in files.values()},
            "sha256": digest(done[name].tables),
        }
    _write_repaired(folder, {name: one.dropped for name, one in done.items()}, tell)
    write_text(folder / MANIFEST, json.dumps({"label": label, "classes": classes, "parts": entries}, indent=2) + "\n")


def write_text(path: Path, content: str) -> None:
    """Write a file whole or not at all; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_text(content, encoding="utf-8")
    os.replace(partial, path)


def _write_repaired(folder: Path, dropped: Mapping[str, list[Dropped]], tell: Tell) -> None:
    (folder / REPAIRED).unlink(missing_ok=True)
    if any(dropped.values()):
        told = {name: [asdict(one) for one in some] for name, some in dropped.items() if some}
        write_text(folder / REPAIRED, json.dumps(told, indent=1) + "\n")
    for some in dropped.values():
        for kind, count in Counter(one.kind for one in some).items():
            first = next(one.reason for one in some if one.kind == kind)
            tell(f"dropped {count} {'record' if count == 1 else 'records'} ({kind}), the first: {first}")


def _files(part: str) -> dict[str, str]:
    """Give the name of each table's file."""
    return {table: f"{part}.{table}.arrow" for table in SCHEMAS}


def _mapped(path: Path, size: int) -> Table:
    if not path.is_file():
        raise BenchError(f"{path}: the records are missing; {PREPARE} again")
    if path.stat().st_size != size:
        raise BenchError(f"{path}: not the records that {MANIFEST} tells of; {PREPARE} again")
    return map_table(path, SCHEMAS[path.name.split(".")[-2]], f"{PREPARE} again")


def _extra(table: Table, row: int) -> dict[str, Any]:
    text = table.text("extra", row)
    return json.loads(text) if text else {}


def _read_entries(folder: Path) -> dict[str, Any]:
    """Give the entry of every part in a manifest."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return {
            name: {key: entry[key] for key in ("folder", "sha256", "files")}
            for name, entry in manifest["parts"].items()
        }
    except FileNotFoundError as error:
        raise BenchError(f"{folder}: not a prepared dataset; {PREPARE} first") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _no_manifest(folder) from error


def _no_manifest(folder: Path) -> BenchError:
    return BenchError(f"{folder / MANIFEST}: not the manifest of a dataset; {PREPARE} again")


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
