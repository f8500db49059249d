"""Write a generated annotation file of COCO's size: as many records, polygons as long, crowds as rare.

python benchmarks/coco_sized.py instances.json [images]
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from pais_bench.whole_file import open_whole

IMAGES = 118_287
"""Images of train2017."""
PER_IMAGE = 7.27
"""Annotations per image of train2017: 860,001 in all."""
ANNOTATED = 117_266
"""Images of train2017 with an annotation that is no crowd: the list that Unbiased Teacher's split file indexes."""
CROWD, TWO_POLYGONS = 0.01, 0.1
"""Fractions of crowds among the further annotations of an image, and of objects that consist of two polygons."""
SHORTEST, LONGEST = 12, 48  # points of a polygon
RUNS = (100, 600)  # counts of a crowd's RLE
CHUNK = 2_000  # records that are in memory at a time
ABSENT = (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # ids that COCO's 80 categories leave out of 1..90


def write(path: Path, images: int = IMAGES, seed: int = 0) -> None:
    """Write a generated COCO instances file of images and 7.27 annotations per image, a chunk of records at a time.

    No id is contiguous, and neither images nor annotations are sorted. The file depends on images and seed alone.
    """
    rng = np.random.default_rng(seed)
    ids = rng.permutation(5 * images)[:images] + 1
    sizes = rng.integers((330, 480), (641, 641), (images, 2))
    categories = [
        {"supercategory": f"group {number // 8}", "id": number, "name": f"class {number}"}
        for number in range(1, 91)
        if number not in ABSENT
    ]
    with open_whole(path) as file:
        file.write('{"info": {"description": "generated", "year": 2017}, "licenses": [{"id": 1, "name": "none"}], ')
        _write_list(file, "images", _images(ids, sizes))
        _write_list(file, "annotations", _annotations(rng, ids, sizes, [category["id"] for category in categories]))
        file.write(f'"categories": {json.dumps(categories)}}}')


def _write_list(file: TextIO, key: str, chunks: Iterator[list[dict[str, Any]]]) -> None:
    file.write(f'"{key}": [')
    for number, chunk in enumerate(chunks):
        file.write((", " if number else "") + json.dumps(chunk)[1:-1])
    file.write("], ")


def _images(ids: np.ndarray, sizes: np.ndarray) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(ids), CHUNK):
        yield [
            {
                "license": 1,
                "file_name": f"{number:012d}.jpg",
                "coco_url": f"http://images.example.org/train2017/{number:012d}.jpg",
                "height": height,
                "width": width,
                "date_captured": "2013-11-14 11:18:45",
                "flickr_url": f"http://farm.example.org/{number:010d}_z.jpg",
                "id": number,
            }
            for number, (height, width) in zip(
                ids[start : start + CHUNK].tolist(), sizes[start : start + CHUNK].tolist(), strict=True
            )
        ]


def _annotations(
    rng: np.random.Generator, ids: np.ndarray, sizes: np.ndarray, categories: list[int]
) -> Iterator[list[dict[str, Any]]]:
    """Yield chunks of annotations; an annotated image has one and an exponentially distributed number of others."""
    total = round(PER_IMAGE * len(ids))
    filled = rng.permutation(len(ids))[: round(len(ids) * ANNOTATED / IMAGES)]
    weights = rng.exponential(size=len(filled))
    more = rng.choice(filled, size=total - len(filled), p=weights / weights.sum())
    order = rng.permutation(total)
    row, further = np.concatenate([filled, more])[order], order >= len(filled)
    numbers = rng.permutation(3 * total)[:total] + 1
    for start in range(0, total, CHUNK):
        chunk = slice(start, start + CHUNK)
        rows = row[chunk]
        crowd = further[chunk] & (rng.random(len(rows)) < CROWD)
        yield _chunk(rng, numbers[chunk], ids[rows], sizes[rows], crowd, categories)


def _chunk(
    rng: np.random.Generator,
    numbers: np.ndarray,
    images: np.ndarray,
    sizes: np.ndarray,
    crowd: np.ndarray,
    categories: list[int],
) -> list[dict[str, Any]]:
    first, lengths, box, area = _polygons(rng, sizes)
    second, others, beside, more = _polygons(rng, sizes)
    two = rng.random(len(numbers)) < TWO_POLYGONS
    category = rng.choice(categories, len(numbers))
    records = []
    for row, (number, image) in enumerate(zip(numbers.tolist(), images.tolist(), strict=True)):
        polygons = [first[row][: 2 * lengths[row]]] + ([second[row][: 2 * others[row]]] if two[row] else [])
        records.append(
            {
                "segmentation": _crowd(rng, *sizes[row].tolist()) if crowd[row] else polygons,
                "area": area[row] + more[row] * bool(two[row]),
                "iscrowd": int(crowd[row]),
                "image_id": image,
                "bbox": _around(box[row], beside[row]) if two[row] else box[row],
                "category_id": int(category[row]),
                "id": number,
            }
        )
    return records


def _polygons(rng: np.random.Generator, sizes: np.ndarray) -> tuple[Any, Any, Any, Any]:
    """Return coordinates, lengths, boxes and areas of a random outline per row, rounded to hundredths of a pixel."""
    lengths = rng.integers(SHORTEST, LONGEST + 1, len(sizes))
    step, used = np.arange(LONGEST), np.arange(LONGEST) < lengths[:, None]
    turn = 2 * math.pi * (step + rng.random((len(sizes), LONGEST))) / lengths[:, None]
    reach = sizes.min(1)[:, None] * 0.5 * rng.beta(1, 4, (len(sizes), 1)) + 3
    reach = reach * rng.uniform(0.7, 1.3, turn.shape)
    centre = rng.random((len(sizes), 2, 1)) * sizes[:, ::-1, None]
    x = np.clip(centre[:, 0] + reach * np.cos(turn), 0, sizes[:, 1, None]).round(2)
    y = np.clip(centre[:, 1] + reach * np.sin(turn), 0, sizes[:, 0, None]).round(2)
    low = [np.where(used, side, np.inf).min(1) for side in (x, y)]
    extent = [np.where(used, side, -np.inf).max(1) - least for side, least in zip((x, y), low, strict=True)]
    box = np.stack([*low, *extent], 1).round(2)
    area = (0.6 * box[:, 2] * box[:, 3]).round(4)
    return np.stack([x, y], 2).reshape(len(sizes), -1).tolist(), lengths.tolist(), box.tolist(), area.tolist()


def _around(first: list[float], second: list[float]) -> list[float]:
    """Return the box x, y, width, height around two."""
    corner = [min(first[side], second[side]) for side in (0, 1)]
    end = [max(box[side] + box[side + 2] for box in (first, second)) for side in (0, 1)]
    return [*corner, *(round(far - near, 2) for near, far in zip(corner, end, strict=True))]


def _crowd(rng: np.random.Generator, height: int, width: int) -> dict[str, Any]:
    cuts = np.sort(rng.integers(0, height * width, rng.integers(*RUNS)))
    return {"counts": np.diff([0, *cuts, height * width]).tolist(), "size": [height, width]}


if __name__ == "__main__":
    write(Path(sys.argv[1]), *map(int, sys.argv[2:3]))
