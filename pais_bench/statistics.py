"""Is a difference more than luck? Intervals over folds, a paired bootstrap over images, Holm; imports no torch.

docs/statistics.md says what each number means and when to believe it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

if TYPE_CHECKING:
    from pais_bench.metrics._matching import Matches

DRAWS = 1000
CHUNK = 32
"""Draws that are worked on at once: their tables should fit the cache of a processor."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """Hold a mean, its sample standard deviation (NaN below two values) and its confidence interval."""

    mean: float
    sd: float
    low: float
    high: float


def over_folds(values: ArrayLike, confidence: float = 0.95) -> Interval:
    """Give mean, sample standard deviation and Student's t interval of the mean of one value per fold.

    The interval asks what another fold would give, if folds scatter normally; it is NaN below two folds.
    Source: Student (1908), The probable error of a mean.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size < 2:
        return Interval(float(array.mean()) if array.size else np.nan, np.nan, np.nan, np.nan)
    mean, sd = float(array.mean()), float(array.std(ddof=1))
    half = float(special.stdtrit(array.size - 1, (1 + confidence) / 2)) * sd / np.sqrt(array.size)
    return Interval(mean, sd, mean - half, mean + half)


def minimum_detectable(sd: float, folds: int, alpha: float = 0.05, power: float = 0.8) -> float:
    """Give the true difference that a two-sided paired t test over so many folds finds with this power.

    sd is the standard deviation of the paired differences over folds, and the result has its unit; NaN below two folds
    or without sd. Solves the power of the noncentral t distribution. Source: Cohen (1988), Statistical power analysis,
    chapter 2.
    """
    if folds < 2 or not sd >= 0:
        return float("nan")
    freedom = folds - 1
    bound = float(special.stdtrit(freedom, 1 - alpha / 2))

    # The other side of the test adds nothing near the power that is asked for.
    return sd * float(special.nctdtrinc(freedom, 1 - power, bound)) / float(np.sqrt(folds))


def holm(p_values: ArrayLike) -> Floats:
    """Give p values that are corrected for how many there are; those that are NaN were no tests and stay NaN.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6, 65-70.
    """
    values = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    result = np.full(values.shape, np.nan)
    result[order] = np.minimum(1, np.maximum.accumulate(values[order] * np.arange(len(order), 0, -1)))
    return result


@dataclass(frozen=True)
class Difference:
    """Hold a difference of AP as fractions, its percentile interval, and the two-sided p value of no difference."""

    value: float
    low: float
    high: float
    p: float


def compare(
    first: Sequence[Matches], second: Sequence[Matches], draws: int = DRAWS, seed: int = 0, confidence: float = 0.95
) -> Difference:
    """Give the mean over pairs of AP(second) - AP(first) with its paired bootstrap over images; see difference."""
    counts = draw(len(first[0].images), draws, seed)
    old, new = ([bootstrap_ap(one, counts) for one in side] for side in (first, second))
    return difference(old, new, confidence)


def difference(first: Sequence[Floats], second: Sequence[Floats], confidence: float = 0.95) -> Difference:
    """Give the mean over pairs (one per fold) of second - first, each f64[1+B]: AP on the data, and on B draws of it.

    Draw b has the same images in every array. p is twice the smaller share of draws on a side of zero, one draw added
    to each, at most 1: the level at which the percentile interval begins to hold zero. NaN where nothing was drawn.
    Source: Efron & Tibshirani (1993), An introduction to the bootstrap, chapters 13.3 and 15.4; Davison & Hinkley
    (1997), Bootstrap methods and their application, chapter 4.
    """
    gains = np.mean([new - old for old, new in zip(first, second, strict=True)], axis=0)
    drawn = gains[1:][~np.isnan(gains[1:])]
    if not len(drawn):
        return Difference(float(gains[0]), np.nan, np.nan, np.nan)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    side = min((drawn <= 0).sum(), (drawn >= 0).sum())
    return Difference(float(gains[0]), float(low), float(high), min(1.0, 2 * float(side + 1) / (len(drawn) + 1)))


def draw(images: int, draws: int = DRAWS, seed: int = 0) -> Ints:
    """Give i64[1+draws, images]: every image once, and then draws of as many images with replacement."""
    return np.vstack([np.ones((1, images), dtype=np.int64), multiplicities(images, draws, seed)])


