"""Compute COCO's twelve numbers from matches, as COCOeval.accumulate and summarize define them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pais_bench.evaluation.coco.ground_truth import Bools, Floats, GroundTruth, Record
from pais_bench.evaluation.coco.matching import AREAS, MAX_DETECTIONS, THRESHOLDS, Matches, match

RECALLS = np.linspace(0.0, 1.0, 101)
"""The recalls at which COCO reads precision."""


def evaluate_fast(ground_truth: GroundTruth, records: Sequence[Record]) -> dict[str, dict[str, float | None]]:
    """Return what metrics/coco.py returns under "segm" and "bbox", many times as fast, for curves.

    No argument is checked: the records are of one of our networks on images of the ground truth.
    """
    return {kind: summarize(match(ground_truth, records, kind=kind)) for kind in ("segm", "bbox")}


def summarize(matches: Matches) -> dict[str, float | None]:
    """Return AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl, 0..1; None where there is no object."""
    ap = {area: average_precision(matches, index) for index, area in enumerate(AREAS)}
    ar = {area: recall(matches, index, MAX_DETECTIONS) for index, area in enumerate(AREAS)}
    values = {
        "AP": ap["all"],
        "AP50": ap["all"][:, np.isclose(THRESHOLDS, 0.5)],
        "AP75": ap["all"][:, np.isclose(THRESHOLDS, 0.75)],
        **{f"AP{area[0]}": ap[area] for area in ("small", "medium", "large")},
        "AR1": recall(matches, 0, 1),
        "AR10": recall(matches, 0, 10),
        "AR100": ar["all"],
        **{f"AR{area[0]}": ar[area] for area in ("small", "medium", "large")},
    }
    return {name: _mean(value) for name, value in values.items()}


def average_precision(matches: Matches, area: int = 0) -> Floats:
    """Return AP f64[K,T] of every class and threshold; NaN for a class without an object in the area range."""
    total = _count_objects(matches, area)
    result = np.full((len(total), len(THRESHOLDS)), np.nan)
    bounds = np.searchsorted(matches.category, np.arange(len(total) + 1))
    for k in np.flatnonzero(total):
        rows = slice(bounds[k], bounds[k + 1])
        order = np.argsort(-matches.score[rows], kind="stable")
        matched, ignored = matches.matched[area, :, rows][:, order], matches.ignored[area, :, rows][:, order]
        result[k] = area_under_curve(matched & ~ignored, ~matched & ~ignored, int(total[k]))
    return result


def recall(matches: Matches, area: int, max_detections: int) -> Floats:
    """Return the recall f64[K,T] of the first detections per image and class; NaN for a class without an object."""
    total = _count_objects(matches, area)
    true_positive = matches.matched[area] & ~matches.ignored[area] & (matches.rank < max_detections)
    rows = [np.bincount(matches.category, weights=row, minlength=len(total)) for row in true_positive]
    hits = np.stack(rows, axis=1)
    result: Floats = np.divide(hits, total[:, None], out=np.full(hits.shape, np.nan), where=total[:, None] > 0)
    return result


def _count_objects(matches: Matches, area: int) -> Floats:
    counted = matches.gt_category[matches.counted[area]]
    return np.bincount(counted, minlength=len(matches.categories)).astype(np.float64)


def area_under_curve(true_positive: Bools, false_positive: Bools, total: int) -> Floats:
    """Return the mean over RECALLS of the best precision at that recall or a higher one, f64[T]."""
    if not true_positive.shape[1]:
        return np.zeros(len(true_positive))
    hits, misses = true_positive.cumsum(axis=1).astype(np.float64), false_positive.cumsum(axis=1)
    precision = hits / (misses + hits + np.spacing(1))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    best = np.concatenate([best, np.zeros((len(best), 1))], axis=1)
    first = np.stack([np.searchsorted(row, RECALLS) for row in hits / total])
    return np.asarray(np.take_along_axis(best, first, axis=1).mean(axis=1), dtype=np.float64)


def _mean(values: Floats) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))
