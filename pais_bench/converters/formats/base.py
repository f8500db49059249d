"""Define what a converter does: it finds the labelled photos of a folder by subset, and reads the objects of each."""

from __future__ import annotations

import filecmp
import itertools
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

from pais_bench.annotations.rle import describe_mask
from pais_bench.errors import REMEDIES, BenchError
from pais_bench.images.files import ImageFolder, image_files
from pais_bench.images.pixels import Size, read_header

BACKGROUND = "have an object in all four corners; where it is the background, correct the labels"
CLASSES = (
    "have mostly objects of several separate parts; where they are classes, give every object its own number or row"
)
"""The doubts about photos whose background seems to be an object, or whose objects seem to be classes."""
LABELS = re.compile(r"(mask|label(?!l?ed))s?")
PHOTOS = re.compile(r"(image|img|photo)s?|(?<!un)labell?ed")
"""Words in the names of folders of labels, and in those of folders of photos, such as PedMasks and PNGImages.

A folder `labeled` holds photos if another folder beside or below it holds labels; `unlabelled` always holds photos.
"""
OF_LABELS = re.compile(f"annotation|{LABELS.pattern}")
"""Words in the names of folders whose files may be masks that have the names of their photos."""
PART = 0.1
"""Share of an object's pixels above which a separate piece counts as a part; stray pixels are fewer."""
LOSSY = ("JPEG", "MPO")
"""Formats that change pixels: the edge of an object gets numbers that are no objects."""


class Object(NamedTuple):
    """Hold an object: the name of its class, and its mask as COCO polygons, with the source's coordinates, or RLE."""

    class_name: str
    segmentation: Any


class LeftOut(NamedTuple):
    """Hold what of a source cannot be an instance mask: its kind, in the plural, and where it is.

    may_be_object says whether it can stand for an object whose mask nobody drew, as a box does.
    """

    kind: str
    place: str
    may_be_object: bool = True


class Photo(NamedTuple):
    """Hold a photo: its path, (H, W) that its masks have, its objects, and what of its labels is left out.

    doubts say why its masks may not be masks of objects, each as a predicate of "photos" with the remedy | place says
    where its labels are.
    """

    path: Path
    size: Size
    objects: Sequence[Object]
    left_out: Sequence[LeftOut] = ()
    doubts: Sequence[str] = ()
    place: str = ""


class Item(NamedTuple):
    """Hold a photo and the files of its labels, none where it is known to have no object."""

    photo: Path
    labels: Sequence[Path]


class MissingPhoto(BenchError):
    """Say that the photo of some labels is nowhere below the folder."""


class ConverterBase(ABC):
    """Read a folder of one format; the class is named Converter in each file.

    classes are the names that the source lists by their category id; classes that only objects name follow them |
    notes are sentences about the whole source | single_object is a note for a source with one object in every photo.
    """

    single_object: str = ""

    @staticmethod
    @abstractmethod
    def is_format(folder: Path) -> bool:
        """Return whether a folder has the layout of the format."""

    def __init__(self, folder: Path, class_name: str) -> None:
        """Keep the folder, and the name of the class where the format has none."""
        self.folder, self.class_name = folder, class_name
        self.classes: dict[int, str] = {}
        self.notes: list[str] = []

    @cached_property
    def files(self) -> ImageFolder:
        return ImageFolder(self.folder)

    def find_photo(self, labels: Path, name: str) -> Path:
        """Return the photo that a file of labels names: beside it, in `images` there, or anywhere below the folder.

        A file beside labels may be a mask if their folder is named like one of labels. A file of the same name in a
        folder of photos is taken instead. Of files with the same bytes the first is taken. Raises MissingPhoto where
        there is none, and BenchError where it may be several.
        """
        bare = Path(name).name
        for candidate in (labels.parent / name, labels.parent / bare, labels.parent / "images" / name):
            if candidate.is_file():
                return (candidate.parent == labels.parent and self._instead_of(candidate, labels, name)) or candidate
        for spelling in (name, bare):
            (file,) = self.files.find([spelling])
            if file is not None:
                return self.folder / file
        candidates = [self.folder / file for file in self.files.guesses(bare)]
        if len(candidates) > 1 and _are_copies(candidates):
            return candidates[0]
        if hint := self.files.hint(bare):
            raise BenchError(f"{labels}: its photo {name} is missing ({hint}); put it beside this file")
        raise MissingPhoto(f"{labels}: its photo {name} is missing; put it beside this file")

    def _instead_of(self, beside: Path, labels: Path, name: str) -> Path | None:
        """Return the photo that labels name rather than the file beside them, if any; raise BenchError for several."""
        folders = beside.parent.relative_to(self.folder).parts
        rest = {folder for folder in folders if not OF_LABELS.search(folder.lower())}
        if len(rest) == len(set(folders)):
            return None
        namesakes = [self.folder / file for file in self._in_photo_folders.get(beside.name, ())]
        files = [file for file in namesakes if rest <= set(file.parts)]  # as labels/train and images/train
        if any(filecmp.cmp(file, beside, shallow=False) for file in files):
            return None
        shared = {file: _shared_end(file, name) for file in files}
        found = [file for file in files if shared[file] == max(shared.values())]
        if not _are_copies(found):
            raise BenchError(
                f"{labels}: its photo {name} may be {' or '.join(map(str, found[:3]))}; move those that it was not "
                f"drawn on out of {self.folder}"
            )
        return found[0] if found else None

    @cached_property
    def _in_photo_folders(self) -> dict[str, list[str]]:
        """Map the name of every image file to the paths that it has in folders named like photos, not like labels."""
        found: dict[str, list[str]] = {}
        for file in map(PurePosixPath, image_files(self.folder)):
            folders = file.parent.as_posix().lower()
            if PHOTOS.search(folders) and not OF_LABELS.search(folders):
                found.setdefault(file.name, []).append(file.as_posix())
        return found

    def note_missing(self, missing: Sequence[str], count: int, source: str) -> None:
        """Note how many of the count labelled photos of a source are missing; raise BenchError where all are.

        missing says of each where it should be.
        """
        if missing and len(missing) == count:
            raise BenchError(f"{source}: none of the {count} labelled photos is there; {missing[0]}")
        if missing:
            share = f"{len(missing)} of {count} labelled photos"
            self.notes.append(f"warning: left out: {share}, which are missing, the first: {missing[0]}")

    @abstractmethod
    def subsets(self) -> Mapping[str, Sequence[Any]]:
        """Return what read takes, an Item as a rule, of each subset: 'train', 'val' or 'test', or '' where none is."""

    @abstractmethod
    def read(self, item: Any) -> Photo:
        """Read a photo's labels, in any thread; raise MissingPhoto, or BenchError for a fault."""


