"""Check the two-level bootstrap: its laws, its variance against drawn samples, and how often it errs where it may."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from pais_bench.evaluation import significance
from pais_bench.evaluation.significance import Difference

Floats = NDArray[np.float64]


def noisy(folds: int, samples: int = 400, seed: int = 0) -> tuple[list[Floats], list[Floats]]:
    """Return AP on the data and on samples of two methods, in each fold."""
    rng = np.random.default_rng(seed)
    shared = rng.normal(0, 0.6, 1 + samples)
    first = [30 + rng.normal(0, 1) + rng.normal(0, 0.5, 1 + samples) for _ in range(folds)]
    return first, [ap + 1 + rng.normal(0, 1) + shared + rng.normal(0, 0.4, 1 + samples) for ap in first]


def numbers(result: Difference) -> tuple[float, ...]:
    return result.value, result.low, result.high, result.p, result.sd


def test_swapped_methods_have_the_negative_and_folds_no_order() -> None:
    first, second = noisy(5)
    result, swapped = significance.two_level(first, second), significance.two_level(second, first)
    assert numbers(swapped) == pytest.approx((-result.value, -result.high, -result.low, result.p, result.sd))
    order = [3, 0, 4, 2, 1]
    moved = significance.two_level([first[fold] for fold in order], [second[fold] for fold in order])
    assert numbers(moved) == pytest.approx(numbers(result))
    assert result.value == significance.difference(first, second).value


def test_identical_folds_have_the_deviation_of_one_over_images_and_a_normal_interval() -> None:
    first, second = noisy(1)
    images = significance.difference(first, second)
    both = significance.two_level(first * 4, second * 4)
    assert (both.value, both.sd) == pytest.approx((images.value, images.sd))
    assert both.high - both.value == pytest.approx(1.959964 * images.sd)
    assert both.p == pytest.approx(2 * stats.norm.sf(abs(images.value) / images.sd))


def test_without_noise_of_images_it_is_the_paired_t_test_over_folds() -> None:
    first, second = ([np.full(101, ap) for ap in values] for values in ([30.0, 31, 29.5], [31.0, 33.1, 30.2]))
    result = significance.two_level(first, second)
    expected = stats.ttest_rel([31.0, 33.1, 30.2], [30.0, 31, 29.5])
    interval = expected.confidence_interval(0.95)
    assert (result.p, result.low, result.high) == pytest.approx((expected.pvalue, interval.low, interval.high))


def test_one_fold_or_no_sample_says_nothing_and_samples_without_ap_are_left_out() -> None:
    first, second = noisy(3)
    unsampled = ([ap[:1] for ap in side] for side in (first, second))
    for result in (significance.two_level(first[:1], second[:1]), significance.two_level(*unsampled)):
        assert np.isnan([result.low, result.high, result.p, result.sd]).all()
    assert significance.two_level(first, first).p == 1
    holed = [ap.copy() for ap in second]
    holed[1][7] = np.nan
    without = [[np.delete(ap, 7) for ap in side] for side in (first, second)]
    assert numbers(significance.two_level(first, holed)) == pytest.approx(numbers(significance.two_level(*without)))


@pytest.mark.parametrize("folds", [2, 3, 6])
def test_the_deviation_is_that_of_drawn_folds_and_images(folds: int) -> None:
    """Draw in plain Python: within each sample of the images the folds, whose variance takes n / (n - 1)."""
    first, second = noisy(folds, samples=300)
    rng = np.random.default_rng(1)
    within, means = [], []
    for sample in range(1, 301):
        gains = [second[fold][sample] - first[fold][sample] for fold in range(folds)]
        drawn = [sum(gains[fold] for fold in rng.integers(folds, size=folds)) / folds for _ in range(300)]
        within.append(np.var(drawn) * folds / (folds - 1))
        means.append(sum(gains) / folds)
    expected = np.sqrt(np.mean(within) + np.var(means, ddof=1))
    assert significance.two_level(first, second).sd == pytest.approx(expected, rel=0.01)


SPREADS = {
    "folds": (1.0, 0.0, 0.0),
    "folds and images": (1.0, 0.5, 0.5),
    "images": (0.0, 1.0, 0.0),
    "images, anew in each fold": (0.0, 0.0, 1.0),
}
"""Standard deviations of a gain: over folds, over images that are the same in all folds, and anew in each fold."""


def false_positives(spread: tuple[float, float, float], folds: int, trials: int) -> dict[str, float]:
    """Return how often p < 0.05 where no method is better, by test; 95 % intervals miss zero as often.

    The gain of an image is normal, and AP is their mean. two-level, percentiles: folds are drawn as images are.
    """
    images, samples, (of_folds, shared, anew) = 60, 300, spread
    rng = np.random.default_rng(folds)
    counts = significance.bootstrap_counts(images, samples) / images
    wrong = {"images": 0, "two-level, percentiles": 0, "t over folds": 0, "two-level, t": 0}
    for _ in range(trials):
        of_images = rng.normal(0, shared, (images, 1)) + rng.normal(0, anew, (images, folds))
        gains = rng.normal(0, of_folds, folds) + counts @ (of_images * np.sqrt(images))
        drawn = np.take_along_axis(gains, rng.integers(folds, size=gains.shape), axis=1)
        drawn[0] = gains[0]
        nothing, columns = [np.zeros(1 + samples)] * folds, list(gains.T)
        wrong["images"] += significance.difference(nothing, columns).p < 0.05
        wrong["two-level, percentiles"] += significance.difference(nothing, list(drawn.T)).p < 0.05
        wrong["t over folds"] += significance.paired_t(gains[0]) < 0.05
        result = significance.two_level(nothing, columns)
        wrong["two-level, t"] += result.p < 0.05
        assert (result.p < 0.05) == (not result.low <= 0 <= result.high)
    return {name: count / trials for name, count in wrong.items()}


@pytest.mark.parametrize("folds", [3, 5, 10])
@pytest.mark.parametrize("spread", SPREADS)
def test_the_t_interval_keeps_its_level_in_every_kind_of_spread(spread: str, folds: int) -> None:
    # Of 600 trials at a rate of 0.06, fewer than one in a thousand has more than 0.092. docs/explanation/statistics.md
    # has the rates of 20,000.
    assert false_positives(SPREADS[spread], folds, trials=600)["two-level, t"] < 0.092


def test_what_the_other_tests_leave_out_makes_them_err_with_three_folds() -> None:
    folds_alone, images_alone = (false_positives(SPREADS[name], 3, trials=600) for name in ("folds", "images"))
    assert folds_alone["images"] > 0.9 and images_alone["t over folds"] > 0.5
    assert folds_alone["two-level, percentiles"] > 0.2, "three folds agree in sign by chance in one of four cases"
    assert 0.03 < folds_alone["two-level, t"] < 0.08 and 0.03 < images_alone["two-level, t"] < 0.09


def test_paired_t_as_scipy() -> None:
    rng = np.random.default_rng(2)
    for folds in (2, 3, 5, 10):
        old, new = rng.normal(30, 1, folds), rng.normal(31, 1, folds)
        assert significance.paired_t(new - old) == pytest.approx(stats.ttest_rel(new, old).pvalue)
    assert np.isnan(significance.paired_t([1.0])) and np.isnan(significance.paired_t([]))
    assert significance.paired_t([0.0, 0.0]) == 1


@pytest.mark.parametrize("folds", [6, 7, 10])
def test_sign_flip_as_scipy(folds: int) -> None:
    for seed in range(3):
        values = np.round(np.random.default_rng(seed).normal(0.4, 1, folds), 1)  # with sums that are equal
        expected = stats.permutation_test((values,), np.sum, permutation_type="samples", n_resamples=np.inf)
        assert significance.sign_flip(values) == pytest.approx(expected.pvalue)
        assert significance.sign_flip(-values) == significance.sign_flip(values)


def test_sign_flip_needs_six_folds_to_reach_its_level() -> None:
    assert significance.sign_flip(np.arange(1.0, 7)) == 2 / 2**6
    assert np.isnan(significance.sign_flip(np.arange(1.0, 6))) and np.isnan(significance.sign_flip(np.ones(21)))
    assert significance.sign_flip(np.zeros(6)) == 1
