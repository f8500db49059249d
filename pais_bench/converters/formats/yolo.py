"""Read YOLO's segmentation labels: a text file for each photo, a line `class x1 y1 x2 y2 ...` for each object.

Coordinates are fractions of the upright photo's width and height. The file of a photo is found as Ultralytics does: the
last folder `images` of its path becomes `labels`; without either in the data set it lies beside the photo. A photo
without a file has no object. Polygons keep their coordinates, multiplied by the size.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pais_bench.converters.drawn_pictures import drawn_pictures, note_drawn
from pais_bench.converters.formats.base import (
    ConverterBase,
    Item,
    LeftOut,
    Object,
    Photo,
    photo_size,
    photos_by_stem,
    read_lines,
)
from pais_bench.converters.yolo_fractions import read_fractions
from pais_bench.converters.yolo_names import read_mapping, read_same_names
from pais_bench.converters.yolo_paths import find_end, labels_of, text_files_in_labels
from pais_bench.errors import BenchError
from pais_bench.images.files import ImageFolder, files_below, folders_below, image_files, role_of

KEYS = ("train", "val", "test")
NAMES = ("classes.txt", "obj.names", "labels.txt")
"""Files with a class name a line, where there is no YAML."""


class Converter(ConverterBase):
    """Read the photos that data.yaml names, or those below folders `images`."""

    @staticmethod
    def is_format(folder: Path) -> bool:
        """Return whether there is a data.yaml, a text file in `labels`, or one beside a photo and class names."""
        if _find_yamls(folder) or text_files_in_labels(folder):
            return True
        beside = ((folder / name).with_suffix(".txt") for name in image_files(folder))
        return any((folder / name).is_file() for name in NAMES) and any(path.is_file() for path in beside)

    def subsets(self) -> Mapping[str, Sequence[Item]]:
        """Return the photos by subset; raise BenchError for labels whose photo is missing, and without class names."""
        self._yaml = path = self._find_yaml()
        self._lists: set[Path] = set()
        content = read_mapping(path) if path else {}
        if "kpt_shape" in content:
            raise BenchError(
                f"{path}: kpt_shape: its lines are boxes and key points, which have no mask; draw outlines"
            )
        self.classes = self._class_names([path] if path else self._lists_of_names())
        photos = self._photos(content, path) if path else {"": self._below_images()}
        found: dict[str, list[Item]] = {}
        for subset, paths in photos.items():
            for photo in paths:
                labels = labels_of(photo, self.folder)
                name = subset or role_of(photo.relative_to(self.folder).parent)
                found.setdefault(name, []).append(Item(photo, [labels] if labels.is_file() else []))
        self._require_photos(found)
        self._note_others(found)
        return found

    def read(self, item: Item) -> Photo:
        """Read a text file; rows of a box, or of a polygon of two points, are left out."""
        size = photo_size(item.photo, item.photo, None)
        objects: list[Object] = []
        left_out: list[LeftOut] = []
        for path in item.labels:
            for number, line in enumerate(read_lines(path), start=1):
                if not (fields := line.split()):
                    continue
                place = f"{path}: line {number}"
                name = self._name(fields[0], place)
                points = read_fractions(fields[1:], place)
                if len(points) < 6:
                    kind = "boxes, which have no mask" if len(points) == 4 else "polygons of less than three points"
                    left_out.append(LeftOut(kind, place))
                    continue
                if len(points) % 2:
                    raise BenchError(
                        f"{place}: an odd number of coordinates; give a class, then x and y of every point"
                    )
                scaled = [value * size[1 - index % 2] for index, value in enumerate(points)]
                objects.append(Object(name, [scaled]))
        return Photo(item.photo, size, objects, left_out)

    def _find_yaml(self) -> Path | None:
        """Return the YAML file of the folder, else of the one sub-folder that has a data set.

        Raises BenchError where several sub-folders have one, and where two files of a folder name a class differently.
        """
        below = sorted({path.parent for path in files_below(self.folder, ".yaml", ".yml")})
        here = _find_yamls(self.folder)
        found = [here] if here else [paths for folder in below if (paths := _find_yamls(folder))]
        if len(found) > 1:
            raise BenchError(f"{self.folder}: has data sets of {found[0][0]} and {found[1][0]}; give the folder of one")
        if not found:
            return None
        path, *others = found[0]
        read_same_names(found[0])
        self.notes += [f"not used: {other}, in place of {path}" for other in others]
        return path

    def _photos(self, content: Mapping[str, Any], path: Path) -> dict[str, list[Path]]:
        """Return the photos of each key of the YAML."""
        entries = {key: _entries(content.get(key)) for key in KEYS}
        root = self._root(content.get("path"), path, [entry for key in ("train", "val") for entry in entries[key]])
        photos: dict[str, list[Path]] = {}
        for key in KEYS:
            for entry in entries[key]:
                place = self._locate(root, entry)
                if not place and (place := find_end(root, entry, key)):
                    self.notes.append(f"{path}: {key}: {entry} is not here; {place} is read instead")
                listed = self._expand(place, root) if place else []
                self._lists |= {place} if place else set()
                if not listed and key != "test":
                    where = f"no photo in {place}" if place else f"no such file or folder: {entry}"
                    raise BenchError(f"{path}: {key}: {where}; put them there, or correct the path, relative to {root}")
                if not listed:  # Roboflow names a test set in every export
                    self.notes.append(f"{path}: test: no photo in {entry}; there is no such subset")
                photos.setdefault(key, []).extend(listed)
        return photos

    def _root(self, named: Any, path: Path, entries: Sequence[str]) -> Path:
        """Return the folder that entries are relative to: the YAML's `path`, preferably below the converted folder.

        Where `path` does not exist, or lies outside while the entries lie here, as in a copy of the data set, it is the
        folder of the YAML.
        """
        candidates = [path.parent / str(named), Path(str(named)).absolute()] if named else [path.parent]
        found = [candidate for candidate in candidates if candidate.is_dir()]
        if inside := [candidate for candidate in found if self._is_below(candidate)]:
            return inside[0]
        places = [self._locate(path.parent, entry) for entry in entries]
        if found and not (places and all(place and self._is_below(place) for place in places)):
            return found[0]
        where = f"outside of {self.folder}" if found else "not here"
        self.notes.append(f"{path}: its path {named} is {where}; its folder {path.parent} is read instead")
        return path.parent

    def _expand(self, path: Path, root: Path) -> list[Path]:
        """Return the photos below a folder, or those that a text file lists; raise BenchError where all are missing.

        Lines are paths from the list, or from root, or those of another machine.
        """
        if path.is_dir():
            return self._photos_below(path)
        if path.suffix != ".txt":
            return [path]
        lines = [line.strip() for line in read_lines(path) if line.strip()]
        listed = [Path(os.path.normpath(path.parent / line)) for line in lines]
        if all(photo.is_file() for photo in listed):
            return listed
        found = ImageFolder(root).find(lines)
        lost = [line for line, file in zip(lines, found, strict=True) if file is None]
        missing = [f"{path}: its photo {line} is not below {root}; put it there" for line in lost]
        self.note_missing(missing, len(lines), str(path))
        return [root / file for file in found if file is not None]

    def _photos_below(self, top: Path) -> list[Path]:
        """Return the photos below a folder: its images, without those that are unlabelled and drawn_pictures names."""
        photos = [top / name for name in image_files(top)]
        labelled = {photo.resolve() for photo in photos if labels_of(photo, self.folder).is_file()}
        drawn = {top / name for name in drawn_pictures(top, labelled)}
        if drawn:
            self.notes.append(note_drawn(drawn))
        return [photo for photo in photos if photo not in drawn]

    def _locate(self, root: Path, entry: str) -> Path | None:
        """Return a file or folder, preferably below the converted one: Roboflow writes ../train for train."""
        places = [Path(os.path.normpath(root / path)) for path in (entry, entry.removeprefix("../"))]
        found = [place for place in places if place.exists()]
        return next(filter(self._is_below, found), found[0] if found else None)

    def _is_below(self, path: Path) -> bool:
        as_named, here = Path(os.path.normpath(path)), self.folder
        return as_named.is_relative_to(here) or path.resolve().is_relative_to(here.resolve())

    def _below_images(self) -> list[Path]:
        """Return the photos below folders named images, if there are any; pictures elsewhere then do not count."""
        files = image_files(self.folder)
        below = [file for file in files if "images" in Path(file).parts[:-1]]
        if not below:
            return self._photos_below(self.folder)
        if len(below) < len(files):
            self.notes.append(f"left out: {len(files) - len(below)} image files outside of folders 'images'")
        tops = [top.relative_to(self.folder) for top in folders_below(self.folder, "images")]
        outermost = [self.folder / top for top in tops if "images" not in top.parts[:-1]]
        return [photo for top in outermost for photo in self._photos_below(top)]

    def _note_others(self, found: Mapping[str, Sequence[Item]]) -> None:
        """Note how many photos lie outside of the folder or have no text file, and how many text files no photo has."""
        items = [item for subset in found.values() for item in subset]
        is_below = {folder: self._is_below(folder) for folder in {item.photo.parent for item in items}}
        if outside := [item.photo for item in items if not is_below[item.photo.parent]]:
            self.notes.append(f"{len(outside)} photos are outside of {self.folder}, the first: {outside[0]}")
        used = {path for item in items for path in item.labels}
        below = {path.parent for path in [*used, *text_files_in_labels(self.folder)]}
        others = [
            path
            for path in files_below(self.folder, ".txt")
            if path.parent in below and path not in used and path.name not in NAMES and path not in self._lists
        ]
        if others:
            self.notes.append(f"left out: {len(others)} text files that no photo has, the first: {others[0]}")
        if without := sum(not item.labels for item in items):
            self.notes.append(f"{without} photos have no text file, and are taken as photos without an object")

    def _class_names(self, paths: Sequence[Path]) -> dict[int, str]:
        more = f" and {len(paths) - 1} like it" if len(paths) > 1 else ""
        self.notes.append(f"classes are named by {paths[0]}{more}")
        return read_same_names(paths)

    def _lists_of_names(self) -> list[Path]:
        files = [path for path in files_below(self.folder, ".txt", ".names") if path.name in NAMES]
        if not files:
            raise BenchError(
                f"{self.folder}: no class names; write them into {self.folder / 'classes.txt'}, one a line"
            )
        return [path for path in files if path.name != NAMES[-1]] or files  # which may be that of a photo

    def _name(self, text: str, place: str) -> str:
        try:
            return self.classes[int(text) + 1]
        except (ValueError, KeyError):
            known = f"0 to {max(self.classes) - 1}" if self.classes else "none"
            raise BenchError(
                f"{place}: the class '{text[:20]}' is not among the names ({known}); add it, or correct it"
            ) from None

    def _require_photos(self, found: Mapping[str, Sequence[Item]]) -> None:
        """Raise BenchError for two photos of one text file, and for a text file without a photo of its name.

        Where all photos of its folder have text files, its photo is missing, and _note_others counts it: with others
        its photo may be one that would be taken as a photo without an object.
        """
        photos_found = [item.photo for items in found.values() for item in items]
        folders = {(photo.parent, labels_of(photo, self.folder).parent) for photo in photos_found}
        known = {labels for _, labels in folders}
        others = {path.parent for path in text_files_in_labels(self.folder)} - known if not self._yaml else set()
        for photos, labels in sorted([*folders, *((self.folder, labels) for labels in others)]):
            stems = photos_by_stem(photos) if labels in known else {}
            files = (path for path in files_below(labels, ".txt") if path.parent == labels and path.name not in NAMES)
            texts = {path.stem: path for path in files}
            lost, without = sorted(texts.keys() - stems.keys()), sorted(stems.keys() - texts.keys())
            if lost and labels != photos and (without or not stems):
                named = f", and {stems[without[0]].name} has no labels" if without else ""
                raise BenchError(
                    f"{texts[lost[0]]}: the photo of these labels is missing{named}; put it back, or remove the labels"
                )


def _find_yamls(folder: Path) -> list[Path]:
    """Return the YAML files of data sets directly in a folder."""
    found: list[Path] = []
    for path in sorted(path for pattern in ("*.yaml", "*.yml") for path in folder.glob(pattern) if path.is_file()):
        if path.name.startswith(".") or b"names" not in path.read_bytes():
            continue
        try:
            content = read_mapping(path)
        except BenchError:  # other files may be no plain YAML
            if found:
                continue
            raise
        if "names" in content and set(KEYS) & set(content):
            found.append(path)
    return found


def _entries(value: Any) -> list[str]:
    """Return what a key of a YAML lists: nothing, one entry or several."""
    return [str(entry) for entry in (value if isinstance(value, list) else [value]) if value]
