"""Read the files of Cityscapes: its labels, and the COCO records of a folder of images and their gtFine files.

A pixel of *_gtFine_instanceIds.png is a label id, or 1000 times the id of a label that has instances plus the number of
the instance. Where that file is absent, the polygons of *_gtFine_polygons.json are rasterised one over the other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from pais_bench.annotations.store import ProgressCallback, Subset, ignore_progress
from pais_bench.datasets._regions import encode_regions
from pais_bench.errors import BenchError
from pais_bench.images.check import in_threads
from pais_bench.images.pixels import verify

# Names and ids: github.com/mcordts/cityscapesScripts, helpers/labels.py. The id is the index in the list.
_NAMES = (
    *("unlabeled", "ego vehicle", "rectification border", "out of roi", "static", "dynamic", "ground", "road"),
    *("sidewalk", "parking", "rail track", "building", "wall", "fence", "guard rail", "bridge", "tunnel", "pole"),
    *("polegroup", "traffic light", "traffic sign", "vegetation", "terrain", "sky", "person", "rider", "car", "truck"),
    *("bus", "caravan", "trailer", "train", "motorcycle", "bicycle"),
)
LABELS = {**{name: number for number, name in enumerate(_NAMES)}, "license plate": -1}
"""Label ids by name; a negative id is never rasterised."""
INSTANCE_LABELS = range(LABELS["person"], LABELS["bicycle"] + 1)
"""Ids of the labels that have instances."""
CLASSES = {number: _NAMES[number] for number in INSTANCE_LABELS if _NAMES[number] not in ("caravan", "trailer")}
"""Names of the labels that the benchmark evaluates, by id."""
STUFF = {
    LABELS[name]: name
    for name in (
        *("road", "sidewalk", "building", "wall", "fence", "pole", "traffic light", "traffic sign", "vegetation"),
        *("terrain", "sky"),
    )
}
"""Names of the labels without instances that the benchmark evaluates, by id."""

IMAGE, INSTANCES, POLYGONS = "_leftImg8bit.png", "_gtFine_instanceIds.png", "_gtFine_polygons.json"
UNIT = 1000  # a pixel of instance n of a label is UNIT * id + n
UNZIP_AGAIN = "unzip the archive again"
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, OverflowError)
_PROGRESS_INTERVAL = 250  # images between two lines of progress


class Frame(NamedTuple):
    """Name one image: <city>/<stem>_leftImg8bit.png."""

    city: str
    stem: str

    @property
    def image(self) -> str:
        """Return the image's file, relative to the folder of the subset."""
        return f"{self.city}/{self.stem}{IMAGE}"


def find_frames(images: Path) -> list[Frame]:
    """List the images of a subset, sorted by city and frame; raise BenchError if there is none."""
    paths = (path for path in images.glob(f"*/*{IMAGE}") if not path.name.startswith("."))
    frames = sorted(Frame(path.parent.name, path.name.removesuffix(IMAGE)) for path in paths)
    if not frames:
        raise BenchError(f"{images}: holds no image <city>/<city>_<sequence>_<frame>{IMAGE}; {UNZIP_AGAIN}")
    return frames


def find_annotations(frames: Sequence[Frame], annotations: Path) -> dict[Frame, Path]:
    """Return the annotation file of every frame that has one.

    The folder is listed once, because looking for every file is slow on a network drive.
    """
    present = {path.relative_to(annotations).as_posix() for path in annotations.glob("*/*")}
    paths = {}
    for frame in frames:
        for suffix in (POLYGONS, INSTANCES):
            if (name := f"{frame.city}/{frame.stem}{suffix}") in present:
                paths[frame] = annotations / name
    return paths


def read_subset(
    images: Path,
    sources: Mapping[Frame, Path],
    decode: bool = False,
    progress: ProgressCallback = ignore_progress,
    stuff: bool = False,
) -> Subset:
    """Read frames and their annotation files, several at a time; only the encoded masks are kept.

    decode: decode the images too, to find damaged ones | stuff: read the labels of STUFF too, one annotation for each
    label of an image; every annotation then has its pixels' value as segment_id.
    Image ids are 1..n in the order of the frames, annotation ids 1..m. Raises BenchError that names the first faulty
    file.
    """
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    pairs = [(images / frame.image, annotation) for frame, annotation in sources.items()]
    read = in_threads(lambda pair: _read_frame(*pair, decode, stuff), pairs, str(images), progress)
    for number, (frame, (size, described)) in enumerate(zip(sources, read, strict=True), 1):
        records.append({"id": number, "file_name": frame.image, "height": size[0], "width": size[1]})
        for record in described:
            annotations.append({"id": len(annotations) + 1, "image_id": number, **record})
        if number % _PROGRESS_INTERVAL == 0 or number == len(pairs):
            progress(f"{images}: {number} of {len(pairs)} images read")
    categories: list[dict[str, Any]] = [{"id": number, "name": name} for number, name in CLASSES.items()]
    if stuff:
        categories = [{"id": number, "name": name, "isthing": 0} for number, name in STUFF.items()] + [
            {**category, "isthing": 1} for category in categories
        ]
    return Subset(str(images), images, records, annotations, categories)


def _read_frame(
    image: Path, annotation: Path, decode: bool, stuff: bool
) -> tuple[tuple[int, int], list[dict[str, Any]]]:
    """Return (height, width) of an image and the records of its annotation file, without ids."""
    size = _image_size(image)
    if decode:
        verify(image)
    values = _read_instances(annotation) if annotation.name.endswith(INSTANCES) else _read_polygons(annotation, size)
    _require_size(annotation, values.shape, size)
    return size, _records(values, annotation, stuff)


