"""Compute intervals and paired tests over folds, over images and over both, and Holm's correction.

docs/explanation/statistics.md explains each number and its limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

SAMPLES = 1000
CONFIDENCE = 0.95
"""Of every interval; 1 less it is the level of every test."""
POWER = 0.8
"""Of every detectable difference."""
MIN_FOLDS = 3
"""Folds below which no difference is called significant: what two say of others rests on one degree of freedom."""
EXACT_FOLDS = range(6, 21)
"""Folds of an exact sign-flip test: below, p cannot fall under 0.05; above, there are too many patterns of signs."""

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """Hold a mean, its sample standard deviation (NaN below two values) and its confidence interval."""

    mean: float
    sd: float
    low: float
    high: float


def over_folds(values: ArrayLike) -> Interval:
    """Return mean, sample standard deviation and Student's t interval of the mean of one value per fold.

    The interval assumes that folds scatter normally; it is NaN below two folds.
    Source: Student (1908), The probable error of a mean.
    """
    array = np.asarray(values, dtype=np.float64)
    if array.size < 2:
        return Interval(float(array.mean()) if array.size else np.nan, np.nan, np.nan, np.nan)
    mean, sd = float(array.mean()), float(array.std(ddof=1))
    half = float(special.stdtrit(array.size - 1, (1 + CONFIDENCE) / 2)) * sd / np.sqrt(array.size)
    return Interval(mean, sd, mean - half, mean + half)


def minimum_detectable(sd: float, folds: int) -> float:
    """Return the true difference that a two-sided paired t test over so many folds detects with POWER.

    sd is the standard deviation of the paired differences over folds, and the result has its unit; NaN below two folds
    or without sd. Solves the power of the noncentral t distribution. Source: Cohen (1988), Statistical power analysis,
    chapter 2.
    """
    if folds < 2 or not sd >= 0:
        return float("nan")
    freedom = folds - 1
    bound = float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2))

    # The other side of the test adds nothing near the required power.
    return sd * float(special.nctdtrinc(freedom, 1 - POWER, bound)) / float(np.sqrt(folds))


def detectable_on_images(sd: float) -> float:
    """Return the true difference of two predictions that a set of images detects with POWER.

    sd is the standard deviation of the difference over bootstrap samples of the images, and the result has its unit.
    The difference is assumed to be normal, as a mean over many images. Source: Cohen (1988), chapter 2.
    """
    return sd * float(special.ndtri((1 + CONFIDENCE) / 2) + special.ndtri(POWER))


def holm(p_values: ArrayLike, tests: int | None = None) -> Floats:
    """Return p values corrected for the number of tests; those that are NaN stay NaN.

    tests counts the planned ones, so that p cannot rise by tests that are still to come; by default those that are not
    NaN. Source: Holm (1979), A simple sequentially rejective multiple test procedure, Scand. J. Statist. 6, 65-70.
    """
    values = np.asarray(p_values, dtype=np.float64)
    tested = np.flatnonzero(~np.isnan(values))
    order = tested[np.argsort(values[tested], kind="stable")]
    result = np.full(values.shape, np.nan)
    factors = (len(order) if tests is None else tests) - np.arange(len(order))
    result[order] = np.minimum(1, np.maximum.accumulate(values[order] * factors))
    return result


@dataclass(frozen=True)
class Difference:
    """Hold a difference of AP, its interval, the two-sided p value of no difference, and its s.d. over the samples."""

    value: float
    low: float
    high: float
    p: float
    sd: float


def difference(first: Sequence[Floats], second: Sequence[Floats]) -> Difference:
    """Return the mean over pairs (one per fold) of second - first, each f64[1+B]: AP on the data, and on B samples.

    Sample b has the same images in every array. p is twice the smaller fraction of samples on one side of zero, one
    sample added to each, at most 1: the level at which the percentile interval begins to hold zero. NaN without
    samples.
    Source: Efron & Tibshirani (1993), An introduction to the bootstrap, chapters 13.3 and 15.4; Davison & Hinkley
    (1997), Bootstrap methods and their application, chapter 4.
    """
    gains = np.mean([new - old for old, new in zip(first, second, strict=True)], axis=0)
    samples = gains[1:][~np.isnan(gains[1:])]
    if not len(samples):
        return Difference(float(gains[0]), np.nan, np.nan, np.nan, np.nan)
    low, high = np.quantile(samples, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    side = min((samples <= 0).sum(), (samples >= 0).sum())
    p = min(1.0, 2 * float(side + 1) / (len(samples) + 1))
    return Difference(float(gains[0]), float(low), float(high), p, float(samples.std(ddof=1)))


def two_level(first: Sequence[Floats], second: Sequence[Floats]) -> Difference:
    """Return what `difference` does, with interval, p and s.d. of the two-level bootstrap: folds, then images.

    A sample draws the folds with replacement, and has the same images in each of them. Its variance over the draws of
    folds is known without drawing, and is multiplied by n / (n - 1), as n drawn folds scatter too little. sd is the
    root of the variance over all samples. Interval and p are Student's, symmetric, with the degrees of freedom of
    Satterthwaite: n - 1 where folds alone scatter, infinite where images alone do. NaN below two folds and two samples.
    Source: Owen (2007), The pigeonhole bootstrap, Ann. Appl. Stat. 1, 386-411; Davison & Hinkley (1997), chapter 3.8;
    Hillis (2007), Statistics in Medicine 26, 596-619.
    """
    gains = np.array([new - old for old, new in zip(first, second, strict=True)])
    folds, value = len(gains), float(gains[:, 0].mean())
    samples = gains[:, 1:][:, ~np.isnan(gains[:, 1:]).any(axis=0)]
    if folds < 2 or samples.shape[1] < 2:
        return Difference(value, np.nan, np.nan, np.nan, np.nan)
    variance = float(samples.var(axis=0, ddof=1).mean() / folds + samples.mean(axis=0).var(ddof=1))
    of_folds = float(gains[:, 0].var(ddof=1)) / folds
    ratio = variance / of_folds if of_folds > 0 else np.inf
    freedom = (folds - 1) * ratio * ratio
    sd = float(np.sqrt(variance))
    half = float(special.stdtrit(freedom, (1 + CONFIDENCE) / 2)) * sd
    return Difference(value, value - half, value + half, _student_p(value, sd, freedom), sd)


def paired_t(differences: ArrayLike) -> float:
    """Return the two-sided p value of Student's t test of paired differences, one per fold, against zero.

    NaN below two folds. Source: Student (1908), The probable error of a mean.
    """
    interval = over_folds(differences)
    folds = np.size(differences)
    return _student_p(interval.mean, interval.sd / np.sqrt(folds), folds - 1) if folds > 1 else float("nan")


def sign_flip(differences: ArrayLike) -> float:
    """Return the exact two-sided p value of paired differences, one per fold, under all 2^n patterns of their signs.

    It assumes no normal distribution, but that a difference is as likely as its negative. NaN outside EXACT_FOLDS.
    Source: Fisher (1935), The design of experiments, section 21.
    """
    values = np.asarray(differences, dtype=np.float64)
    if values.size not in EXACT_FOLDS:
        return float("nan")
    sums = values[:1]
    for value in values[1:]:  # with the first sign fixed: the other half of the patterns mirrors these
        sums = np.concatenate([sums + value, sums - value])

    # Sums that are equal but for rounding are equal.
    return float((np.abs(sums) >= abs(values.sum()) - 1e-9 * np.abs(values).sum()).mean())


def _student_p(value: float, sd: float, freedom: float) -> float:
    """Return the two-sided p value of a value with a standard error; a value of zero has 1, whatever its error."""
    if value == 0 or np.isnan(sd):
        return 1.0 if value == 0 else float("nan")
    return 2 * float(special.stdtr(freedom, -abs(value) / sd)) if sd > 0 else 0.0


def bootstrap_counts(images: int, samples: int = SAMPLES, seed: int = 0) -> Ints:
    """Return how often each image is in each sample, i64[1+samples, images]; every row sums to images.

    The first row has every image once, the others as many images drawn with replacement.
    """
    drawn = np.random.default_rng(seed).multinomial(images, np.full(images, 1 / images), size=samples)
    return np.vstack([np.ones((1, images), dtype=np.int64), drawn])
