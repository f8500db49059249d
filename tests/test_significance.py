"""Check the statistics against textbooks, and the fast bootstrap against an evaluation of every sample."""

from __future__ import annotations

import copy
from typing import Any

import coco_random
import numpy as np
import pytest
from scipy import stats

from pais_bench.evaluation import significance
from pais_bench.evaluation.coco import bootstrap
from pais_bench.evaluation.coco.bootstrap import bootstrap_ap
from pais_bench.evaluation.coco.matching import Matches, match
from pais_bench.evaluation.metrics import coco


def test_interval_over_folds_as_scipy() -> None:
    values = [21.0, 21.6, 20.7, 22.1, 21.3]
    interval = significance.over_folds(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (interval.low, interval.high) == pytest.approx((expected.low, expected.high))
    assert (interval.mean, interval.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))


def test_one_fold_has_no_interval() -> None:
    interval = significance.over_folds([3.0])
    assert interval.mean == 3 and np.isnan([interval.sd, interval.low, interval.high]).all()
    assert np.isnan(significance.over_folds([]).mean)


def test_holm_by_hand() -> None:
    # Ordered .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04, and none below the one before.
    assert significance.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert significance.holm([0.6, np.nan, 0.7]) == pytest.approx([1, np.nan, 1], nan_ok=True)
    assert len(significance.holm([])) == 0
    # One of three planned tests is still to come: .01 .04 times 3 2.
    assert significance.holm([0.01, np.nan, 0.04], 3) == pytest.approx([0.03, np.nan, 0.08], nan_ok=True)


@pytest.mark.parametrize(("folds", "effect"), [(5, 1.682), (10, 0.996), (20, 0.660)])
def test_minimum_detectable_as_in_tables_of_power(folds: int, effect: float) -> None:
    # The effect sizes of G*Power for a paired two-sided t test, alpha .05, power .8.
    assert significance.minimum_detectable(1.0, folds) == pytest.approx(effect, abs=2e-3)
    assert significance.minimum_detectable(0.3, folds) == pytest.approx(0.3 * effect, abs=2e-3)


def test_minimum_detectable_by_simulation() -> None:
    effect, rng = significance.minimum_detectable(2.0, 5), np.random.default_rng(0)
    p = stats.ttest_1samp(rng.normal(effect, 2.0, size=(20_000, 5)), 0, axis=1).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.015)
    assert np.isnan(significance.minimum_detectable(1.0, 1))
    assert np.isnan(significance.minimum_detectable(np.nan, 5))


def repeated(ground_truth: dict[str, Any], records: list[dict[str, Any]], ids: Any, counts: Any) -> Any:
    """Build the dataset of a sample: copy c of the image at index i has the id 1000 i + c."""
    index = {image: position for position, image in enumerate(ids.tolist())}
    sample: dict[str, Any] = {"categories": ground_truth["categories"], "images": [], "annotations": []}
    copied_records = []
    for image in ground_truth["images"]:
        for number in range(counts[index[image["id"]]]):
            copy_id = 1000 * index[image["id"]] + number
            sample["images"].append({**image, "id": copy_id})
            for annotation in ground_truth["annotations"]:
                if annotation["image_id"] == image["id"]:
                    ids_of_copy = {"id": len(sample["annotations"]) + 1, "image_id": copy_id}
                    sample["annotations"].append({**copy.deepcopy(annotation), **ids_of_copy})
            copied_records += [
                {**record, "image_id": copy_id} for record in records if record["image_id"] == image["id"]
            ]
    return sample, copied_records


@pytest.mark.parametrize("seed", range(8))
def test_bootstrap_as_evaluations_of_the_samples(seed: int) -> None:
    ground_truth, records = coco_random.generate(seed, crowded=seed == 4)
    matches = match(ground_truth, records)
    counts = significance.bootstrap_counts(len(matches.images), 5, seed)
    assert (counts.sum(axis=1) == len(matches.images)).all()
    for row, ap in zip(counts, bootstrap_ap(matches, counts), strict=True):
        expected = coco.Metric().evaluate(*repeated(ground_truth, records, matches.images, row))["segm"]["AP"]
        assert ap == pytest.approx(np.nan if expected is None else expected, abs=1e-9, nan_ok=True)


def test_a_bootstrap_is_the_same_in_passes_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    ground_truth, records = coco_random.generate(3)
    matches = match(ground_truth, records)
    counts = significance.bootstrap_counts(len(matches.images), 100)
    at_once = bootstrap_ap(matches, counts)
    monkeypatch.setattr(bootstrap, "CELLS", 1)
    assert np.array_equal(at_once, bootstrap_ap(matches, counts)), "101 samples are four passes of a class"


def test_bootstrap_of_nothing() -> None:
    ground_truth, records = coco_random.generate(1)
    ones = np.ones((2, len(ground_truth["images"])), dtype=np.int64)
    assert list(bootstrap_ap(match(ground_truth, []), ones)) == [0, 0]
    assert np.isnan(bootstrap_ap(match({**ground_truth, "annotations": []}, records), ones)).all()


def compare(first: list[Matches], second: list[Matches]) -> significance.Difference:
    counts = significance.bootstrap_counts(len(first[0].images), samples=200)
    return significance.difference(*([bootstrap_ap(matches, counts) for matches in side] for side in (first, second)))


def test_a_difference_is_significant_and_none_is_not() -> None:
    ground_truth, records = coco_random.generate(2, images=60)
    full = match(ground_truth, records)
    half = match(ground_truth, [record for number, record in enumerate(records) if number % 2])
    same = compare([full], [full])
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    worse = compare([full], [half])
    assert worse.low < worse.value < worse.high < 0
    assert worse.p == pytest.approx(2 / 201)
    better = compare([half, half], [full, full])
    assert (better.value, better.low, better.high) == pytest.approx((-worse.value, -worse.high, -worse.low))
