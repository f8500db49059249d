"""Write and read a prepared dataset: the COCO records of its subsets, their image folders, and their digests.

dataset.json holds the label, the classes, and of each subset its image folder, its number of images and annotations,
the files of its two tables with their sizes, and the sha256 of their content. The tables' numbers are mapped into
memory: loader processes share them, and reading an image touches a few pages.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pais_bench.annotations.arrow import ANNOTATIONS, IMAGES, Table, digest, map_table, write_table
from pais_bench.annotations.ingest import Ingested, Subset, drop_parents, ingest, require_objects, require_shared_class
from pais_bench.annotations.panoptic import is_thing
from pais_bench.annotations.repair import ChangedRecord, DroppedRecord
from pais_bench.errors import BenchError
from pais_bench.whole_file import write_text

__all__ = ["Objects", "ProgressCallback", "Store", "Subset", "dataset_folder", "ignore_progress", "write_store"]

MANIFEST, REPAIRED = "dataset.json", "repaired.json"
SCHEMAS = {"images": IMAGES, "annotations": ANNOTATIONS}
PREPARE = "run `pais-bench prepare` for this dataset"

Moved = tuple[Path, Path]
"""A root as it was when its dataset was prepared, and as it is now."""

ProgressCallback = Callable[[str], None]
"""Takes one line about the progress of a preparation."""


def dataset_folder(results: Path, label: str) -> Path:
    """Return the folder of a prepared dataset below the results folder."""
    return results / "datasets" / label


def ignore_progress(line: str) -> None:
    """Ignore a line of progress."""


class Objects(NamedTuple):
    """Hold all annotations of a subset as columns, in the order of its images: ids i64[n], crowd bool[n]."""

    image_id: np.ndarray
    category_id: np.ndarray
    crowd: np.ndarray


class Store:
    """Read the annotations of one subset of a prepared dataset, and the paths of its images; no image is opened.

    digest is the sha256 of the subset's records | categories are (id, name), sorted by id | isthing: whether each is of
    things, not stuff | label_of maps a category id to 0..C-1. A copy in another process maps the same files.
    """

    def __init__(self, folder: Path, subset: str, entry: Mapping[str, Any], moved: Moved | None = None) -> None:
        """Map the tables that a subset's entry in the manifest names."""
        self.digest: str = entry["sha256"]
        self._location = folder, subset, moved
        self._folder: Path = folder / entry["folder"]
        if moved and self._folder.is_relative_to(moved[0]):
            self._folder = moved[1] / self._folder.relative_to(moved[0])
        files, sizes = _files(subset), entry["files"]
        self._images, self._annotations = (
            _map(folder / files[name], sizes[files[name]], schema) for name, schema in SCHEMAS.items()
        )
        metadata = self._images.batch.schema.metadata
        self._categories, self._extra = json.loads(metadata[b"categories"]), metadata[b"extra"]
        by_id = sorted(self._categories, key=lambda category: category["id"])
        self.categories: tuple[tuple[int, str], ...] = tuple((category["id"], category["name"]) for category in by_id)
        self.isthing: tuple[bool, ...] = tuple(map(is_thing, by_id))
        self.label_of: dict[int, int] = {number: label for label, (number, _) in enumerate(self.categories)}

    @staticmethod
    def open(folder: Path, subset: str, moved: Moved | None = None) -> Store:
        """Open a subset, such as 'train'; raise BenchError if it is not prepared or a file has another size.

        The values are not read: verify() does that. Images below the first folder of moved are read below the second.
        """
        entries = _read_entries(folder)
        if subset not in entries:
            raise BenchError(f"{folder}: there is no subset '{subset}'; choose one of {', '.join(entries)}")
        try:
            return Store(folder, subset, entries[subset], moved)
        except (KeyError, TypeError, ValueError) as error:
            raise _manifest_error(folder) from error

    @staticmethod
    def subsets(folder: Path) -> tuple[str, ...]:
        """Return the names of the prepared subsets; raise BenchError if the dataset is not prepared."""
        return tuple(_read_entries(folder))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the location instead of the tables."""
        return Store.open, self._location

    @cached_property
    def image_ids(self) -> tuple[int, ...]:
        """Return the ids of all images in the order of the source file."""
        return tuple(self.id_column.tolist())

    @property
    def thing_ids(self) -> list[int]:
        """Return the ids of the categories of things, ascending."""
        return [number for (number, _), thing in zip(self.categories, self.isthing, strict=True) if thing]

    @property
    def id_column(self) -> np.ndarray:
        """Return image_ids as a mapped column i64[n]."""
        return self._images.numbers("id")

    def path(self, image_id: int) -> Path:
        """Return the path of an image's file."""
        return self._folder / str(self._image(self._row(image_id))["file_name"])

    def size(self, image_id: int) -> tuple[int, int]:
        """Return (height, width) of an image in pixels."""
        row = self._row(image_id)
        return int(self._images.numbers("height")[row]), int(self._images.numbers("width")[row])

    def annotations(self, image_id: int) -> list[dict[str, Any]]:
        """Return the COCO records of an image, crowds included.

        A mask may cover no pixel: COCO's train2017 has two boxes of height 0.
        """
        return self._image_annotations(self._row(image_id))

    def objects(self) -> Objects:
        """Return what the split families need, without the masks."""
        image_id = np.repeat(self.id_column, self._images.numbers("count"))
        crowd = self._annotations.numbers("iscrowd").astype(bool)
        return Objects(image_id, self._annotations.numbers("category_id").copy(), crowd)

    def coco_dict(self) -> dict[str, Any]:
        """Return a new dict with all records and fields of the source, in its order."""
        rows = range(len(self.image_ids))
        by_image = [annotation for row in rows for annotation in self._image_annotations(row)]
        return {
            **json.loads(self._extra),
            "images": [self._image(row) for row in rows],
            "annotations": [by_image[index] for index in np.argsort(self._annotations.numbers("position")).tolist()],
            "categories": [dict(category) for category in self._categories],
        }

    def verify(self) -> None:
        """Read everything; raise BenchError if the content does not have the sha256 of the manifest."""
        tables = {"images": self._images.batch, "annotations": self._annotations.batch}
        try:
            for batch in tables.values():
                batch.validate(full=True)
            unchanged = digest(tables) == self.digest
        except (pa.ArrowException, ValueError):
            unchanged = False
        if not unchanged:
            folder, subset, _ = self._location
            raise BenchError(f"{folder}: the records of subset '{subset}' were changed since; {PREPARE} again")

    def _row(self, image_id: int) -> int:
        ids = self._images.numbers("sorted_id")
        index = int(np.searchsorted(ids, image_id))
        if index == len(ids) or ids[index] != image_id:
            raise KeyError(image_id)
        return int(self._images.numbers("sorted_row")[index])

    def _image(self, row: int) -> dict[str, Any]:
        image: dict[str, Any] = json.loads(self._images.texts("record", row, row + 1)[0])
        return image

    def _image_annotations(self, row: int) -> list[dict[str, Any]]:
        start = int(self._images.numbers("offset")[row])
        stop = start + int(self._images.numbers("count")[row])
        return [json.loads(text) for text in self._annotations.texts("record", start, stop)]