def _are_copies(files: Sequence[Path]) -> bool:
    """Return whether all files have the same bytes; true for one file and for none."""
    return all(filecmp.cmp(files[0], other, shallow=False) for other in files[1:])


def _shared_end(file: Path, name: str) -> int:
    """Return how many parts at the end of its path a file has in common with a name."""
    pairs = zip(reversed(file.parts), reversed(PurePosixPath(name.replace("\\", "/")).parts), strict=False)
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)))


def photo_size(photo: Path, labels: Path, size: Size | None) -> Size:
    """Return the (H, W) that the labels of a photo have, by default that of the upright photo.

    Raises BenchError where it is neither that of the photo upright nor as stored.
    """
    header = read_header(photo)
    if size is None:
        return header.upright
    if header.is_turned(size) is None:
        raise BenchError(
            f"{labels}: {size[1]} x {size[0]} pixels, but its photo {photo} has {header.describe()}; give the photo "
            f"that was labelled, or label this one"
        )
    return size


def read_values(path: Path) -> np.ndarray:
    """Return an image file of labels as its numbers [H,W], palette indices included, or its colours [H,W,3 or 4].

    Raises BenchError for a file that cannot be read, for a JPEG, whose numbers are not those that were drawn, and for
    several pages.
    """
    try:
        with Image.open(path) as file:
            if file.format in LOSSY:
                raise BenchError(f"{path}: a JPEG, which changes the numbers of labels; export them as PNG or TIFF")
            if getattr(file, "is_animated", False):
                raise BenchError(f"{path}: several pages or frames; save the labels of one photo as one page")
            return np.asarray(file)
    except BenchError:
        raise
    except FileNotFoundError as error:
        raise BenchError(f"{path}: no such label image; put it there, or remove its photo") from error
    except Exception as error:  # Pillow's readers raise anything for a damaged file
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in REMEDIES):
            raise
        raise BenchError(
            f"{path}: unreadable image of labels ({' '.join(str(error).split())}); write it again"
        ) from error


def read_instances(path: Path) -> np.ndarray:
    """Return a label image as integers [H,W], 0 where no object is; raise BenchError for colours or other numbers."""
    values = read_values(path)
    if values.ndim != 2 or not (np.issubdtype(values.dtype, np.integer) or values.dtype == bool):
        raise BenchError(f"{path}: its pixels are colours or fractions, not numbers of objects; save it as 16-bit grey")
    if (lowest := int(values.min())) < 0:
        raise BenchError(f"{path}: the number {lowest}; give 0 where no object is, and every object a number above")
    return values


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text file; raise BenchError where it is none in UTF-8, or cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise BenchError(f"{path}: not a text file in UTF-8 ({error}); save it as one") from error
    except FileNotFoundError as error:
        raise BenchError(f"{path}: no such file; name one that is there") from error


def mask_of(mask: np.ndarray) -> Any:
    """Return a mask bool[H,W] as compressed RLE."""
    return describe_mask(mask)["segmentation"]


def doubts_about(masks: Iterable[np.ndarray]) -> list[str]:
    """Return the doubts about the masks bool[H,W] of a photo, which are read one at a time."""
    count = corners = parted = 0
    for mask in masks:
        count, corners, parted = count + 1, corners + is_in_corners(mask), parted + _has_parts(mask)
    return [BACKGROUND] * bool(corners) + [CLASSES] * (0 < count <= 2 * parted)


def _has_parts(mask: np.ndarray) -> bool:
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return False
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # labelling whole photos would take seconds
    areas = np.bincount(ndimage.label(box, np.ones((3, 3)))[0][box])
    return bool((areas > PART * areas.sum()).sum() > 1)


def is_in_corners(mask: np.ndarray) -> bool:
    """Return whether a mask bool[H,W] covers all four corners of its photo, as a background does."""
    return bool(mask[[0, 0, -1, -1], [0, -1, 0, -1]].all())


def photos_by_stem(folder: Path) -> dict[str, Path]:
    """Return the image files directly in a folder by their name without suffix; raise BenchError for two of one."""
    return _without_suffix(folder, (name for name in image_files(folder) if "/" not in name))


def photos_by_path(folder: Path) -> dict[str, Path]:
    """Return the image files below a folder by their path there without suffix; raise BenchError for two of one."""
    return _without_suffix(folder, image_files(folder))


def _without_suffix(folder: Path, names: Iterable[str]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for name in names:
        path = folder / name
        if (other := found.setdefault(Path(name).with_suffix("").as_posix(), path)) != path:
            raise BenchError(f"{path}: {other.name} has the same name but for its suffix; remove one of the two")
    return found
