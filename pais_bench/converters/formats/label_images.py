"""Read an image of labels for each photo, whose value at a pixel is the number of the object there, 0 for none.

Cellpose and StarDist have them, as PNG or TIFF of 8, 16 or 32 bits. A photo PHOTO.png in `images` has the labels
PHOTO.* in `masks` or `labels` beside that folder; or PHOTO_masks.* or PHOTO_cp_masks.* lies beside the photo. An object
is of the class that the command names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pais_bench.converters.formats.base import (
    ConverterBase,
    Item,
    Object,
    Photo,
    mask_of,
    photo_size,
    photos_by_stem,
    read_instances,
)
from pais_bench.errors import BenchError
from pais_bench.images.files import image_files, role_of

FOLDERS = ("masks", "labels", "label")
SUFFIXES = ("_cp_masks", "_masks")
"""What the name of an image of labels beside its photo ends in, the longer first."""
FOREGROUND = 255
IMAGE = "_img"
"""What Cellpose's photos end in, whose labels end in _masks in its place."""


class Converter(ConverterBase):
    """Read the images of labels below a folder."""

    single_object = "every photo has one number; where it is that of several objects, give each its own"

    @staticmethod
    def is_format(folder: Path) -> bool:
        """Return whether the first pair of folders shares a name, or an image lies beside its labels."""
        for photos, labels in _folders(folder):
            return bool(set(_by_stem(photos)) & set(_by_stem(labels)))
        return any(Path(name).stem.endswith(SUFFIXES) for name in image_files(folder))

    def subsets(self) -> Mapping[str, Sequence[Item]]:
        """Return the photos by subset; raise BenchError for an image of labels without a photo."""
        self.classes = {1: self.class_name}
        found: dict[str, list[Item]] = {}
        unlabelled = 0
        for photos, labels in self._pairs():
            for stem in sorted(set(labels) - set(photos)):
                raise BenchError(f"{labels[stem]}: the photo of these labels is missing; put it back, or remove them")
            for stem in sorted(labels):
                role = role_of(photos[stem].relative_to(self.folder).parent)
                found.setdefault(role, []).append(Item(photos[stem], [labels[stem]]))
            unlabelled += len(set(photos) - set(labels))
        if unlabelled:
            self.notes.append(f"left out: {unlabelled} photos without an image of labels")
        return found

    def read(self, item: Item) -> Photo:
        """Read an image of labels."""
        (path,) = item.labels
        values = read_instances(path)
        numbers = np.unique(values)
        if values.dtype == bool or numbers[numbers > 0].tolist() == [FOREGROUND]:
            kind = "it has one bit a pixel" if values.dtype == bool else f"its one number is {FOREGROUND}"
            raise BenchError(
                f"{path}: {kind}, as of a mask of all objects; give every object a number of "
                f"its own, or a file of its own (format masks)"
            )
        size = photo_size(item.photo, path, values.shape)
        masks = (values == number for number in numbers if number)
        return Photo(item.photo, size, [Object(self.class_name, mask_of(mask)) for mask in masks])

    def _pairs(self) -> Iterator[tuple[dict[str, Path], dict[str, Path]]]:
        """Yield photos and images of labels, each by what their names share."""
        folders = list(_folders(self.folder))
        for images, masks in folders:
            yield _by_stem(images), _by_stem(masks)
        if folders:
            return
        for folder in sorted({(self.folder / name).parent for name in image_files(self.folder)}):
            paths = photos_by_stem(folder)
            labels = {_photo_stem(stem): path for stem, path in paths.items() if stem.endswith(SUFFIXES)}
            others = {stem: path for stem, path in paths.items() if not stem.endswith(SUFFIXES)}
            yield {stem.removesuffix(IMAGE): path for stem, path in others.items()}, labels


def _by_stem(folder: Path) -> dict[str, Path]:
    return photos_by_stem(folder) if folder.is_dir() else {}


def _photo_stem(stem: str) -> str:
    for suffix in SUFFIXES:
        if stem.endswith(suffix):
            return stem.removesuffix(suffix).removesuffix(IMAGE)
    return stem


def _folders(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each folder of photos with that of its labels: beside it, or images/train with masks/train.

    Either may be absent; those that have labels come first.
    """
    for images in sorted(path for path in folder.glob("**/images") if path.is_dir()):
        for name in FOLDERS:
            if (labels := images.with_name(name)).is_dir() and (files := image_files(labels)):
                labelled = {Path(file).parent for file in files}
                others = {Path(file).parent for file in image_files(images)} - labelled
                yield from ((images / below, labels / below) for below in [*sorted(labelled), *sorted(others)])
                break