def _require_size(annotation: Path, actual: tuple[int, ...], expected: tuple[int, ...]) -> None:
    if actual != expected:
        sizes = [f"{width} x {height}" for height, width in (actual, expected)]
        raise BenchError(f"{annotation}: {sizes[0]} pixels, but its image is {sizes[1]}; {UNZIP_AGAIN}")


def _image_size(path: Path) -> tuple[int, int]:
    """Return (height, width) of a PNG without decoding it; its last bytes show whether it is complete."""
    try:
        with Image.open(path, formats=["PNG"]) as file, path.open("rb") as content:
            width, height = file.size
            content.seek(-min(64, path.stat().st_size), os.SEEK_END)
            complete = b"IEND" in content.read()
    except Exception as error:  # Pillow's readers raise anything for a damaged header
        raise BenchError(f"{path}: unreadable PNG ({error}); {UNZIP_AGAIN}") from error
    if not complete:
        raise BenchError(f"{path}: unreadable PNG (it is truncated); {UNZIP_AGAIN}")
    return height, width


def _read_instances(path: Path) -> npt.NDArray[np.int32]:
    """Decode an instanceIds file as i32[H,W]."""
    try:
        with Image.open(path, formats=["PNG"]) as file:
            mode, values = file.mode, np.asarray(file)
    except Exception as error:  # Pillow's readers raise anything for a damaged header
        raise BenchError(f"{path}: unreadable PNG ({error}); {UNZIP_AGAIN}") from error
    if mode not in ("I", "I;16", "I;16B"):
        raise BenchError(
            f"{path}: a PNG of mode {mode}; an instanceIds file has one channel of 16 bits, so {UNZIP_AGAIN}"
        )
    return values.astype(np.int32)


def _read_polygons(path: Path, image_size: tuple[int, int]) -> npt.NDArray[np.int32]:
    """Rasterise a polygons file of an image of size (H, W) as i32[H,W]."""
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise BenchError(f"{path}: not valid JSON ({error}); {UNZIP_AGAIN}") from error
    try:
        width, height, objects = int(content["imgWidth"]), int(content["imgHeight"]), content["objects"]
    except _MALFORMED as error:
        raise _not_polygons(path, error) from error
    _require_size(path, (height, width), image_size)  # before so many pixels are rasterised
    try:
        return np.asarray(rasterise((width, height), objects), dtype=np.int32)
    except _MALFORMED as error:
        raise _not_polygons(path, error) from error
    except BenchError as error:
        raise BenchError(f"{path}: {error}") from error


def _not_polygons(path: Path, error: Exception) -> BenchError:
    remedy = "a polygons file has imgWidth, imgHeight, and objects with label and polygon"
    return BenchError(f"{path}: not a polygons file of gtFine ({error!r}); {remedy}")


def rasterise(size: tuple[int, int], objects: Sequence[Mapping[str, Any]]) -> Image.Image:
    """Rasterise polygons (label, polygon, optionally deleted) in order into an image of instance ids, of mode I.

    size is (width, height). A name that is no label but ends in "group" is that label without an instance number.
    Raises BenchError for an unknown label and for a polygon that cannot be rasterised.
    """
    image = Image.new("I", size, LABELS["unlabeled"])
    pen, instances = ImageDraw.Draw(image), dict.fromkeys(INSTANCE_LABELS, 0)
    for index, item in enumerate(objects):
        if item.get("deleted"):
            continue
        name, group = item["label"], False
        if name not in LABELS and name.endswith("group"):
            name, group = name.removesuffix("group"), True
        if name not in LABELS:
            raise BenchError(
                f"object {index} has the label '{item['label']}', which Cityscapes does not know; rename it"
            )
        value = LABELS[name]
        if value in instances and not group:
            instances[value] += 1
            value = value * UNIT + instances[value] - 1
        if value < 0:
            continue
        try:
            pen.polygon([(point[0], point[1]) for point in item["polygon"]], fill=value)
        except (TypeError, ValueError, IndexError) as error:
            raise BenchError(f"object {index} has no polygon that can be drawn ({error}); give x, y pairs") from error
    return image


def _class_values(stuff: bool) -> npt.NDArray[np.int32]:
    """Return a table from pixel values to themselves if they are of a class, to 0 for other labels, to -1 otherwise."""
    table = np.full(len(_NAMES) * UNIT, -1, dtype=np.int32)
    table[: len(_NAMES)] = 0
    for number in INSTANCE_LABELS:
        values = range(number * UNIT, (number + 1) * UNIT)
        table[values] = values if number in CLASSES else 0
        table[number] = number if number in CLASSES else 0
    if stuff:
        table[list(STUFF)] = list(STUFF)
    return table


_CLASS_VALUES = {stuff: _class_values(stuff) for stuff in (False, True)}


def _records(values: npt.NDArray[np.int32], source: Path, stuff: bool) -> list[dict[str, Any]]:
    """Encode the regions of instance ids i32[H,W], by ascending id.

    A region whose value is the id of a label that has instances, without the number of one, is a group: iscrowd 1.
    """
    table = _CLASS_VALUES[stuff]
    inside = (values >= 0) & (values < len(table))
    kept = table[np.where(inside, values, 0)]
    if (unknown := values[(kept < 0) | ~inside]).size:
        raise BenchError(f"{source}: has the pixel value {unknown[0]}, which no label of Cityscapes has; {UNZIP_AGAIN}")
    return [
        {
            "category_id": value if value < UNIT else value // UNIT,
            "iscrowd": int(value in CLASSES),
            **mask,
            **({"segment_id": value} if stuff else {}),
        }
        for value, mask in encode_regions(kept)
    ]
