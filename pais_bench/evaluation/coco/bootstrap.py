"""Compute the AP of bootstrap samples of a dataset's images from its matches, without matching again."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pais_bench.evaluation.coco.average_precision import RECALLS
from pais_bench.evaluation.coco.ground_truth import Floats, Ints
from pais_bench.evaluation.coco.matching import Matches

CHUNK = 32
"""Least number of samples per pass."""
CELLS = 131072
"""Detections times samples of a pass: their tables fit the cache of a processor, and a small class has few passes."""


def bootstrap_ap(matches: Matches, counts: Ints) -> Floats:
    """Return COCO AP f64[B] of B samples in which image i of matches.images is counts[b, i] times; NaN without objects.

    Equals an evaluation of the dataset with copies: each copy's detections match as the original's, and stand right
    behind them where scores are equal. Classes without an object in a sample are left out, as pycocotools does.
    """
    classes, copies = len(matches.categories), int(counts.max(initial=1))
    bounds = np.searchsorted(matches.category, np.arange(classes + 1))
    tables = [_Table.of(matches, slice(bounds[k], bounds[k + 1]), copies) for k in range(classes)]
    objects = [matches.gt_image[matches.counted[0] & (matches.gt_category == k)] for k in range(classes)]
    present = [k for k in range(classes) if len(objects[k])]
    by_image = np.ascontiguousarray(counts.T, dtype=np.float64)
    sums, valid = np.zeros(len(counts)), np.zeros(len(counts))
    for k in present:
        step = max(CHUNK, CELLS // max(len(tables[k].image), 1))
        for start in range(0, len(counts), step):
            samples = slice(start, start + step)
            chunk = by_image[:, samples]
            total = chunk[objects[k]].sum(axis=0)
            sums[samples] += np.where(total > 0, tables[k].ap(chunk, total), 0)
            valid[samples] += total > 0
    return np.asarray(sums / np.where(valid, valid, np.nan), dtype=np.float64)


@dataclass(frozen=True)
class _Table:
    """Hold one class's detections by falling score, n of them.

    image i64[n] | copy i64[n]: -1 counts for all copies of its image, c for copy c alone | true_positive, ignored: the
    indices of these detections at each threshold.
    """

    image: Ints
    copy: Ints
    true_positive: list[Ints]
    ignored: list[Ints]

    @staticmethod
    def of(matches: Matches, rows: slice, copies: int) -> _Table:
        index, copy = _sort_by_score(matches.score[rows], matches.image[rows], copies)
        matched, ignored = matches.matched[0, :, rows][:, index], matches.ignored[0, :, rows][:, index]
        true_positive = [np.flatnonzero(row) for row in matched & ~ignored]
        return _Table(matches.image[rows][index], copy, true_positive, [np.flatnonzero(row) for row in ignored])

    def ap(self, counts: Floats, total: Floats) -> Floats:
        """Return AP f64[B], a mean over thresholds, for counts f64[I,B] of the images and total f64[B] objects."""
        weight = counts[self.image]
        single = self.copy >= 0
        weight[single] = weight[single] > self.copy[single, None]
        detections = weight.cumsum(axis=0)
        thresholds = zip(self.true_positive, self.ignored, strict=True)
        terms = [_area_under_curve(weight, detections, *indices, total) for indices in thresholds]
        return np.asarray(np.mean(terms, axis=0), dtype=np.float64)


def _sort_by_score(score: Floats, image: Ints, copies: int) -> tuple[Ints, Ints]:
    """Sort detections by falling score; return index i64[n] and copy i64[n].

    Equal scores in one image are repeated for every copy of it, as in a dataset with copies: a b, a b and not a a b b.
    """
    order = np.argsort(-score, kind="stable")
    new = (np.diff(score[order]) != 0) | (np.diff(image[order]) != 0)
    block = np.concatenate([np.zeros(min(1, len(order)), dtype=np.int64), np.cumsum(new)])
    alone = np.bincount(block)[block] == 1
    times = np.where(alone, 1, copies)
    position = np.repeat(np.arange(len(order)), times)
    copy = np.arange(len(position)) - np.repeat(np.cumsum(times) - times, times)
    sort = np.lexsort((position, copy, block[position]))
    return order[position[sort]], np.where(alone[position], -1, copy)[sort]


def _area_under_curve(weight: Floats, detections: Floats, true_positive: Ints, ignored: Ints, total: Floats) -> Floats:
    """Return the mean over 101 recalls of the best precision at that recall or a higher one, f64[B].

    Only the rows of true positives [n,B] matter: between two of them precision falls and recall stays.
    """
    if not len(true_positive):
        return np.zeros(len(total))
    hits, shown = weight[true_positive].cumsum(axis=0), detections[true_positive]
    if len(ignored):
        skipped = np.concatenate([np.zeros((1, len(total))), weight[ignored].cumsum(axis=0)])
        shown = shown - skipped[np.searchsorted(ignored, true_positive)]
    precision = hits / (shown + np.spacing(1))
    best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    reached = _count_recalls(hits / np.maximum(total, 1))
    reached[1:] -= reached[:-1].copy()
    return np.asarray(np.einsum("nb,nb->b", best, reached) / len(RECALLS), dtype=np.float64)


def _count_recalls(recall: Floats) -> Floats:
    """Count the RECALLS that are at most as large as each value."""
    nearest = np.rint(recall * 100).astype(np.int64)
    return np.asarray(nearest + (RECALLS[nearest] <= recall), dtype=np.float64)
