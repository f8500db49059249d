"""Read Pascal VOC's masks: SegmentationObject has the number of the object at each pixel, SegmentationClass its class.

ImageSets/Segmentation/SUBSET.txt lists the photos of JPEGImages. A labelmap.txt (`name:r,g,b::` a line, as CVAT writes
it) gives classes by the colours of SegmentationClass, a class_names.txt (a name a line from the background on, as
Labelme's script writes it) by palette index; else they are VOC's 20. Void, 255 or its colour, is of no object: VOC
draws it around each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pais_bench.converters.formats.base import (
    ConverterBase,
    Item,
    LeftOut,
    Object,
    Photo,
    mask_of,
    photo_size,
    photos_by_path,
    read_lines,
    read_values,
)
from pais_bench.errors import BenchError
from pais_bench.images.files import files_below, folders_below, image_files, role_of

NAMES = "aeroplane bicycle bird boat bottle bus car cat chair cow diningtable dog horse motorbike person pottedplant"
VOC_CLASSES = (*NAMES.split(), "sheep", "sofa", "train", "tvmonitor")
"""VOC's classes, from palette index 1 on."""
VOID_INDEX, VOID_COLOUR = 255, (224, 224, 192)
QUOTE = '"'
"""What CVAT puts around a name with a space."""


class Converter(ConverterBase):
    """Read the one folder of objects below a folder."""

    @staticmethod
    def is_format(folder: Path) -> bool:
        """Return whether a folder SegmentationObject is below."""
        return bool(_object_folders(folder))

    def subsets(self) -> Mapping[str, Sequence[Item]]:
        """Return the photos of each list; without lists all photos that have objects."""
        folders = _object_folders(self.folder)
        if len(folders) != 1:
            names = ", ".join(map(str, folders)) or "none"
            raise BenchError(f"{self.folder}: not one folder SegmentationObject ({names}); give the folder above one")
        objects, root = folders[0], folders[0].parent
        class_folder = root / objects.name.replace("Object", "Class")
        self._colours = _read_labelmap(root / "labelmap.txt")
        names_here = [name for name, _ in self._colours] or _read_class_names(root / "class_names.txt")
        self.classes = dict(enumerate(names_here or VOC_CLASSES, start=1))
        if not names_here:
            self.notes.append("classes are named after VOC's 20; where they are others, add labelmap.txt")
        photos, labels = photos_by_path(root / "JPEGImages"), photos_by_path(objects)
        lists = _lists(root)
        if lists and (others := len(set(labels).difference(*lists.values()))):
            self.notes.append(f"left out: {others} label images that no list of ImageSets/Segmentation has")
        if others := len(set(photos).difference(labels, *lists.values())):
            self.notes.append(f"left out: {others} photos without a label image")
        found: dict[str, list[Item]] = {}
        for subset, stems in (lists or {"": sorted(labels)}).items():
            where, whose = root / "JPEGImages", subset or "its masks"
            missing = [f"{where}: has no {stem} of {whose}; put it there" for stem in stems if stem not in photos]
            self.note_missing(missing, len(stems), f"{root}: {subset or 'photos'}")
            for stem in (stem for stem in stems if stem in photos):
                if stem not in labels:
                    raise BenchError(f"{objects}: has no {stem} of {subset}; put it there")
                pair = [labels[stem], class_folder / labels[stem].relative_to(objects)]
                found.setdefault(role_of(Path(subset)), []).append(Item(photos[stem], pair))
        return found

    def read(self, item: Item) -> Photo:
        """Read both label images of a photo; raise BenchError where an object has no class, or two."""
        path, class_path = item.labels
        numbers, classes = _numbers(path), self._class_ids(class_path)
        size = photo_size(item.photo, path, numbers.shape)
        if classes.shape != numbers.shape:
            raise BenchError(f"{class_path}: another size than {path}; write both again")
        objects: list[Object] = []
        for number in np.unique(numbers[numbers > 0]).tolist():
            mask = numbers == number
            ids = [class_id for class_id in np.unique(classes[mask]).tolist() if class_id > 0]  # its edge may be void
            if len(ids) != 1 or ids[0] not in self.classes:
                shown = " and ".join(self.classes.get(class_id, "an unknown class") for class_id in ids) or "no class"
                raise BenchError(
                    f"{class_path}: object {number} of {path} is of {shown}; give all its pixels one class"
                )
            objects.append(Object(self.classes[ids[0]], mask_of(mask)))
        void = LeftOut("borders of void, which is of no object", str(path), may_be_object=False)
        return Photo(item.photo, size, objects, [void] if (numbers < 0).any() else [], place=str(path))

    def _class_ids(self, path: Path) -> np.ndarray:
        """Return category ids [H,W], 0 for background."""
        if not self._colours:
            return _numbers(path)
        packed = _pack(_colours(path))
        ids = np.zeros(packed.shape, dtype=np.int64)
        for number, (_, colour) in enumerate(self._colours, start=1):
            ids[packed == _pack(np.array(colour))] = number
        return ids


