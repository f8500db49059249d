"""What do matches add up to? COCO's twelve numbers, as COCOeval.accumulate and summarize define them."""

from __future__ import annotations

import numpy as np

from pais_bench.metrics._matching import AREAS, LIMIT, THRESHOLDS, Matches
from pais_bench.metrics._truth import Bools, Floats

RECALLS = np.linspace(0.0, 1.0, 101)
"""The recalls at which COCO reads precision."""


def numbers(matches: Matches) -> dict[str, float | None]:
    """Give AP, AP50, AP75, APs, APm, APl, AR1, AR10, AR100, ARs, ARm, ARl, 0..1; None where there is no object."""
    ap = {area: average_precision(matches, index) for index, area in enumerate(AREAS)}
    ar = {area: recall(matches, index, LIMIT) for index, area in enumerate(AREAS)}
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
    """Give AP f64[K,T] of every class and threshold; NaN for a class without an object in the area range."""
    total = _objects(matches, area)
    result = np.full((len(total), len(THRESHOLDS)), np.nan)
    bounds = np.searchsorted(matches.category, np.arange(len(total) + 1))
    for k in np.flatnonzero(total):
        here = slice(bounds[k], bounds[k + 1])
        order = np.argsort(-matches.score[here], kind="stable")
        matched, ignored = matches.matched[area, :, here][:, order], matches.ignored[area, :, here][:, order]
        result[k] = _area_under(matched & ~ignored, ~matched & ~ignored, int(total[k]))
    return result


def recall(matches: Matches, area: int, limit: int) -> Floats:
    """Give the recall f64[K,T] of the first `limit` detections per image and class; NaN for a class without object."""
    total = _objects(matches, area)
    right = matches.matched[area] & ~matches.ignored[area] & (matches.rank < limit)
    hits = np.stack([np.bincount(matches.category, weights=row, minlength=len(total)) for row in right], axis=1)
    share: Floats = np.divide(hits, total[:, None], out=np.full(hits.shape, np.nan), where=total[:, None] > 0)
    return share


def _objects(matches: Matches, area: int) -> Floats:
    counted = matches.truth_category[matches.counted[area]]
    return np.bincount(counted, minlength=len(matches.categories)).astype(np.float64)


def _area_under(right: Bools, wrong: Bools, total: int) -> Floats:
    """Give the mean over RECALLS of the best precision at that recall or a higher one, f64[T]."""
    if not right.shape[1]:
        return np.zeros(len(right))
    hits, misses = right.cumsum(axis=1).astype(np.float64), wrong.cumsum(axis=1)
    precision = hits / (misses + hits + np.spacing(1))
    best = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    best = np.concatenate([best, np.zeros((len(best), 1))], axis=1)
    first = np.stack([np.searchsorted(row, RECALLS) for row in hits / total])
    return np.asarray(np.take_along_axis(best, first, axis=1).mean(axis=1), dtype=np.float64)


def _mean(values: Floats) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))
