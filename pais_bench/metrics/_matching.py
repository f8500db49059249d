"""Which detection finds which object? COCO's matching of whole datasets at once, kept image by image; imports no torch.

Gives what pycocotools' COCOeval.evaluateImg gives (its order, its ties), but as arrays: matched at all thresholds and
area ranges in one pass, IoU computed per image and class, and only where both a detection and an object are.
Dims: D detections, G objects, T thresholds, A area ranges, I images, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Areas in square pixels; both ends belong to a range, as in COCOeval.Params."""
LIMIT = 100
"""Detections per image and class that count; COCO's largest maxDets."""

Record = dict[str, Any]
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Matches:
    """Hold what every detection and every object of a dataset came to.

    images, categories: ids, sorted | image, category, rank i64[D]: positions in these, and place in the image and class
    by falling score, below LIMIT | score f64[D] | matched, ignored bool[A,T,D] | truth_image, truth_category i64[G] |
    counted bool[A,G]: objects that recall is taken over. Detections are sorted by category, image and rank. A
    detection that is ignored is neither right nor wrong: it found a crowd region, or one of another area range.
    """

    images: Ints
    categories: Ints
    image: Ints
    category: Ints
    rank: Ints
    score: Floats
    matched: Bools
    ignored: Bools
    truth_image: Ints
    truth_category: Ints
    counted: Bools


def match(
    truth: Record, records: Sequence[Record], image_ids: Iterable[int] | None = None, kind: str = "segm"
) -> Matches:
    """Match COCO result records with the content of a COCO annotation file; kind is segm or bbox.

    Neither argument is checked or changed; metrics/coco.py says what they are.
    """
    every = sorted(image["id"] for image in truth["images"])
    images = np.array(every if image_ids is None else sorted(set(image_ids)), dtype=np.int64)
    categories = np.array(sorted(category["id"] for category in truth["categories"]), dtype=np.int64)
    notes, truth_group = _grouped(truth["annotations"], images, categories)
    records, group = _grouped(records, images, categories)
    score = np.array([record["score"] for record in records], dtype=np.float64)

    order = np.lexsort((-score, group))
    group, rank = group[order], _place(group[order])
    order, group, rank = order[rank < LIMIT], group[rank < LIMIT], rank[rank < LIMIT]
    records, score = [records[index] for index in order], score[order]

    order = np.argsort(truth_group, kind="stable")
    notes, truth_group = [notes[index] for index in order], truth_group[order]
    crowd = np.array([bool(note.get("iscrowd", 0)) for note in notes], dtype=bool)
    limits = np.array(list(AREAS.values()))
    truth_out = _outside(np.array([note["area"] for note in notes], dtype=np.float64), limits)
    skipped = truth_out | crowd

    table = _Pairs.of(group, truth_group)
    iou = _mask_iou(records, notes, crowd, table, truth) if kind == "segm" else _box_iou(records, notes, crowd, table)
    # COCOeval marks a match by the id of the object, so an object of id 0 is found by nobody.
    real = np.array([note["id"] != 0 for note in notes], dtype=bool)
    matched, ignored = _match(table, iou, len(records), crowd, skipped, real)
    ignored |= ~matched & _outside(_areas(records, kind), limits)[:, None, :]
    k, t = len(images), truth_group
    return Matches(
        images, categories, group % k, group // k, rank, score, matched, ignored, t % k, t // k, ~skipped
    )  # fmt: skip


def _grouped(records: Sequence[Record], images: Ints, categories: Ints) -> tuple[list[Record], Ints]:
    """Keep the records of these images and categories; give the number category * I + image of each."""
    place = {image: position for position, image in enumerate(images.tolist())}
    base = {category: position * len(images) for position, category in enumerate(categories.tolist())}
    kept = [one for one in records if one["image_id"] in place and one["category_id"] in base]
    return kept, np.array([base[one["category_id"]] + place[one["image_id"]] for one in kept], dtype=np.int64)


def _place(group: Ints) -> Ints:
    """Give the position of each element of a sorted array among its equals."""
    return np.arange(len(group)) - np.searchsorted(group, group)


def _outside(area: Floats, limits: Floats) -> Bools:
    return (area < limits[:, :1]) | (area > limits[:, 1:])


def _areas(records: Sequence[Record], kind: str) -> Floats:
    if kind == "segm":
        # One by one: of a list, pycocotools 2.0.11 puts the areas into bytes.
        return np.array([int(rle.area(record["segmentation"])) for record in records], dtype=np.float64)
    box = _boxes(records)
    return box[:, 2] * box[:, 3]


def _boxes(records: Sequence[Record]) -> Floats:
    box = [one["bbox"] if "bbox" in one else rle.toBbox(one["segmentation"]).tolist() for one in records]
    return np.array(box, dtype=np.float64).reshape(-1, 4)


@dataclass(frozen=True)
class _Pairs:
    """Hold the groups that have both: where their detections and objects start, and how many they are, i64[N]."""

    start: Ints
    count: Ints
    truth_start: Ints
    truth_count: Ints

    @staticmethod
    def of(group: Ints, truth_group: Ints) -> _Pairs:
        first = group[_place(group) == 0]
        start, stop = (np.searchsorted(group, first, side) for side in ("left", "right"))
        truth_start, truth_stop = (np.searchsorted(truth_group, first, side) for side in ("left", "right"))
        both = truth_stop > truth_start
        return _Pairs(start[both], (stop - start)[both], truth_start[both], (truth_stop - truth_start)[both])

    def rows(self) -> Iterable[tuple[slice, slice]]:
        """Give the detections and the objects of each group."""
        columns = (self.start, self.start + self.count, self.truth_start, self.truth_start + self.truth_count)
        for start, stop, truth_start, truth_stop in zip(*(column.tolist() for column in columns), strict=True):
            yield slice(start, stop), slice(truth_start, truth_stop)