def _object_folders(folder: Path) -> list[Path]:
    """Return the folders of objects below a folder; Labelme's script once had arrays in the one of VOC's name."""
    return [path for path in folders_below(folder, "SegmentationObject", "SegmentationObjectPNG") if image_files(path)]


def _lists(root: Path) -> dict[str, list[str]]:
    """Return the photos of each list; trainval counts only where train and val are not there, as train beside test."""
    files = {path.stem: path for path in files_below(root / "ImageSets" / "Segmentation", ".txt")}
    if "train" in files and "val" in files:
        files.pop("trainval", None)
    elif files.keys() == {"trainval", "test"}:
        files["train"] = files.pop("trainval")
    lines = {name: [line.strip().strip(QUOTE) for line in read_lines(path)] for name, path in files.items()}
    return {name: list(filter(None, photos)) for name, photos in lines.items()}


def _read_labelmap(path: Path) -> list[tuple[str, tuple[int, ...]]]:
    """Return names and colours; background is no class."""
    if not path.is_file():
        return []
    lines = [line for line in read_lines(path) if line and not line.startswith("#")]
    try:
        fields = [line.split(":") for line in lines]
        pairs = [(name, tuple(map(int, colour.split(",")))) for name, colour, *_ in fields]
    except ValueError as error:
        raise BenchError(f"{path}: {error}; give a line name:r,g,b:: for each class") from error
    return [(name, colour) for name, colour in pairs if any(colour)]


def _read_class_names(path: Path) -> list[str]:
    """Return the names of the classes from palette index 1 on; background is no class."""
    lines = [line.strip() for line in read_lines(path)] if path.is_file() else []
    names = [name for name in lines if name and name != "__ignore__"]
    if names and names[0] != "_background_":
        raise BenchError(f"{path}: its first class is '{names[0]}'; begin it with _background_, then a class a line")
    return names[1:]


def _numbers(path: Path) -> np.ndarray:
    """Return palette indices [H,W], of a file of colours a number for each colour; 0 is background, -1 void."""
    values = read_values(path)
    if values.ndim == 2:
        return np.where(values == VOID_INDEX, -1, values.astype(np.int64))
    packed = _pack(values[..., :3])
    return np.where(packed == _pack(np.array(VOID_COLOUR)), -1, packed)


def _colours(path: Path) -> np.ndarray:
    """Return the colours u8[H,W,3] of a file, through its palette if it has one."""
    read_values(path)  # raises for what is no image of labels
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB"))


def _pack(colours: np.ndarray) -> np.ndarray:
    """Return one number for each colour [...,3]."""
    red, green, blue = np.moveaxis(colours.astype(np.int64), -1, 0)
    return np.asarray(red << 16 | green << 8 | blue)
