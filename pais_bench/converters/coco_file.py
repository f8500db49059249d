"""Write COCO instances files photo by photo, so that memory does not grow with the masks."""

from __future__ import annotations

import json
import os
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, Any, TextIO

import numpy as np

from pais_bench.annotations.complete import fill_from_mask
from pais_bench.annotations.rle_columns import InvalidRecords, check_segmentations
from pais_bench.annotations.validate import FAULTS
from pais_bench.converters.coco_dialects import IMPORT_DATA, mark
from pais_bench.converters.formats.base import LeftOut, Object, Photo
from pais_bench.errors import BenchError

REPEATED = "records of photos that another file has with the same objects"


class Classes:
    """Give every class name a category id: those of the source, then the next ones as objects name them."""

    def __init__(self, known: Mapping[int, str]) -> None:
        """Take the names that the source lists, by id."""
        self.ids = {name: number for number, name in known.items()}

    def id_of(self, name: str) -> int:
        """Return the id of a name."""
        return self.ids.setdefault(name, max(self.ids.values(), default=0) + 1)

    def records(self) -> list[dict[str, Any]]:
        """Return COCO's records of all classes, by id."""
        return [{"id": number, "name": name} for name, number in sorted(self.ids.items(), key=lambda pair: pair[1])]


class CocoFile:
    """Collect the records of one file in temporary files without a name, and write it at the end."""

    def __init__(self, path: Path, root: Path, classes: Classes, stack: ExitStack) -> None:
        """Open the two temporary files, which the stack closes; file names are relative to the root."""
        self.path, self.root, self.classes = path, Path(os.path.abspath(root)), classes
        self.images, self.objects, self.empty = 0, Counter[str](), 0
        self._known: dict[str, tuple[str, bytes]] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._images, self._masks = (stack.enter_context(_open_unnamed(path.parent)) for _ in range(2))

    def add(self, photo: Photo) -> list[LeftOut]:
        """Write a photo and its objects, and return what is left out: objects without a pixel, a photo that is there.

        Raises BenchError for a photo that is there with other objects, and for an invalid mask.
        """
        name, objects = _relative(photo.path, self.root), _digest(photo.objects)
        if name in self._known:
            place, known = self._known[name]
            if objects == known:
                return [LeftOut(REPEATED, photo.place or str(photo.path), may_be_object=False)]
            places = f" ({place} and {photo.place})" if photo.place else ""
            raise BenchError(
                f"{photo.path}: two files of labels are of this photo and differ{places}; join them, or remove one"
            )
        self._known[name] = photo.place, objects
        self.images += 1
        before = self.objects.total()
        left_out: list[LeftOut] = []
        height, width = photo.size
        image = {"id": self.images, "file_name": name, "height": height, "width": width}
        _append(self._images, image, first=self.images == 1)
        for number, one in enumerate(photo.objects, start=1):
            record = {"id": self.objects.total() + 1, "image_id": self.images}
            record |= {"category_id": self.classes.id_of(one.class_name), "iscrowd": 0}
            _require_valid(one.segmentation, photo)
            record = fill_from_mask({**record, "segmentation": one.segmentation}, ("area", "bbox"), photo.size)
            if not record["area"]:
                left_out.append(LeftOut("objects without a pixel", f"{photo.path}: object {number}"))
                continue
            _append(self._masks, record, first=not self.objects)
            self.objects[one.class_name] += 1
        self.empty += self.objects.total() == before
        return left_out

    def write(self, file: TextIO) -> None:
        """Write the file, once all classes of all subsets are known."""
        marked = json.dumps(mark({}, IMPORT_DATA)).removesuffix("}")
        for start, records in ((f'{marked}, "images": [', self._images), ('\n], "annotations": [', self._masks)):
            file.write(start)
            records.seek(0)
            shutil.copyfileobj(records, file)
        file.write(f'\n], "categories": {json.dumps(self.classes.records())}}}\n')
        file.flush()  # what does not fit the disk is known before any file of the conversion gets its name


def _digest(objects: Sequence[Object]) -> bytes:
    """Return what two photos share that have the same objects, in whatever order."""
    return sha256("\n".join(sorted(json.dumps([*one]) for one in objects)).encode()).digest()


def _open_unnamed(folder: Path) -> IO[str]:
    return TemporaryFile("w+", encoding="utf-8", dir=folder)


def _append(file: IO[str], record: Mapping[str, Any], first: bool) -> None:
    file.write(("\n" if first else ",\n") + json.dumps(record))


def _require_valid(segmentation: Any, photo: Photo) -> None:
    try:
        check_segmentations([segmentation], *(np.array([side]) for side in photo.size))
    except InvalidRecords as error:
        reason = FAULTS[error.fault].problem.format(
            h=photo.size[0], w=photo.size[1], polygon="a polygon without numbers"
        )
        raise BenchError(f"{photo.path}: one of its objects {reason}; draw it again, or remove it") from error


def _relative(path: Path, root: Path) -> str:
    """Return a path from the root, also where it is not below it; links are kept."""
    absolute = os.path.abspath(path)
    inside = Path(absolute).is_relative_to(root)
    return Path(os.path.relpath(absolute, root if inside else root.resolve())).as_posix()
