"""Match detections with objects as COCO does, for a whole dataset at once.

Returns what pycocotools' COCOeval.evaluateImg returns (same order, same ties), but as arrays: all thresholds and area
ranges are matched in one pass, and the IoU is computed per image and class, only where there are both a detection and
an object. Dims: D detections, G objects, T thresholds, A area ranges, I images, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pycocotools import mask as rle

from pais_bench.evaluation.coco.ground_truth import (
    Bools,
    Floats,
    GroundTruth,
    Ints,
    Record,
    boxes,
    group_records,
    mask_areas,
)

THRESHOLDS = np.linspace(0.5, 0.95, 10)
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
"""Areas in square pixels; both ends belong to a range, as in COCOeval.Params."""
MAX_DETECTIONS = 100
"""Detections per image and class that count; COCO's largest maxDets."""


@dataclass(frozen=True)
class Matches:
    """Hold the result of the matching for every detection and object of a dataset.

    images, categories: ids, sorted | image, category, rank i64[D]: indices into these, and rank in the image and class
    by falling score, below MAX_DETECTIONS | record i64[D]: index into the records of these images and categories |
    score f64[D] | matched, ignored bool[A,T,D] | gt_image, gt_category i64[G] | gt_matched bool[A,T,G] | counted
    bool[A,G]: objects that recall is taken over. Detections are sorted by category, image and rank, objects as those of
    GroundTruth. An ignored detection is neither a true nor a false positive: it matched a crowd region, or an object of
    another area range, or is of another area range itself.
    """

    images: Ints
    categories: Ints
    image: Ints
    category: Ints
    rank: Ints
    record: Ints
    score: Floats
    matched: Bools
    ignored: Bools
    gt_image: Ints
    gt_category: Ints
    gt_matched: Bools
    counted: Bools


def match(
    ground_truth: Record | GroundTruth,
    records: Sequence[Record],
    kind: str = "segm",
) -> Matches:
    """Match COCO result records with the content of a COCO annotation file; kind is segm or bbox.

    A prepared GroundTruth, with its images, serves many calls. No argument is checked or changed; metrics/coco.py
    describes them.
    """
    gt = ground_truth if isinstance(ground_truth, GroundTruth) else GroundTruth.of(ground_truth)
    records, group = group_records(records, gt.images, gt.categories)
    score = np.array([record["score"] for record in records], dtype=np.float64)

    order = np.lexsort((-score, group))
    group, rank = group[order], _rank(group[order])
    order, group, rank = order[rank < MAX_DETECTIONS], group[rank < MAX_DETECTIONS], rank[rank < MAX_DETECTIONS]
    records, score = [records[index] for index in order], score[order]

    ranges = np.array(list(AREAS.values()))
    gt_ignored = _outside(gt.area, ranges) | gt.crowd
    pairs = _Pairs.of(group, gt.group)
    if kind == "bbox":
        detected = boxes(records)
        area, iou = detected[:, 2] * detected[:, 3], _box_iou(detected, gt, pairs)
    else:
        area = mask_areas([record["segmentation"] for record in records])
        iou = _mask_iou(records, area, gt, pairs)
    matched, ignored, gt_matched = _match(pairs, iou, len(records), gt, gt_ignored)
    ignored |= ~matched & _outside(area, ranges)[:, None, :]
    count = len(gt.images)
    return Matches(
        images=gt.images,
        categories=gt.categories,
        image=group % count,
        category=group // count,
        rank=rank,
        record=order,
        score=score,
        matched=matched,
        ignored=ignored,
        gt_image=gt.group % count,
        gt_category=gt.group // count,
        gt_matched=gt_matched,
        counted=~gt_ignored,
    )


def _rank(group: Ints) -> Ints:
    """Return the index of each element of a sorted array among its equals."""
    return np.arange(len(group)) - np.searchsorted(group, group)


def _outside(area: Floats, ranges: Floats) -> Bools:
    return (area < ranges[:, :1]) | (area > ranges[:, 1:])


@dataclass(frozen=True)
class _Pairs:
    """Hold the groups with both detections and objects: the start and the number of each, i64[N]."""

    start: Ints
    count: Ints
    gt_start: Ints
    gt_count: Ints

    @staticmethod
    def of(group: Ints, gt_group: Ints) -> _Pairs:
        first = group[_rank(group) == 0]
        start, stop = (np.searchsorted(group, first, side) for side in ("left", "right"))
        gt_start, gt_stop = (np.searchsorted(gt_group, first, side) for side in ("left", "right"))
        both = gt_stop > gt_start
        return _Pairs(start[both], (stop - start)[both], gt_start[both], (gt_stop - gt_start)[both])

    @property
    def size(self) -> Ints:
        """Return the number of (detection, object) pairs of each group."""
        return self.count * self.gt_count

    def indices(self) -> tuple[Ints, Ints]:
        """Return the detection and the object of every pair, row by row and group by group."""
        size = self.size
        group = np.repeat(np.arange(len(size)), size)
        within = np.arange(size.sum()) - np.repeat(np.cumsum(size) - size, size)
        row, column = np.divmod(within, self.gt_count[group])
        return self.start[group] + row, self.gt_start[group] + column


