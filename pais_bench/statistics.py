"""Is a difference more than luck? Intervals over folds, a paired bootstrap over images, Holm; imports no torch.

docs/statistics.md says what each number means and when to believe it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

DRAWS = 1000
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


def detectable_on_images(sd: float, alpha: float = 0.05, power: float = 0.8) -> float:
    """Give the true difference of two given predictions that so many images show with this power.

    sd is the standard deviation of the difference over draws of the images, and the result has its unit. The
    difference is taken for normal, as a mean over many images. Source: Cohen (1988), chapter 2.
    """
    return sd * float(special.ndtri(1 - alpha / 2) + special.ndtri(power))


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
    """Hold a difference of AP, its percentile interval, the two-sided p value of no difference, and the draws' s.d."""

    value: float
    low: float
    high: float
    p: float
    sd: float


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
        return Difference(float(gains[0]), np.nan, np.nan, np.nan, np.nan)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    side = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = min(1.0, 2 * float(side + 1) / (len(drawn) + 1))
    return Difference(float(gains[0]), float(low), float(high), p, float(drawn.std(ddof=1)))


def draw(images: int, draws: int = DRAWS, seed: int = 0) -> Ints:
    """Give i64[1+draws, images]: every image once, and then draws of as many images with replacement."""
    return np.vstack([np.ones((1, images), dtype=np.int64), multiplicities(images, draws, seed)])


def multiplicities(images: int, draws: int, seed: int) -> Ints:
    """Draw how often each image is in each draw, i64[draws, images]; every row sums to images."""
    return np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=draws)