def write_store(
    folder: Path,
    label: str,
    subsets: Mapping[str, Subset],
    repair: bool = False,
    progress: ProgressCallback = ignore_progress,
) -> None:
    """Validate and write the subsets of a dataset, the manifest last.

    A repair drops or changes annotations (validate.FAULTS), lists them in repaired.json, and reports the number of each
    fault to progress, like the notes about what was accepted. Raises BenchError that names the file and the id of the
    first invalid record, two subsets whose classes differ or show none in common, or a file without an object; then
    nothing is written.
    """
    subsets = drop_parents(subsets)
    ingested: dict[str, Ingested] = {}
    for name, subset in subsets.items():
        progress(f"{subset.source}: checking {len(subset.images)} images, {len(subset.annotations)} annotations")
        ingested[name] = ingest(subset, repair, labelled=name != "unlabelled")
        require_objects(name, subset.source, ingested[name])
    classes = _same_classes({subset.source: ingested[name].classes for name, subset in subsets.items()})
    if "train" in subsets and "val" in subsets:
        require_shared_class(subsets["val"].source, ingested["train"], ingested["val"])
    folder.mkdir(parents=True, exist_ok=True)
    entries = {}
    for name, subset in subsets.items():
        files = {table: folder / file for table, file in _files(name).items()}
        for table, path in files.items():
            write_table(path, ingested[name].tables[table])
        entries[name] = {
            "folder": _relative(subset.folder, folder),
            **{table: batch.num_rows for table, batch in ingested[name].tables.items()},
            "repaired": len(ingested[name].repaired),
            "notes": ingested[name].notes,
            "files": {path.name: path.stat().st_size for path in files.values()},
            "sha256": digest(ingested[name].tables),
        }
    for tables in ingested.values():
        for line in tables.notes:
            progress(line)
    _write_repaired(folder, {name: tables.repaired for name, tables in ingested.items()}, progress)
    manifest = {"label": label, "classes": classes, "subsets": entries}
    write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def _write_repaired(folder: Path, repaired: Mapping[str, list[DroppedRecord]], progress: ProgressCallback) -> None:
    (folder / REPAIRED).unlink(missing_ok=True)
    if any(repaired.values()):
        content = {name: [asdict(record) for record in records] for name, records in repaired.items() if records}
        write_text(folder / REPAIRED, json.dumps(content, indent=1) + "\n")
    for records in repaired.values():
        kinds = [("changed" if isinstance(record, ChangedRecord) else "dropped", record.fault) for record in records]
        for (kind, fault), count in Counter(kinds).items():
            first = records[kinds.index((kind, fault))].reason
            progress(f"{kind} {count} {'record' if count == 1 else 'records'} ({fault}), the first: {first}")


