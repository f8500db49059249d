"""Read an image of labels for each photo, whose value at a pixel is the number of the object there, 0 for none.

Cellpose, StarDist, Penn-Fudan and CVPPP's leaves have them, as PNG or TIFF of 8, 16 or 32 bits. A photo PHOTO.png in
`images` has the labels PHOTO.* or PHOTO_mask.* in `masks` or `labels` beside that folder; or PHOTO_masks.*,
PHOTO_cp_masks.* or PHOTO_label.* lies beside the photo, which may be PHOTO_img.* or PHOTO_rgb.* too. An object is of
the class that the command names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from pais_bench.converters.drawn_pictures import continues_photo
from pais_bench.converters.formats.base import (
    LABELS,
    PHOTOS,
    ConverterBase,
    Item,
    Object,
    Photo,
    doubts_about,
    mask_of,
    photo_size,
    photos_by_stem,
    read_instances,
)
from pais_bench.errors import BenchError
from pais_bench.images.files import image_files, role_of

LABELLED = re.compile(r"(?<!un)labell?ed")
ENDS = re.compile(r"_(cp_)?(mask|label)s?$")
"""What may follow the name of the photo in the name of its image of labels, in a folder of labels."""
SUFFIXES = ("_cp_masks", "_masks", "_label")
"""What follows the name of the photo in the name of an image of labels beside it, the longer first."""
FOREGROUND, SOFT = 255, 8
"""The value of a mask of all objects, and the least count of numbers in the soft edges that resizing gives it."""
VOID = f"have the number {FOREGROUND} beside 1, 2, 3, ...; if it is a border or void, give it 0"
"""The doubt about labels whose last number may not be that of an object."""
MOST_CLASSES, IGNORED = 34, 10000
"""The numbers of Cityscapes' classes are below the first; KITTI MOTS marks with the second what it does not judge."""
IMAGE = re.compile("_(img|rgb)$")
"""What the names of photos of Cellpose and of CVPPP's leaves end in; their labels end in _masks and _label instead."""


class AmbiguousPhotos(BenchError):
    """Report labels whose names are those of photos in several folders."""


class Converter(ConverterBase):
    """Read the images of labels below a folder."""

    single_object = "every photo has one number; where it is that of several objects, give each its own"

    @staticmethod
    def is_format(folder: Path) -> bool:
        """Return whether the first pair of folders shares a name, or an image lies beside its labels."""
        try:
            for photos, labels in _folders(folder):
                return bool(set(_by_stem(photos)) & set(_labels_by_stem(photos, labels)))
        except AmbiguousPhotos:  # which counts where the folder has no other labels
            return True
        return any(Path(name).stem.endswith(SUFFIXES) for name in image_files(folder))

    def subsets(self) -> Mapping[str, Sequence[Item]]:
        """Return the photos by subset, without labels whose photo is missing; raise BenchError where all are."""
        self.classes = {1: self.class_name}
        found: dict[str, list[Item]] = {}
        unlabelled = 0
        for photos, labels in self._pairs():
            lost = [labels[stem] for stem in sorted(set(labels) - set(photos))]
            missing = [f"{path}: the photo of these labels is missing; put it back" for path in lost]
            self.note_missing(missing, len(labels), str(self.folder))
            for stem in sorted(set(labels) & set(photos)):
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
        numbers, pixels = np.unique(values[values != 0], return_counts=True)
        if kind := _as_one_mask(values.dtype, numbers, pixels):
            raise BenchError(
                f"{path}: {kind}, like a mask of all objects; give every object a number of its own, or a file of its "
                f"own (format masks)"
            )
        if _are_of_classes(numbers.astype(np.int64)):
            raise BenchError(
                f"{path}: its numbers, such as {numbers[-1]}, hold class and object in one, like those of KITTI and "
                f"Cityscapes, and the background has such numbers too; give every object its own number, 0 elsewhere"
            )
        size = photo_size(item.photo, path, values.shape)
        objects = [Object(self.class_name, mask_of(values == number)) for number in numbers]
        doubts = doubts_about(values == number for number in numbers) + [VOID] * _has_void(numbers)
        return Photo(item.photo, size, objects, doubts=doubts, place=str(path))

    def _pairs(self) -> Iterator[tuple[dict[str, Path], dict[str, Path]]]:
        """Yield the photos and the images of labels of each pair of folders, both by the name of the photo."""
        folders = list(_folders(self.folder))
        for images, masks in folders:
            yield _by_stem(images), _labels_by_stem(images, masks)
        if folders:
            return
        for folder in sorted({(self.folder / name).parent for name in image_files(self.folder)}):
            paths = photos_by_stem(folder)
            labels = {_photo_stem(stem): path for stem, path in paths.items() if stem.endswith(SUFFIXES)}
            yield _photos_beside(paths, labels), labels


def _as_one_mask(dtype: np.dtype, numbers: np.ndarray, pixels: np.ndarray) -> str:
    """Return why labels seem to be one mask and not numbers of objects, nothing where they do not."""
    if np.issubdtype(dtype, np.bool_):
        return "it has one bit a pixel"
    if numbers.tolist() == [FOREGROUND]:
        return f"its one number is {FOREGROUND}"
    if len(numbers) > SOFT and numbers[-1] == FOREGROUND and pixels[-1] > pixels.sum() / 2:
        return f"most of its pixels have {FOREGROUND}, and its edges {len(numbers) - 1} other numbers"
    return ""


