"""Prepare COCO, and every other folder of images with COCO annotations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from pais_bench.annotations.store import DroppedRecord, ProgressCallback, Subset, ignore_progress, write_store
from pais_bench.errors import BenchError
from pais_bench.study.base import StrictConfig

LISTS = ("images", "annotations", "categories")


class Options(StrictConfig):
    """Set the paths of annotation files and image folders below the root; unlabelled images may have no file."""

    train_annotations: str = "annotations/instances_train2017.json"
    train_images: str = "train2017"
    val_annotations: str = "annotations/instances_val2017.json"
    val_images: str = "val2017"
    unlabelled_annotations: str | None = None
    unlabelled_images: str = "unlabeled2017"


class Dataset:
    """Read COCO instances files."""

    def __init__(self, options: Options, root: Path | None) -> None:
        """Keep the folder of the data; raise BenchError if no root is options."""
        if root is None:
            raise BenchError(f"dataset.root: missing; give the folder that holds {', '.join(_paths(options))}")
        self.options, self.root = options, root

    def prepare(
        self, folder: Path, label: str, repair: bool = False, progress: ProgressCallback = ignore_progress
    ) -> None:
        """Write the store of all subsets into a folder; the images stay where they are.

        A repair drops the records that docs/reference/faults.md lists as dropped, and writes them to repaired.json.
        Raises BenchError that names the file, and if possible the id, of the first thing that is missing or invalid.
        """
        if not self.root.is_dir():
            expected = ", ".join(_paths(self.options))
            raise BenchError(f"{self.root}: no such folder; set dataset.root to the folder that holds {expected}")
        options = self.options
        paths: dict[str, tuple[str, str, Sequence[str]]] = {
            "train": (options.train_annotations, options.train_images, LISTS),
            "val": (options.val_annotations, options.val_images, LISTS),
        }
        if options.unlabelled_annotations is not None:
            paths["unlabelled"] = (options.unlabelled_annotations, options.unlabelled_images, ("images", "categories"))
        subsets = {}
        for name, (file, images, required) in paths.items():
            progress(f"{self.root / file}: reading")
            subsets[name] = _check_images(read(self.root / file, self.root / images, required), repair)
        if "unlabelled" in subsets:
            _require_disjoint(subsets["train"], subsets["unlabelled"])
        write_store(folder, label, subsets, repair, progress)


def read(annotations: Path, images: Path, required: Sequence[str] = LISTS) -> Subset:
    """Read a COCO instances file; raise BenchError unless it has the required lists and the image folder exists."""
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
    for key, records in lists.items():
        if not isinstance(records, list):
            raise BenchError(f"{annotations}: has no list '{key}'; {remedy}")
    return Subset(str(annotations), images, lists["images"], lists["annotations"], lists["categories"], extra=content)


def _check_images(subset: Subset, repair: bool) -> Subset:
    """Return a subset without the images that a repair drops; raise BenchError for a missing or faulty image file.

    The folder is listed once, because looking for every file is slow on a network drive. Invalid records pass, because
    the store reports them.
    """
    present = {path.relative_to(subset.folder).as_posix() for path in subset.folder.rglob("*")}
    kept, dropped, missing = [], [], []
    for position, image in enumerate(subset.images):
        name = image.get("file_name") if isinstance(image, dict) else None
        reason = ""
        if isinstance(name, str) and name:
            if name not in present:
                missing.append(name)
                reason = f"{subset.folder / _escape(name)}: no such image; put it there"
            else:
                reason = _unreadable(subset, image)
        if not reason:
            kept.append(image)
        elif repair:
            dropped.append(DroppedRecord("images", position, "image file", reason, image))
        elif not missing:
            raise BenchError(reason)
    if missing and not repair:
        first = ", ".join(map(_escape, missing[:3]))
        raise BenchError(
            f"{subset.folder}: {len(missing)} of the {len(subset.images)} images of {subset.source} are missing, "
            f"the first: {first}; put them there"
        )
    return replace(subset, images=kept, dropped=dropped)


def _escape(name: str) -> str:
    """Return a name, escaped if it is not printable."""
    return name if name.isprintable() else ascii(name)


def _unreadable(subset: Subset, image: Mapping[str, Any]) -> str:
    """Return why an image file cannot be read, or ""; raise BenchError if its size is not the recorded one."""
    path = subset.folder / image["file_name"]
    try:
        with Image.open(path) as file:
            width, height = file.size
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        return f"{path}: unreadable image ({' '.join(str(error).split())}); replace the file"
    sides = (image.get("width"), image.get("height"))
    if all(type(side) is int and side > 0 for side in sides) and sides != (width, height):
        image_id, recorded = _escape(str(image.get("id"))), f"{sides[0]} x {sides[1]} in {subset.source}"
        raise BenchError(
            f"{path}: {width} x {height} pixels, but image {image_id} is {recorded}; replace the file, or "
            f"correct the record"
        )
    return ""


def _require_disjoint(train: Subset, unlabelled: Subset) -> None:
    """Raise BenchError if an unlabelled image is a training image too: its labels would not be held out."""
    train_ids = {image["id"] for image in train.images if isinstance(image, dict) and type(image.get("id")) is int}
    for image in unlabelled.images:
        image_id = image.get("id") if isinstance(image, dict) else None
        if type(image_id) is int and image_id in train_ids:
            raise BenchError(
                f"{unlabelled.source}: image {image_id} is in {train.source} too; remove it, or give it another id"
            )


def _paths(options: Options) -> list[str]:
    return [options.train_annotations, options.train_images, options.val_annotations, options.val_images]
