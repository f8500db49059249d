"""What does a folder of images with COCO annotations hold? COCO itself, and every dataset that is laid out like it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from pais_bench.config import Frozen
from pais_bench.store import Dropped, Part, Tell, silent, write_store
from pais_bench.types import BenchError

LISTS = ("images", "annotations", "categories")


class Options(Frozen):
    """Say where under the root the annotation files and the image folders lie; unlabelled images may have no file."""

    train_annotations: str = "annotations/instances_train2017.json"
    train_images: str = "train2017"
    val_annotations: str = "annotations/instances_val2017.json"
    val_images: str = "val2017"
    unlabelled_annotations: str | None = None
    unlabelled_images: str = "unlabeled2017"


class Dataset:
    """Read COCO instances files."""

    def __init__(self, options: Options, root: Path | None) -> None:
        """Keep where the data lies; raise BenchError where no root is given."""
        if root is None:
            raise BenchError(f"dataset.root: missing; give the folder that holds {', '.join(_places(options))}")
        self.options, self.root = options, root

    def prepare(self, folder: Path, label: str, repair: bool = False, tell: Tell = silent) -> None:
        """Write the store of all parts into a folder; the images stay where they are.

        A repair drops the records that docs/faults.md calls mended, into repaired.json; tell takes lines about
        progress and what was dropped. Raises BenchError that names the file, and where it can the id, of the first
        thing that is missing or wrong.
        """
        if not self.root.is_dir():
            expected = ", ".join(_places(self.options))
            raise BenchError(f"{self.root}: no such folder; set dataset.root to the folder that holds {expected}")
        given = self.options
        places: dict[str, tuple[str, str, Sequence[str]]] = {
            "train": (given.train_annotations, given.train_images, LISTS),
            "val": (given.val_annotations, given.val_images, LISTS),
        }
        if given.unlabelled_annotations is not None:
            places["unlabelled"] = (given.unlabelled_annotations, given.unlabelled_images, ("images", "categories"))
        parts = {}
        for name, (file, images, required) in places.items():
            tell(f"{self.root / file}: reading")
            parts[name] = _with_images(read(self.root / file, self.root / images, required), repair)
        if "unlabelled" in parts:
            _require_apart(parts["train"], parts["unlabelled"])
        write_store(folder, label, parts, repair, tell)


def read(annotations: Path, images: Path, required: Sequence[str] = LISTS) -> Part:
    """Read one COCO instances file; raise BenchError unless it has the required lists and the image folder is there."""
    if not annotations.is_file():
        raise BenchError(f"{annotations}: no such annotation file; put it there, or name it in dataset.options")
    if not images.is_dir():
        raise BenchError(f"{images}: no such image folder; put the images there, or name it in dataset.options")
    try:
        content = json.loads(annotations.read_bytes())
    except RecursionError as error:
        raise BenchError(f"{annotations}: not valid JSON (nested too deeply); fetch the file again") from error
    except ValueError as error:
        raise BenchError(f"{annotations}: not valid JSON ({error}); fetch the file again") from error
    remedy = f"an instances file in COCO format is a mapping with the lists {', '.join(required)}"
    if not isinstance(content, dict):
        raise BenchError(f"{annotations}: holds a {type(content).__name__}; {remedy}")
    lists = {key: content.pop(key, None if key in required else []) for key in LISTS}
    for key, found in lists.items():
        if not isinstance(found, list):
            raise BenchError(f"{annotations}: has no list '{key}'; {remedy}")
    return Part(str(annotations), images, lists["images"], lists["annotations"], lists["categories"], extra=content)


def _with_images(part: Part, repair: bool) -> Part:
    """Give a part whose images are there, of the recorded size; the folder is listed once, as a network drive needs.

    Records that are wrong by themselves pass: the store tells of them.
    """
    present = {path.relative_to(part.folder).as_posix() for path in part.folder.rglob("*")}
    kept, dropped, missing = [], [], []
    for position, image in enumerate(part.images):
        name = image.get("file_name") if isinstance(image, dict) else None
        reason = ""
        if isinstance(name, str) and name:
            if name not in present:
                missing.append(name)
                reason = f"{part.folder / _line(name)}: no such image; put it there"
            else:
                reason = _unreadable(part, image)
        if not reason:
            kept.append(image)
        elif repair:
            dropped.append(Dropped("images", position, "image file", reason, image))
        elif not missing:
            raise BenchError(reason)
    if missing and not repair:
        first = ", ".join(map(_line, missing[:3]))
        raise BenchError(
            f"{part.folder}: {len(missing)} of the {len(part.images)} images of {part.source} are missing, the first: "
            f"{first}; put them there"
        )
    return replace(part, images=kept, dropped=dropped)


def _line(name: str) -> str:
    """Give a name as it is, or escaped where it would break a message."""
    return name if name.isprintable() else ascii(name)


def _unreadable(part: Part, image: Mapping[str, Any]) -> str:
    """Say why an image file cannot be read, or nothing; raise BenchError where it is of another size than recorded."""
    path = part.folder / image["file_name"]
    try:
        with Image.open(path) as file:
            width, height = file.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"{path}: unreadable image ({' '.join(str(error).split())}); replace the file"
    sides = (image.get("width"), image.get("height"))
    if all(type(side) is int and side > 0 for side in sides) and sides != (width, height):
        number, recorded = _line(str(image.get("id"))), f"{sides[0]} x {sides[1]} in {part.source}"
        raise BenchError(
            f"{path}: {width} x {height} pixels, but image {number} is {recorded}; replace the file, or "
            f"correct the record"
        )
    return ""


def _require_apart(train: Part, unlabelled: Part) -> None:
    """Raise BenchError where an unlabelled image is a training image too: its labels would not be hidden."""
    known = {image["id"] for image in train.images if isinstance(image, dict) and type(image.get("id")) is int}
    for image in unlabelled.images:
        number = image.get("id") if isinstance(image, dict) else None
        if type(number) is int and number in known:
            raise BenchError(
                f"{unlabelled.source}: image {number} is in {train.source} too; remove it, or give it an id of its own"
            )


def _places(options: Options) -> list[str]:
    return [options.train_annotations, options.train_images, options.val_annotations, options.val_images]