def multiplicities(images: int, draws: int, seed: int) -> Ints:
    """Draw how often each image is in each draw, i64[draws, images]; every row sums to images."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=draws)


def bootstrap_ap(matches: Matches, counts: Ints) -> Floats:
    """Give COCO AP f64[B] of B data sets in which image i of matches.images is counts[b, i] times; NaN without objects.

    Equals an evaluation of the data set with copies: each copy's detections match as the original's, and stand right
    behind them where scores are equal. Classes that a draw has no object of are left out, as pycocotools does.
    """
    classes, copies = len(matches.categories), int(counts.max(initial=1))
    bounds = np.searchsorted(matches.category, np.arange(classes + 1))
    tables = [_Table.of(matches, slice(bounds[k], bounds[k + 1]), copies) for k in range(classes)]
    objects = [matches.truth_image[matches.counted[0] & (matches.truth_category == k)] for k in range(classes)]
    present = [k for k in range(classes) if len(objects[k])]
    result = np.empty(len(counts))
    for start in range(0, len(counts), CHUNK):
        chunk = np.ascontiguousarray(counts[start : start + CHUNK].T, dtype=np.float64)
        totals = [chunk[objects[k]].sum(axis=0) for k in present]
        sums = [np.where(total > 0, tables[k].ap(chunk, total), 0) for k, total in zip(present, totals, strict=True)]
        valid = np.sum([total > 0 for total in totals], axis=0) if present else np.zeros(chunk.shape[1])
        with np.errstate(invalid="ignore"):
            result[start : start + CHUNK] = (np.sum(sums, axis=0) if present else 0.0) / np.where(valid, valid, np.nan)
    return result


@dataclass(frozen=True)
class _Table:
    """Hold one class's detections by falling score, n of them.

    image i64[n] | copy i64[n]: -1 counts for all copies of its image, c for the copy c alone | right, ignored: at each
    threshold the places of the detections that are right, and of those that are neither right nor wrong.
    """

    image: Ints
    copy: Ints
    right: list[Ints]
    ignored: list[Ints]

    @staticmethod
    def of(matches: Matches, here: slice, copies: int) -> _Table:
        index, copy = _by_score(matches.score[here], matches.image[here], copies)
        matched, ignored = matches.matched[0, :, here][:, index], matches.ignored[0, :, here][:, index]
        right = [np.flatnonzero(row) for row in matched & ~ignored]
        return _Table(matches.image[here][index], copy, right, [np.flatnonzero(row) for row in ignored])

    def ap(self, counts: Floats, total: Floats) -> Floats:
        """Give AP f64[B], a mean over thresholds, for counts f64[I,B] of the images and total f64[B] objects."""
        weight = counts[self.image]
        single = self.copy >= 0
        weight[single] = weight[single] > self.copy[single, None]
        seen = weight.cumsum(axis=0)
        terms = [_under(weight, seen, *places, total) for places in zip(self.right, self.ignored, strict=True)]
        return np.asarray(np.mean(terms, axis=0), dtype=np.float64)


def _by_score(score: Floats, image: Ints, copies: int) -> tuple[Ints, Ints]:
    """Sort detections by falling score; give index i64[n] and copy i64[n].

    Equal scores in one image come again for every copy of it, as in a data set with copies: a b, a b and not a a b b.
    """
    order = np.argsort(-score, kind="stable")
    new = (np.diff(score[order]) != 0) | (np.diff(image[order]) != 0)
    block = np.concatenate([np.zeros(min(1, len(order)), dtype=np.int64), np.cumsum(new)])
    alone = np.bincount(block)[block] == 1
    times = np.where(alone, 1, copies)
    place = np.repeat(np.arange(len(order)), times)
    copy = np.arange(len(place)) - np.repeat(np.cumsum(times) - times, times)
    sort = np.lexsort((place, copy, block[place]))
    return order[place[sort]], np.where(alone[place], -1, copy)[sort]


def _under(weight: Floats, seen: Floats, right: Ints, ignored: Ints, total: Floats) -> Floats:
    """Give the mean over 101 recalls of the best precision at that recall or a higher one, f64[B].

    Only places of right detections [n,B] matter: between two of them precision falls and recall stays.
    """
    if not len(right):
        return np.zeros(len(total))
    hits, shown = weight[right].cumsum(axis=0), seen[right]
    if len(ignored):
        skipped = np.concatenate([np.zeros((1, len(total))), weight[ignored].cumsum(axis=0)])
        shown = shown - skipped[np.searchsorted(ignored, right)]
    precision = hits / (shown + np.spacing(1))
    best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    reached = _recalls(hits / np.maximum(total, 1))
    reached[1:] -= reached[:-1].copy()
    return np.asarray(np.einsum("nb,nb->b", best, reached) / len(RECALLS), dtype=np.float64)


RECALLS = np.linspace(0.0, 1.0, 101)
"""The recalls at which COCO reads precision."""


def _recalls(recall: Floats) -> Floats:
    """Count the RECALLS that are at most as large as each value."""
    nearest = np.rint(recall * 100).astype(np.int64)
    return np.asarray(nearest + (RECALLS[nearest] <= recall), dtype=np.float64)