def _files(subset: str) -> dict[str, str]:
    """Return the name of each table's file."""
    return {table: f"{subset}.{table}.arrow" for table in SCHEMAS}


def _map(path: Path, size: int, schema: pa.Schema) -> Table:
    if not path.is_file():
        raise BenchError(f"{path}: the records are missing; {PREPARE} again")
    if path.stat().st_size != size:
        raise BenchError(f"{path}: does not have the size that {MANIFEST} records; {PREPARE} again")
    return map_table(path, schema, f"{PREPARE} again")


def _read_entries(folder: Path) -> dict[str, Any]:
    """Return the entry of every subset in a manifest."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        return {
            name: {key: entry[key] for key in ("folder", "sha256", "files")}
            for name, entry in manifest["subsets"].items()
        }
    except FileNotFoundError as error:
        raise BenchError(f"{folder}: not a prepared dataset; {PREPARE} first") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _manifest_error(folder) from error


def _manifest_error(folder: Path) -> BenchError:
    return BenchError(f"{folder / MANIFEST}: not the manifest of a dataset; {PREPARE} again")


def _relative(images: Path, folder: Path) -> str:
    """Return the image folder, relative if a prepared dataset holds its images, so that it can be moved."""
    images, folder = images.resolve(), folder.resolve()
    return images.relative_to(folder).as_posix() if images.is_relative_to(folder) else images.as_posix()


def _same_classes(classes: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return the classes of every source; raise BenchError if they differ."""
    (first, expected), *others = classes.items()
    for source, actual in others:
        if actual != expected:
            remedy = "give both the same ids and names, and the same isthing"
            raise BenchError(f"{source}: its categories differ from those of {first}; {remedy}")
    return expected
