"""What does a folder of images with COCO annotations hold? COCO itself, and every dataset that is laid out like it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pais_bench.config import Frozen
from pais_bench.store import Part, write_store
from pais_bench.types import BenchError

LISTS = ("images", "annotations", "categories")


class Options(Frozen):
    """Say where under the root the annotation files and the image folders lie."""

    train_annotations: str = "annotations/instances_train2017.json"
    train_images: str = "train2017"
    val_annotations: str = "annotations/instances_val2017.json"
    val_images: str = "val2017"


class Dataset:
    """Read COCO instances files."""

    def __init__(self, options: Options, root: Path | None) -> None:
        """Keep where the data lies; raise BenchError where no root is given."""
        if root is None:
            raise BenchError(f"dataset.root: missing; give the folder that holds {', '.join(_places(options))}")
        self.options, self.root = options, root

    def prepare(self, folder: Path, label: str) -> None:
        """Write the store of both parts into a folder; the images stay where they are.

        Raises BenchError that names the file, and where it can the id, of the first thing that is missing or wrong.
        """
        if not self.root.is_dir():
            expected = ", ".join(_places(self.options))
            raise BenchError(f"{self.root}: no such folder; set dataset.root to the folder that holds {expected}")
        given = self.options
        parts = {
            "train": read(self.root / given.train_annotations, self.root / given.train_images),
            "val": read(self.root / given.val_annotations, self.root / given.val_images),
        }
        for part in parts.values():
            _require_images(part)
        write_store(folder, label, parts)


def read(annotations: Path, images: Path) -> Part:
    """Read one COCO instances file; raise BenchError unless it is one and the image folder is there."""
    if not annotations.is_file():
        raise BenchError(f"{annotations}: no such annotation file; put it there, or name it in dataset.options")
    if not images.is_dir():
        raise BenchError(f"{images}: no such image folder; put the images there, or name it in dataset.options")
    try:
        content = json.loads(annotations.read_bytes())
    except ValueError as error:
        raise BenchError(f"{annotations}: not valid JSON ({error}); fetch the file again") from error
    return Part(str(annotations), images, **{key: _list(content, key, annotations) for key in LISTS})


def _list(content: Any, key: str, source: Path) -> list[Any]:
    remedy = f"an instances file in COCO format is a mapping with the lists {', '.join(LISTS)}"
    if not isinstance(content, dict):
        raise BenchError(f"{source}: holds a {type(content).__name__}; {remedy}")
    if not isinstance(content.get(key), list):
        raise BenchError(f"{source}: has no list '{key}'; {remedy}")
    return list(content[key])


def _require_images(part: Part) -> None:
    """Raise BenchError that names the first missing images; the folder is listed once, as a network drive needs."""
    present = {path.relative_to(part.folder).as_posix() for path in part.folder.rglob("*")}
    named = (image.get("file_name") for image in part.images if isinstance(image, dict))
    missing = [name for name in named if isinstance(name, str) and name not in present]
    if missing:
        first = ", ".join(missing[:3])
        raise BenchError(
            f"{part.folder}: {len(missing)} of the {len(part.images)} images of {part.source} are missing, the first: "
            f"{first}; put them there"
        )


def _places(options: Options) -> list[str]:
    return [options.train_annotations, options.train_images, options.val_annotations, options.val_images]