def _are_of_classes(numbers: np.ndarray) -> bool:
    """Return whether a number is a class times 256 or 1000 plus an object of it, and stuff has numbers too."""
    kitti = len(numbers) > 1 and numbers[0] >= 256 and (numbers % 256 == 0).any() and (numbers % 256 < 128).all()
    cityscapes = numbers[numbers >= MOST_CLASSES]
    is_cityscapes = 0 < len(cityscapes) < len(numbers) and np.isin(cityscapes // 1000, np.arange(11, 34)).all()
    mots = IGNORED in numbers and np.isin(numbers[numbers != IGNORED] // 1000, (1, 2)).all()
    return bool(kitti or is_cityscapes or mots)


def _has_void(numbers: np.ndarray) -> bool:
    """Return whether the numbers are 1, 2, ... and 255, which then is likely to be that of a border."""
    return len(numbers) > 1 and numbers.tolist() == [*range(1, len(numbers)), FOREGROUND]


def _by_stem(folder: Path) -> dict[str, Path]:
    return photos_by_stem(folder) if folder.is_dir() else {}


def _labels_by_stem(photos: Path, labels: Path) -> dict[str, Path]:
    """Return the images of labels by the names of their photos; what ENDS matches is removed unless a photo has it."""
    names = set(_by_stem(photos))
    found: dict[str, Path] = {}
    for stem, path in _by_stem(labels).items():
        name = stem if stem in names else ENDS.sub("", stem)
        if (other := found.setdefault(name, path)) != path:
            raise BenchError(f"{path}: {other.name} is of the same photo; remove one of the two")
    return found


def _photos_beside(paths: Mapping[str, Path], labels: Mapping[str, Path]) -> dict[str, Path]:
    """Return the photos of a folder by the names that labels have; raise BenchError where two photos have one."""
    stems = {Path(stem) for stem in paths}
    found: dict[str, Path] = {}
    for stem, path in paths.items():
        if stem.endswith(SUFFIXES) or continues_photo(Path(stem), stems):
            continue
        name = IMAGE.sub("", stem)
        if (other := found.setdefault(name, path)) != path and name in labels:
            raise BenchError(f"{labels[name]}: its photo may be {other} or {path.name}; remove one of the two")
    return found


def _photo_stem(stem: str) -> str:
    for suffix in SUFFIXES:
        if stem.endswith(suffix):
            return IMAGE.sub("", stem.removesuffix(suffix))
    return stem


def _folders(folder: Path) -> Iterator[tuple[Path, Path]]:
    """Yield each folder of photos with the folder of its labels, such as images/train with masks/train.

    One of the two may be absent; pairs that have labels come first. Where several folders of photos lie beside a folder
    of labels, such as train_images and test_images, the one of the same subset is taken if it shares a name with the
    labels, else the one that shares most names. Raises AmbiguousPhotos where several share as many.
    """
    files = [Path(file) for file in image_files(folder)]
    holding = {file.parent for file in files}
    above = {path for parent in holding for path in (parent, *parent.parents)} - {Path(".")}
    of_labels = {path for path in above if LABELS.search(path.name.lower())}
    near = {other for path in of_labels for other in (path.parent, *path.parents)}
    of_labels |= {path for path in above if LABELLED.search(path.name.lower()) and not {path, path.parent} & near}
    for labels in sorted(path for path in of_labels if not of_labels & set(path.parents)):
        there = sorted(path.relative_to(folder) for path in (folder / labels.parent).iterdir() if path.is_dir())
        beside = [path for path in there if path not in of_labels]
        own = [path for path in beside if path.name.lower() == ENDS.sub("", labels.name.lower())]
        named = own or [path for path in beside if PHOTOS.search(path.name.lower())]
        if named:
            photos = _photos_of(labels, named, files)
            labelled, others = _below(labels, holding), _below(photos, holding)
            below = [*sorted(labelled), *sorted(others - labelled)]
            yield from ((folder / photos / path, folder / labels / path) for path in below)


def _photos_of(labels: Path, folders: Sequence[Path], files: Sequence[Path]) -> Path:
    masks, subset = _names(files, labels), LABELS.sub("", labels.name.lower())
    shared = {path: len(_names(files, path) & masks) for path in folders}
    ranks = {path: (PHOTOS.sub("", path.name.lower()) == subset and shared[path] > 0, shared[path]) for path in folders}
    best, *others = (path for path in folders if ranks[path] == max(ranks.values()))
    if others and shared[best]:
        raise AmbiguousPhotos(
            f"{labels}: its photos may be those of {best} or {others[0]}, which have the same names; name its folder "
            f"and theirs alike, as train_masks and train_images"
        )
    return best


def _names(files: Iterable[Path], top: Path) -> set[Path]:
    """Return the paths of the files below a folder, without suffixes and without what ENDS matches."""
    below = (file.relative_to(top) for file in files if file.is_relative_to(top))
    return {file.with_name(ENDS.sub("", file.stem)) for file in below}


def _below(top: Path, folders: Iterable[Path]) -> set[Path]:
    return {path.relative_to(top) for path in folders if path.is_relative_to(top)}