def _mask_iou(records: Sequence[Record], notes: Sequence[Record], crowd: Bools, pairs: _Pairs, truth: Record) -> Floats:
    """Give the IoU of every detection and object of a group, row by row and group by group in one array."""
    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    found = [record["segmentation"] for record in records]
    flags = crowd.astype(int).tolist()
    parts = []
    for here, there in pairs.rows():
        masks = _encode([note["segmentation"] for note in notes[there]], *sizes[notes[there.start]["image_id"]])
        parts.append(rle.iou(found[here], masks, flags[there]).ravel())
    return np.concatenate(parts) if parts else np.zeros(0)


def _encode(masks: Sequence[Any], height: int, width: int) -> list[Record]:
    """Give compressed RLEs of polygons and RLEs; the polygons of all objects in one call."""
    polygons = [points for mask in masks if isinstance(mask, list) for points in mask]
    drawn = iter(rle.frPyObjects(polygons, height, width)) if polygons else iter(())
    result: list[Record] = []
    for mask in masks:
        if isinstance(mask, list):
            parts = [next(drawn) for _ in mask]
            result.append(parts[0] if len(parts) == 1 else rle.merge(parts))
        else:
            result.append(rle.frPyObjects(mask, height, width) if isinstance(mask["counts"], list) else mask)
    return result


def _box_iou(records: Sequence[Record], notes: Sequence[Record], crowd: Bools, pairs: _Pairs) -> Floats:
    here, there = _indices(pairs)
    found, wanted = _boxes(records)[here], _boxes(notes)[there]
    near = np.maximum(found[:, :2], wanted[:, :2])
    far = np.minimum(found[:, :2] + found[:, 2:], wanted[:, :2] + wanted[:, 2:])
    sides = np.maximum(far - near, 0)
    both, area = sides[:, 0] * sides[:, 1], found[:, 2] * found[:, 3]
    union = np.where(crowd[there], area, area + wanted[:, 2] * wanted[:, 3] - both)
    iou: Floats = np.divide(both, union, out=np.zeros_like(both), where=both > 0)
    return iou


def _indices(pairs: _Pairs) -> tuple[Ints, Ints]:
    """Give the detection and the object of every pair, in the order of _mask_iou."""
    size = pairs.count * pairs.truth_count
    group = np.repeat(np.arange(len(size)), size)
    within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
    row, column = np.divmod(within, pairs.truth_count[group])
    return pairs.start[group] + row, pairs.truth_start[group] + column


def _match(
    pairs: _Pairs, iou: Floats, detections: int, crowd: Bools, skipped: Bools, real: Bools
) -> tuple[Bools, Bools]:
    """Match every group; give matched and ignored bool[A,T,D]."""
    shape = (len(skipped), len(THRESHOLDS), detections)
    matched, ignored = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    size = pairs.count * pairs.truth_count
    offset = np.cumsum(size) - size
    width = 1
    while len(size) and width < 2 * pairs.truth_count.max():
        # Groups of about as many objects share one table, which is width wide.
        chosen = np.flatnonzero((pairs.truth_count <= width) & (2 * pairs.truth_count > width))
        if len(chosen):
            _match_alike(pairs, iou, offset, chosen, width, crowd, skipped, real, matched, ignored)
        width *= 2
    return matched, ignored


def _match_alike(
    pairs: _Pairs, iou: Floats, offset: Ints, chosen: Ints, width: int,
    crowd: Bools, skipped: Bools, real: Bools, matched: Bools, ignored: Bools,
) -> None:  # fmt: skip
    """Match groups of at most `width` objects; write into matched and ignored bool[A,T,D]."""
    count, columns = pairs.truth_count[chosen], np.arange(width)
    valid = columns < count[:, None]
    objects = np.where(valid, pairs.truth_start[chosen, None] + columns, 0)
    always = crowd[objects][:, None, None, :]
    ignore = skipped[:, objects].transpose(1, 0, 2)
    taken = np.zeros((len(chosen), len(skipped), len(THRESHOLDS), width), dtype=bool)

    group = np.repeat(np.arange(len(chosen)), pairs.count[chosen])
    row = _place(group)
    pixels = np.where(valid[group], offset[chosen][group, None] + row[:, None] * count[group, None] + columns, 0)
    table = np.where(valid[group], iou[pixels], -1.0)
    likely = table.max(axis=1) >= THRESHOLDS[0]
    group, row, table = group[likely], row[likely], table[likely]
    # COCOeval takes the best of the objects that count, the later of two equals, and an ignored one where none is left.
    better = table.argsort(axis=1, kind="stable").argsort(axis=1).astype(np.int32)
    turn = _place(group)
    for step in range(int(turn.max()) + 1 if len(turn) else 0):
        now = np.flatnonzero(turn == step)
        here, detection = group[now], pairs.start[chosen[group[now]]] + row[now]
        free = (table[now][:, None, None, :] >= THRESHOLDS[:, None]) & (~taken[here] | always[here])
        key = better[now][:, None, :] + width * ~ignore[here]
        best = np.where(free, key[:, :, None, :], -1).argmax(axis=-1)
        found = np.take_along_axis(free, best[..., None], axis=-1)[..., 0]
        n, a, t = np.nonzero(found)
        column = best[n, a, t]
        taken[here[n], a, t, column] = True
        matched[a, t, detection[n]] = real[objects[here[n], column]]
        ignored[a, t, detection[n]] = ignore[here[n], a, column]
