"""Do the statistics agree with textbooks, and the fast bootstrap with one that evaluates every draw?"""

from __future__ import annotations

import copy
from typing import Any

import coco_random
import numpy as np
import pytest
from scipy import stats

from pais_bench import statistics
from pais_bench.metrics.coco import Matches, bootstrap_ap, evaluate, match


def test_interval_over_folds_as_scipy() -> None:
    values = [21.0, 21.6, 20.7, 22.1, 21.3]
    found = statistics.over_folds(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert (found.mean, found.sd) == pytest.approx((np.mean(values), np.std(values, ddof=1)))


def test_one_fold_has_no_interval() -> None:
    found = statistics.over_folds([3.0])
    assert found.mean == 3 and np.isnan([found.sd, found.low, found.high]).all()
    assert np.isnan(statistics.over_folds([]).mean)


def test_holm_by_hand() -> None:
    # Ordered .005 .01 .03 .04 times 4 3 2 1: .02 .03 .06 .04, and none below the one before.
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.holm([0.6, np.nan, 0.7]) == pytest.approx([1, np.nan, 1], nan_ok=True)
    assert len(statistics.holm([])) == 0


@pytest.mark.parametrize(("folds", "effect"), [(5, 1.682), (10, 0.996), (20, 0.660)])
def test_minimum_detectable_as_in_tables_of_power(folds: int, effect: float) -> None:
    # The effect sizes of G*Power for a paired two-sided t test, alpha .05, power .8.
    assert statistics.minimum_detectable(1.0, folds) == pytest.approx(effect, abs=2e-3)
    assert statistics.minimum_detectable(0.3, folds) == pytest.approx(0.3 * effect, abs=2e-3)


def test_minimum_detectable_by_simulation() -> None:
    effect, rng = statistics.minimum_detectable(2.0, 5), np.random.default_rng(0)
    p = stats.ttest_1samp(rng.normal(effect, 2.0, size=(20_000, 5)), 0, axis=1).pvalue
    assert (p < 0.05).mean() == pytest.approx(0.8, abs=0.015)
    assert np.isnan(statistics.minimum_detectable(1.0, 1))
    assert np.isnan(statistics.minimum_detectable(np.nan, 5))


def repeated(truth: dict[str, Any], records: list[dict[str, Any]], ids: Any, counts: Any) -> Any:
    """Build the data set of a draw: copy c of the image at place i has the id 1000 i + c."""
    place = {image: position for position, image in enumerate(ids.tolist())}
    drawn: dict[str, Any] = {"categories": truth["categories"], "images": [], "annotations": []}
    found = []
    for image in truth["images"]:
        position = place[image["id"]]
        for number in range(counts[position]):
            new = 1000 * position + number
            drawn["images"].append({**image, "id": new})
            for note in truth["annotations"]:
                if note["image_id"] == image["id"]:
                    again = {**copy.deepcopy(note), "id": len(drawn["annotations"]) + 1, "image_id": new}
                    drawn["annotations"].append(again)
            found.extend({**record, "image_id": new} for record in records if record["image_id"] == image["id"])
    return drawn, found


@pytest.mark.parametrize("seed", range(8))
def test_bootstrap_as_evaluations_of_the_drawn_data_sets(seed: int) -> None:
    truth, records = coco_random.draw(seed, crowded=seed == 4)
    matches = match(truth, records)
    counts = statistics.multiplicities(len(matches.images), 5, seed)
    assert (counts.sum(axis=1) == len(matches.images)).all()
    got = bootstrap_ap(matches, counts)
    for row, ap in zip(counts, got, strict=True):
        expected = evaluate(*repeated(truth, records, matches.images, row))["segm"]["AP"]
        assert ap == pytest.approx(np.nan if expected is None else expected, abs=1e-9, nan_ok=True)


def test_bootstrap_of_nothing() -> None:
    truth, records = coco_random.draw(1)
    ones = np.ones((2, len(truth["images"])), dtype=np.int64)
    assert list(bootstrap_ap(match(truth, []), ones)) == [0, 0]
    assert np.isnan(bootstrap_ap(match({**truth, "annotations": []}, records), ones)).all()


def compare(first: list[Matches], second: list[Matches]) -> statistics.Difference:
    counts = statistics.draw(len(first[0].images), draws=200)
    return statistics.difference(*([bootstrap_ap(one, counts) for one in side] for side in (first, second)))


def test_a_difference_that_is_there_and_one_that_is_not() -> None:
    truth, records = coco_random.draw(2, images=60)
    full = match(truth, records)
    half = match(truth, [record for number, record in enumerate(records) if number % 2])
    same = compare([full], [full])
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    worse = compare([full], [half])
    assert worse.low < worse.value < worse.high < 0
    assert worse.p == pytest.approx(2 / 201)
    better = compare([half, half], [full, full])
    assert (better.value, better.low, better.high) == pytest.approx((-worse.value, -worse.high, -worse.low))
