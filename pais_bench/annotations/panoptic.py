"""Read, rasterise and write panoptic maps: of every pixel of an image the segment that it belongs to.

In a PNG the colour R, G, B is the segment R + 256 G + 65536 B; black, 0, is void. Categories have isthing 1 for things,
classes of single objects, and 0 for stuff, such as sky; one without the key is of things. Source: Kirillov et al.
(2019), Panoptic segmentation, CVPR; the format is COCO's, cocodataset.org/#format-data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from pais_bench.annotations.rle import decode_mask
from pais_bench.errors import BenchError
from pais_bench.whole_file import open_whole

VOID = 0
"""The segment of a pixel that belongs to none."""
MAX_SEGMENT = 256**3 - 1

Ids = npt.NDArray[np.int32]
Record = dict[str, Any]


class PanopticMap(NamedTuple):
    """Hold the segment of every pixel, i32[H,W], VOID for none, and the segments' COCO records: id, category_id, ..."""

    ids: Ids
    segments: list[Record]


def is_thing(category: Mapping[str, Any]) -> bool:
    """Return whether a category is of single objects; one without the key isthing is."""
    return bool(category.get("isthing", 1))


def things_alone(content: Record) -> Record:
    """Return the content of a COCO annotation file without its stuff; the content itself where it has none."""
    stuff = {category["id"] for category in content["categories"] if not is_thing(category)}
    if not stuff:
        return content
    return {
        **content,
        "annotations": [record for record in content["annotations"] if record["category_id"] not in stuff],
        "categories": [category for category in content["categories"] if is_thing(category)],
    }


def rasterise(annotations: Iterable[Mapping[str, Any]], size: tuple[int, int]) -> PanopticMap:
    """Rasterise the annotations of an image of size (H, W); those without a pixel are left out.

    Segments have the ids that the annotations were read with, segment_id, or else their numbers, from 1 on. Raises
    BenchError for masks that overlap: a pixel has one segment.
    """
    annotations = list(annotations)
    numbered = not all("segment_id" in annotation for annotation in annotations)
    owner: dict[int, Mapping[str, Any]] = {}
    ids, segments = np.full(size, VOID, dtype=np.int32), []
    for number, annotation in enumerate(annotations, 1):
        mask = decode_mask(annotation["segmentation"], size)
        if (covered := ids[mask]).any():
            raise BenchError(
                f"image {annotation['image_id']}: annotations {owner[int(covered.max())]['id']} and {annotation['id']} "
                f"overlap, and a panoptic map has one segment for every pixel; cut one of them, or leave 'panoptic' "
                f"out of the metrics"
            )
        segment = number if numbered else annotation["segment_id"]
        ids[mask], owner[segment] = segment, annotation
        if mask.any():
            crowd, area = int(annotation["iscrowd"]), int(mask.sum())
            segments.append(
                {"id": segment, "category_id": annotation["category_id"], "iscrowd": crowd, "area": area}
                | {"bbox": annotation["bbox"]}
            )
    return PanopticMap(ids, segments)


def read_map(path: Path, size: tuple[int, int], image_id: object) -> Ids:
    """Read the segments i32[H,W] of an image of size (H, W); raise BenchError for a PNG that is no map of it."""
    if not path.is_file():
        raise BenchError(f"{path}: no such PNG, which has the segments of image {image_id}; put it there")
    try:
        with Image.open(path, formats=["PNG"]) as file:
            mode, (width, height) = file.mode, file.size
            if mode == "RGB" and (height, width) == size:
                colours = np.asarray(file).astype(np.int32)
                return np.asarray(colours @ np.array([1, 256, 256**2], dtype=np.int32))
    except Exception as error:  # Pillow's readers raise anything for a damaged file
        raise BenchError(
            f"{path}: unreadable PNG, which has the segments of image {image_id} ({error}); replace the file"
        ) from error
    if mode != "RGB":
        raise BenchError(
            f"{path}: a PNG of mode {mode}, but the segments of image {image_id} are colours; save it as RGB of 8 bits"
        )
    raise BenchError(
        f"{path}: {width} x {height} pixels, but image {image_id} is {size[1]} x {size[0]}; replace the file, or "
        f"correct the image's record"
    )


def write_map(path: Path, ids: Ids) -> None:
    """Write segments i32[H,W] as a PNG, whole or not at all."""
    colours = np.stack([ids & 255, ids >> 8 & 255, ids >> 16], axis=-1).astype(np.uint8)
    with open_whole(path, "wb") as file:
        Image.fromarray(colours).save(file, format="PNG", compress_level=1)
