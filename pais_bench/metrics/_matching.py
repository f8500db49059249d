"""Which detection finds which object? COCO's matching of whole datasets at once, kept image by image; imports no torch.

Gives what pycocotools' COCOeval.evaluateImg gives (its order, its ties), but as arrays: matched at all thresholds and
area ranges in one pass, IoU computed per image and class, and only where both a detection and an object are.
Dims: D detections, G objects, T thresholds, A area ranges, I images, K classes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as rle

from pais_bench.metrics._truth import Bools, Floats, Ints, Record, Truth, boxes, grouped, pixels

THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Areas in square pixels; both ends belong to a range, as in COCOeval.Params."""
LIMIT = 100
"""Detections per image and class that count; COCO's largest maxDets."""


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
    truth: Record | Truth, records: Sequence[Record], image_ids: Iterable[int] | None = None, kind: str = "segm"
) -> Matches:
    """Match COCO result records with the content of a COCO annotation file; kind is segm or bbox.

    A truth that was prepared once, with its images, serves many calls. No argument is checked or changed;
    metrics/coco.py says what they are.
    """
    known = truth if isinstance(truth, Truth) else Truth.of(truth, image_ids)
    images, categories = known.images, known.categories
    records, group = grouped(records, images, categories)
    score = np.array([record["score"] for record in records], dtype=np.float64)

    order = np.lexsort((-score, group))
    group, rank = group[order], _place(group[order])
    order, group, rank = order[rank < LIMIT], group[rank < LIMIT], rank[rank < LIMIT]
    records, score = [records[index] for index in order], score[order]

    limits = np.array(list(AREAS.values()))
    skipped = _outside(known.area, limits) | known.crowd
    table, found = _Pairs.of(group, known.group), boxes(records) if kind == "bbox" else None
    size = pixels([record["segmentation"] for record in records]) if found is None else found[:, 2] * found[:, 3]
    iou = _mask_iou(records, size, known, table) if found is None else _box_iou(found, known, table)
    matched, ignored = _match(table, iou, len(records), known.crowd, skipped, known.real)
    ignored |= ~matched & _outside(size, limits)[:, None, :]
    k, t = len(images), known.group
    return Matches(
        images, categories, group % k, group // k, rank, score, matched, ignored, t % k, t // k, ~skipped
    )  # fmt: skip


def _place(group: Ints) -> Ints:
    """Give the position of each element of a sorted array among its equals."""
    return np.arange(len(group)) - np.searchsorted(group, group)


def _outside(area: Floats, limits: Floats) -> Bools:
    return (area < limits[:, :1]) | (area > limits[:, 1:])


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


def _mask_iou(records: Sequence[Record], size: Floats, truth: Truth, pairs: _Pairs) -> Floats:
    """Give the IoU of every detection and object of a group, row by row and group by group in one array.

    0 for a whole group in which no IoU can reach the first threshold, as one mask is too large for the other.
    """
    here, there = _indices(pairs)
    least, most = np.minimum(size[here], truth.pixels[there]), np.maximum(size[here], truth.pixels[there])
    hopeful = (least >= THRESHOLDS[0] * most) | truth.crowd[there]
    iou, count = np.zeros(len(hopeful)), pairs.count * pairs.truth_count
    stop = np.cumsum(count)
    some = np.logical_or.reduceat(hopeful, stop - count) if len(count) else hopeful
    columns = (stop - count, stop, pairs.start, pairs.start + pairs.count, pairs.truth_start, pairs.truth_count)
    found, masks, crowd = [one["segmentation"] for one in records], truth.masks, truth.crowd.astype(int).tolist()
    for first, last, start, end, truth_start, truths in zip(*(one[some].tolist() for one in columns), strict=True):
        wanted = slice(truth_start, truth_start + truths)
        iou[first:last] = rle.iou(found[start:end], masks[wanted], crowd[wanted]).ravel()
    return iou


def _box_iou(found: Floats, truth: Truth, pairs: _Pairs) -> Floats:
    """Give what _mask_iou gives, of boxes f64[D,4]."""
    here, there = _indices(pairs)
    found, wanted = found[here], truth.boxes[there]
    near = np.maximum(found[:, :2], wanted[:, :2])
    far = np.minimum(found[:, :2] + found[:, 2:], wanted[:, :2] + wanted[:, 2:])
    sides = np.maximum(far - near, 0)
    both, area = sides[:, 0] * sides[:, 1], found[:, 2] * found[:, 3]
    union = np.where(truth.crowd[there], area, area + wanted[:, 2] * wanted[:, 3] - both)
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
