"""Prepare COCO, and every other folder of images with COCO annotations."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from pydantic import Field

from pais_bench.annotations.complete import Notes, complete_integers
from pais_bench.annotations.json_file import read_json_file
from pais_bench.annotations.sources import Sources
from pais_bench.annotations.store import ProgressCallback, Subset, ignore_progress, write_store
from pais_bench.annotations.validate import LISTS, abbreviate, file_name
from pais_bench.datasets._image_files import check_images, report_copies
from pais_bench.datasets._segments import read_segments
from pais_bench.errors import BenchError
from pais_bench.images.check import verify_if
from pais_bench.study.base import StrictConfig


class Options(StrictConfig):
    """Set the paths below the root, and the largest image; unlabelled images are read where their file is named.

    An annotation file with a folder of segments, PNGs, is one of COCO's panoptic format. classes are the names of those
    to learn: objects of the others are left out, and their images stay.
    """

    train_annotations: str = "annotations/instances_train2017.json"
    train_images: str = "train2017"
    train_segments: str | None = None
    val_annotations: str = "annotations/instances_val2017.json"
    val_images: str = "val2017"
    val_segments: str | None = None
    unlabelled_annotations: str | None = None
    unlabelled_images: str = "unlabeled2017"
    classes: tuple[str, ...] | None = Field(default=None, min_length=1)
    max_megapixels: float = Field(default=200, gt=0, le=500)


class Dataset:
    """Read COCO instances files, or panoptic ones."""

    def __init__(self, options: Options, root: Path | None) -> None:
        """Keep the folder of the data; raise BenchError if no root is given."""
        if root is None:
            raise BenchError(f"dataset.root: missing; give the folder that holds {_expected(options)}")
        self.options, self.root = options, root

    def sources(self) -> Sources:
        """Return the files and folders that the dataset is read from."""
        annotations, images = zip(*_paths(self.options).values(), strict=True)
        return Sources(self.root, (*annotations, *_segments(self.options).values()), images)

    def prepare(
        self,
        folder: Path,
        label: str,
        repair: bool = False,
        progress: ProgressCallback = ignore_progress,
        verify_images: bool | None = None,
    ) -> None:
        """Write the store of all subsets into a folder; the images stay where they are.

        verify_images: decode every image; None decodes them where they are at most images.check.VERIFIED_BY_DEFAULT.
        A repair drops or changes what docs/reference/faults.md says so of, and lists it in repaired.json.
        Raises BenchError that names the file, and if possible the id, of the first thing that is missing or invalid.
        """
        if not self.root.is_dir():
            expected = _expected(self.options)
            raise BenchError(f"{self.root}: no such folder; set dataset.root to the folder that holds {expected}")
        subsets: dict[str, Subset] = {}
        segments = _segments(self.options)
        for name, (file, images) in _paths(self.options).items():
            progress(f"{self.root / file}: reading")
            required = ("images", "categories") if name == "unlabelled" else LISTS
            subsets[name] = read(self.root / file, self.root / images, required)
            if name in segments:
                subsets[name] = read_segments(subsets[name], self.root / segments[name], progress)
            elif name == "unlabelled" and segments and not subsets[name].annotations:
                # COCO's list of unlabelled images has the classes of instances, and no label needs any.
                subsets[name] = replace(subsets[name], categories=subsets["train"].categories)
            else:
                _require_instances(subsets[name], f"dataset.options.{name}_segments")
        if self.options.classes is not None:
            subsets = {name: select_classes(subset, self.options.classes) for name, subset in subsets.items()}
        count = sum(len(subset.images) for subset in subsets.values())
        decode = verify_if(verify_images, count, progress)
        for name, subset in subsets.items():
            subsets[name] = check_images(subset, repair, decode, self.options.max_megapixels, progress)
        if "unlabelled" in subsets:
            _require_disjoint(subsets["train"], subsets["unlabelled"])
        report_copies(subsets, progress)
        for subset in subsets.values():
            _report_repeated(subset, progress)
        write_store(folder, label, subsets, repair, progress)


def read(annotations: Path, images: Path, required: Sequence[str] = LISTS) -> Subset:
    """Read a COCO instances file; raise BenchError unless it has the required lists and the image folder exists."""
    if not annotations.is_file():
        raise BenchError(f"{annotations}: no such annotation file; put it there, or name it in dataset.options")
    if not images.is_dir():
        raise BenchError(f"{images}: no such image folder; put the images there, or name it in dataset.options")
    content = read_json_file(annotations)
    remedy = f"an instances file in COCO format is a mapping with the lists {', '.join(required)}"
    if not isinstance(content, dict):
        raise BenchError(f"{annotations}: holds a {type(content).__name__}; {remedy}")
    lists = {key: content.pop(key, None if key in required else []) for key in LISTS}
    for key, records in lists.items():
        if not isinstance(records, list):
            held = f"has a {type(records).__name__} as '{key}'" if records is not None else f"has no list '{key}'"
            raise BenchError(f"{annotations}: {held}; {remedy}")
    notes = {noun: Notes(str(annotations), noun) for noun in ("image", "category")}
    return Subset(
        source=str(annotations),
        folder=images,
        images=complete_integers(lists["images"], "image", notes["image"]),
        annotations=lists["annotations"],
        categories=complete_integers(lists["categories"], "category", notes["category"]),
        extra=content,
        notes=[line for found in notes.values() for line in found.lines()],
    )


def select_classes(subset: Subset, classes: Sequence[str]) -> Subset:
    """Return a subset with the objects of some classes alone; raise BenchError for a class that its file lacks.

    Records that are no valid ones stay, to be refused by name where all are checked.
    """
    names = [category.get("name") for category in subset.categories if isinstance(category, dict)]
    for name in classes:
        if name not in names:
            known = ", ".join(map(str, names))
            raise BenchError(f"{subset.source}: no class '{name}', which dataset.options.classes has; it has {known}")
    others = [record for record in subset.categories if isinstance(record, dict) and record.get("name") not in classes]
    left_out = {record["id"] for record in others if isinstance(record.get("id"), int)}

    def stays(record: Any, key: str) -> bool:
        number = record.get(key) if isinstance(record, dict) else None
        return not (isinstance(number, (int, float)) and number in left_out)

    return replace(
        subset,
        categories=[record for record in subset.categories if stays(record, "id")],
        annotations=[record for record in subset.annotations if stays(record, "category_id")],
    )


def _require_instances(subset: Subset, key: str) -> None:
    """Raise BenchError for a panoptic file whose segments no option names; key is the option."""
    if any(isinstance(record, dict) and "segments_info" in record for record in subset.annotations):
        raise BenchError(
            f"{subset.source}: a panoptic file, whose segments are in PNGs; set {key} to the folder of the PNGs"
        )


def _report_repeated(subset: Subset, progress: ProgressCallback) -> None:
    """Report objects that are there twice: annotations of one image with the same class, box and mask."""
    first: dict[Any, Any] = {}
    repeated: list[tuple[Any, Any]] = []
    for annotation in subset.annotations:
        try:
            box, mask = annotation.get("bbox"), annotation.get("segmentation")
            key = (annotation["image_id"], annotation["category_id"], tuple(box) if box else str(mask))
            if (earlier := first.setdefault(key, annotation)) is not annotation and earlier.get("segmentation") == mask:
                repeated.append((annotation.get("id"), earlier.get("id")))
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            continue  # not a record of the format, which the store repairs or refuses
    if repeated:
        examples = ", ".join(f"annotation {abbreviate(one)} = {abbreviate(other)}" for one, other in repeated[:3])
        progress(
            f"warning: {subset.source}: objects that are there twice, of one class, box and mask: {len(repeated)}, the "
            f"first: {examples}; remove one of each"
        )


def _require_disjoint(train: Subset, unlabelled: Subset) -> None:
    """Raise BenchError if an unlabelled image is a training image too: its labels would not be held out.

    Two records are of one image where they name the same file. Each file numbers its images on its own.
    """
    train_files = set(_files(train))
    for path in _files(unlabelled):
        if path in train_files:
            raise BenchError(
                f"{unlabelled.source}: {path} is an image of {train.source} too; remove it from one of them"
            )


def _files(subset: Subset) -> list[str]:
    """Return the path of every image's file without links in the folder; records without a file name are left out."""
    folder = subset.folder.resolve()
    return [os.path.normpath(folder / name) for name in map(file_name, subset.images) if name]


def _paths(options: Options) -> dict[str, tuple[str, str]]:
    """Return the annotation file and the image folder of every subset, relative to the root."""
    paths = {
        "train": (options.train_annotations, options.train_images),
        "val": (options.val_annotations, options.val_images),
    }
    if options.unlabelled_annotations is not None:
        paths["unlabelled"] = (options.unlabelled_annotations, options.unlabelled_images)
    return paths


def _segments(options: Options) -> dict[str, str]:
    """Return the folder of PNGs of every subset that has one, relative to the root."""
    folders = {"train": options.train_segments, "val": options.val_segments}
    return {name: folder for name, folder in folders.items() if folder is not None}


def _expected(options: Options) -> str:
    return ", ".join(chain.from_iterable(_paths(options).values()))