def _mask_iou(records: Sequence[Record], area: Floats, gt: GroundTruth, pairs: _Pairs) -> Floats:
    """Return the IoU of every pair, in the order of _Pairs.indices.

    0 for a whole group in which no IoU can reach the first threshold, as one mask is too large for the other.
    """
    detection, target = pairs.indices()
    smaller = np.minimum(area[detection], gt.mask_areas[target])
    larger = np.maximum(area[detection], gt.mask_areas[target])
    possible = (smaller >= THRESHOLDS[0] * larger) | gt.crowd[target]
    iou, stop = np.zeros(len(possible)), np.cumsum(pairs.size)
    needed = np.logical_or.reduceat(possible, stop - pairs.size) if len(stop) else possible
    columns = (stop - pairs.size, stop, pairs.start, pairs.start + pairs.count, pairs.gt_start, pairs.gt_count)
    detected, masks, crowd = [record["segmentation"] for record in records], gt.masks, gt.crowd.astype(int).tolist()
    for first, last, start, end, gt_start, gt_count in zip(
        *(column[needed].tolist() for column in columns), strict=True
    ):
        objects = slice(gt_start, gt_start + gt_count)
        iou[first:last] = rle.iou(detected[start:end], masks[objects], crowd[objects]).ravel()
    return iou


def _box_iou(detected: Floats, gt: GroundTruth, pairs: _Pairs) -> Floats:
    """Return the IoU of every pair of boxes f64[D,4], in the order of _Pairs.indices."""
    detection, target = pairs.indices()
    first, second = detected[detection], gt.boxes[target]
    near = np.maximum(first[:, :2], second[:, :2])
    far = np.minimum(first[:, :2] + first[:, 2:], second[:, :2] + second[:, 2:])
    sides = np.maximum(far - near, 0)
    intersection, area = sides[:, 0] * sides[:, 1], first[:, 2] * first[:, 3]
    union = np.where(gt.crowd[target], area, area + second[:, 2] * second[:, 3] - intersection)
    iou: Floats = np.divide(intersection, union, out=np.zeros_like(intersection), where=intersection > 0)
    return iou


def _match(
    pairs: _Pairs, iou: Floats, detections: int, gt: GroundTruth, gt_ignored: Bools
) -> tuple[Bools, Bools, Bools]:
    """Match every group; return matched and ignored bool[A,T,D], and gt_matched bool[A,T,G]."""
    areas, objects = gt_ignored.shape
    matched, ignored, gt_matched = (
        np.zeros((areas, len(THRESHOLDS), count), dtype=bool) for count in (detections, detections, objects)
    )
    width = 1
    while len(pairs.gt_count) and width < 2 * pairs.gt_count.max():
        # Groups of about as many objects share one table, which is width wide.
        groups = np.flatnonzero((pairs.gt_count <= width) & (2 * pairs.gt_count > width))
        if len(groups):
            _match_groups(pairs, iou, groups, width, gt, gt_ignored, matched, ignored, gt_matched)
        width *= 2
    return matched, ignored, gt_matched


def _match_groups(
    pairs: _Pairs, iou: Floats, groups: Ints, width: int,
    gt: GroundTruth, gt_ignored: Bools, matched: Bools, ignored: Bools, gt_matched: Bools,
) -> None:  # fmt: skip
    """Match groups of at most `width` objects; write into matched, ignored and gt_matched."""
    offset = (np.cumsum(pairs.size) - pairs.size)[groups]
    count, columns = pairs.gt_count[groups], np.arange(width)
    valid = columns < count[:, None]
    objects = np.where(valid, pairs.gt_start[groups, None] + columns, 0)
    crowd = gt.crowd[objects][:, None, None, :]  # a crowd region matches any number of detections
    ignore = gt_ignored[:, objects].transpose(1, 0, 2)
    taken = np.zeros((len(groups), len(gt_ignored), len(THRESHOLDS), width), dtype=bool)

    group = np.repeat(np.arange(len(groups)), pairs.count[groups])
    row = _rank(group)
    pair = np.where(valid[group], offset[group, None] + row[:, None] * count[group, None] + columns, 0)
    table = np.where(valid[group], iou[pair], -1.0)
    possible = table.max(axis=1) >= THRESHOLDS[0]
    group, row, table = group[possible], row[possible], table[possible]
    # COCOeval takes the best of the objects that count, the later of two equals, and an ignored one where none is left.
    order = table.argsort(axis=1, kind="stable").argsort(axis=1).astype(np.int32)
    turn = _rank(group)
    for step in range(int(turn.max()) + 1 if len(turn) else 0):
        now = np.flatnonzero(turn == step)
        here, detection = group[now], pairs.start[groups[group[now]]] + row[now]
        free = (table[now][:, None, None, :] >= THRESHOLDS[:, None]) & (~taken[here] | crowd[here])
        key = order[now][:, None, :] + width * ~ignore[here]
        best = np.where(free, key[:, :, None, :], -1).argmax(axis=-1)
        possible = np.take_along_axis(free, best[..., None], axis=-1)[..., 0]
        n, a, t = np.nonzero(possible)
        column = best[n, a, t]
        taken[here[n], a, t, column] = True
        matched[a, t, detection[n]] = True
        ignored[a, t, detection[n]] = ignore[here[n], a, column]
        gt_matched[a, t, objects[here[n], column]] = True
