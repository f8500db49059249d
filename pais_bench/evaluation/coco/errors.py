"""Tell the errors of predicted masks apart: their kinds after TIDE, the confused classes, and the errors of each image.

TIDE asks of each kind of error by how much AP50 rises where an oracle corrects the errors of that kind alone. Source:
Bolya, Foley, Hays, Hoffman (2020), TIDE: a general toolbox for identifying object detection errors, ECCV, section 2;
the order in which kinds are tried is that of its code, tidecv 1.0.1. What COCO ignores is no error and no object, and a
class whose objects are all left out does not enter the mean.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from pais_bench.evaluation.coco.average_precision import area_under_curve
from pais_bench.evaluation.coco.ground_truth import Bools, Floats, GroundTruth, Ints, Record, group_records
from pais_bench.evaluation.coco.matching import AREAS, THRESHOLDS, Matches, match

KINDS = ("classification", "localisation", "both", "duplicate", "background", "missed")
RIGHT, BACKGROUND = float(THRESHOLDS[0]), 0.1
"""The least IoU of a right mask, and the largest one with any object of a mask that lies on background."""


def analyse(ground_truth: GroundTruth, records: Sequence[Record]) -> dict[str, Any]:
    """Return AP50 0..1 and the errors of COCO result records, as JSON can hold them. No argument is checked.

    dAP: by how much AP50 rises without each of KINDS | threshold: the score from which on F1 is highest; None without a
    detection | by_image: of each image its id, its number of objects, and of its detections from that score on the
    numbers of right (found) and false ones | confusion: [class id, class id of the detection or None, number], of each
    object the detection with the highest score and an IoU of RIGHT, of whatever class | sizes: the objects in each of
    COCO's area ranges. AP50 and dAP are None without an object.
    """
    kept, _ = group_records(records, ground_truth.images, ground_truth.categories)
    matches = match(ground_truth, kept)
    masks = [kept[index]["segmentation"] for index in matches.record.tolist()]
    detections = _Detections(matches, _Overlaps.of(ground_truth, matches, masks))
    threshold = detections.best_threshold()
    return {
        **_oracles(detections),
        "threshold": threshold,
        "by_image": _count_by_image(detections, np.inf if threshold is None else threshold),
        "confusion": _confusion(detections),
        "sizes": dict(zip(AREAS, matches.counted.sum(axis=1).tolist(), strict=True)),
    }


@dataclass(frozen=True)
class _Overlaps:
    """Hold how the D detections overlap the G objects of their images; crowd regions are left out.

    iou f64[2,D], target i64[2,D]: the largest IoU of each with an object of its class, and with one of another class, 0
    where there is none, and the object | detected i64[G]: the detection of the highest score with an IoU of RIGHT, or
    -1.
    """

    iou: Floats
    target: Ints
    detected: Ints

    @staticmethod
    def of(gt: GroundTruth, matches: Matches, masks: Sequence[Record]) -> _Overlaps:
        iou, target = np.zeros((2, len(masks))), np.zeros((2, len(masks)), dtype=np.int64)
        detected, images = np.full(len(matches.gt_image), -1), np.arange(len(matches.images) + 1)
        by_image, counted = np.argsort(matches.image, kind="stable"), np.flatnonzero(matches.counted[0])
        gt_by_image = counted[np.argsort(matches.gt_image[counted], kind="stable")]
        ends = np.searchsorted(matches.image[by_image], images)
        gt_ends = np.searchsorted(matches.gt_image[gt_by_image], images)
        for image in np.flatnonzero((np.diff(ends) > 0) & (np.diff(gt_ends) > 0)):
            rows = by_image[ends[image] : ends[image + 1]]
            objects = gt_by_image[gt_ends[image] : gt_ends[image + 1]]
            sides = [masks[row] for row in rows], [gt.masks[index] for index in objects]
            table = np.nan_to_num(rle.iou(*sides, [0] * len(objects)))
            same = matches.category[rows, None] == matches.gt_category[objects]
            for index, of_kind in enumerate((same, ~same)):
                best = (table * of_kind).argmax(axis=1)
                iou[index, rows], target[index, rows] = (table * of_kind).max(axis=1), objects[best]
            score = np.where(table >= RIGHT, matches.score[rows, None], -np.inf)
            hit = score.max(axis=0) > -np.inf
            detected[objects[hit]] = rows[score.argmax(axis=0)[hit]]
        return _Overlaps(iou, target, detected)


@dataclass(frozen=True)
class _Detections:
    """Tell right and wrong detections apart at an IoU of RIGHT, and what is wrong with each."""

    matches: Matches
    overlaps: _Overlaps

    @cached_property
    def counted(self) -> Bools:
        """Return which detections COCO does not ignore, bool[D]."""
        counted: Bools = ~self.matches.ignored[0, 0]
        return counted

    @cached_property
    def right(self) -> Bools:
        """Return which of them are true positives, bool[D]."""
        right: Bools = self.matches.matched[0, 0] & self.counted
        return right

    @cached_property
    def objects(self) -> Bools:
        """Return which objects count, bool[G]."""
        objects: Bools = self.matches.counted[0]
        return objects

    @cached_property
    def kind(self) -> NDArray[np.str_]:
        """Return the kind of error of every detection, str[D]; an empty text for those without."""
        same, other = self.overlaps.iou
        tried = {
            "localisation": (same >= BACKGROUND) & (same < RIGHT),
            "classification": other >= RIGHT,
            "duplicate": same >= RIGHT,
            "background": np.maximum(same, other) <= BACKGROUND,
        }
        kind = np.select(list(tried.values()), list(tried), "both")
        return np.where(self.counted & ~self.right, kind, "")

    @cached_property
    def target(self) -> Ints:
        """Return the object i64[D] that a detection would match with the right class, or else with the right mask."""
        of_class, of_other = self.overlaps.target
        target: Ints = np.where(self.kind == "classification", of_other, of_class)
        return target

    @cached_property
    def correctable(self) -> Ints:
        """Return the detections, by falling score, that an oracle can correct to match an object that has no match."""
        rows = np.flatnonzero(np.isin(self.kind, ("classification", "localisation")))
        rows = rows[~self.matches.gt_matched[0, 0, self.target[rows]]]
        by_score: Ints = rows[np.argsort(-self.matches.score[rows], kind="stable")]
        return by_score

    def best_threshold(self) -> float | None:
        """Return the score from which on the F1 of all classes is highest."""
        score, right = self.matches.score[self.counted], self.right[self.counted]
        order = np.argsort(-score, kind="stable")
        score, hits = score[order], right[order].cumsum()
        last = np.append(np.diff(score) != 0, True) if len(score) else np.zeros(0, dtype=bool)
        f1 = 2 * hits / (np.arange(1, len(score) + 1) + self.objects.sum())
        return float(score[last][f1[last].argmax()]) if len(score) else None


def _oracles(detections: _Detections) -> dict[str, Any]:
    """Return AP50 and dAP; a gain below 0, which the 101 recalls of AP can make, counts as 0, as in tidecv."""
    matches, kind = detections.matches, detections.kind
    best = detections.correctable
    _, first = np.unique(detections.target[best], return_index=True)
    corrected = np.zeros(len(kind), dtype=bool)
    corrected[best[first]] = True
    missed = detections.objects & ~matches.gt_matched[0, 0]
    missed[detections.target[best]] = False

    def ap50(without: str = "nothing") -> float:
        of_kind = kind == without
        kept = detections.counted & (~of_kind | corrected)
        right = (detections.right | (corrected & of_kind))[kept]
        category, moved = matches.category.copy(), corrected & of_kind & (kind == "classification")
        category[moved] = matches.gt_category[detections.target[moved]]
        objects = detections.objects & ~missed if without == "missed" else detections.objects
        return _ap50(category[kept], matches.score[kept], right, matches.gt_category[objects])

    before = ap50()
    if np.isnan(before):
        return {"AP50": None, "dAP": dict.fromkeys(KINDS)}
    gains = {name: np.nan_to_num(ap50(name), nan=1.0) - before for name in KINDS}
    return {"AP50": before, "dAP": {name: max(0.0, float(gain)) for name, gain in gains.items()}}


def _ap50(category: Ints, score: Floats, right: Bools, gt_category: Ints) -> float:
    """Return the mean over the classes that have objects; NaN without one."""
    order = np.lexsort((-score, category))
    category, right = category[order], right[order]
    classes, objects = np.unique(gt_category, return_counts=True)
    starts, ends = (np.searchsorted(category, classes, side) for side in ("left", "right"))
    values = [
        area_under_curve(right[None, start:end], ~right[None, start:end], int(total))[0]
        for start, end, total in zip(starts, ends, objects, strict=True)
    ]
    return float(np.mean(values)) if values else float("nan")


def _count_by_image(detections: _Detections, threshold: float) -> dict[str, list[int]]:
    matches = detections.matches
    shown = detections.counted & (matches.score >= threshold)
    counted = {
        "objects": matches.gt_image[detections.objects],
        "found": matches.image[shown & detections.right],
        "false": matches.image[shown & ~detections.right],
    }
    counts = {name: np.bincount(image, minlength=len(matches.images)) for name, image in counted.items()}
    return {"id": matches.images.tolist(), **{name: values.tolist() for name, values in counts.items()}}


def _confusion(detections: _Detections) -> list[list[int | None]]:
    matches, objects = detections.matches, np.flatnonzero(detections.objects)
    ids, row = matches.categories.tolist(), detections.overlaps.detected[objects].tolist()
    classes = [ids[index] for index in matches.gt_category[objects].tolist()]
    found = [None if index < 0 else ids[int(matches.category[index])] for index in row]
    return [[*pair, number] for pair, number in Counter(zip(classes, found, strict=True)).items()]
