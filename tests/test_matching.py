"""Does the fast matching say what pycocotools says, and keep what a bootstrap needs?"""

from __future__ import annotations

import json
from pathlib import Path

import coco_random
import numpy as np
import pytest

from pais_bench.metrics.coco import NAMES, Truth, evaluate, evaluate_fast, match, numbers


@pytest.mark.parametrize("seed", range(20))
def test_random_data_as_pycocotools(seed: int) -> None:
    truth, records = coco_random.draw(seed, crowded=seed % 4 == 0)
    expected = evaluate(truth, records)
    for kind in ("segm", "bbox"):
        got = numbers(match(truth, records, kind=kind))
        assert tuple(got) == NAMES
        assert got == {name: pytest.approx(expected[kind][name], abs=1e-12) for name in NAMES}


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_the_example_of_cocoapi(kind: str, shared_data: Path) -> None:
    folder = shared_data / "cocoapi_eval"
    truth = json.loads((folder / "instances_val2014_100.json").read_text())
    masks = json.loads((folder / "instances_val2014_fakesegm100_results.json").read_text())
    boxes = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    records = [{**mask, "bbox": box["bbox"]} for mask, box in zip(masks, boxes, strict=True)]
    got, expected = numbers(match(truth, records, kind=kind)), evaluate(truth, records)[kind]
    assert got == {name: pytest.approx(expected[name], abs=1e-12) for name in NAMES}
    assert got["AP"] == pytest.approx({"segm": 0.319545, "bbox": 0.504581}[kind], abs=1e-6)


def test_some_images_only() -> None:
    truth, records = coco_random.draw(3)
    some = [image["id"] for image in truth["images"]][:5]
    expected, got = evaluate(truth, records, some), evaluate_fast(Truth.of(truth, some), records)
    for kind in ("segm", "bbox"):
        assert got[kind] == {name: pytest.approx(expected[kind][name], abs=1e-12) for name in NAMES}


def test_nothing_found_and_nothing_there() -> None:
    truth, records = coco_random.draw(1)
    assert numbers(match(truth, []))["AP"] == 0
    assert set(numbers(match({**truth, "annotations": []}, records)).values()) == {None}


def test_an_object_of_id_0_is_found_by_nobody_as_in_pycocotools() -> None:
    truth, records = coco_random.draw(5)
    for note in truth["annotations"]:
        note["id"] -= 1
    expected = evaluate(truth, records)["segm"]
    assert numbers(match(truth, records)) == {name: pytest.approx(expected[name], abs=1e-12) for name in NAMES}


def test_matches_are_arrays_in_the_order_that_is_told() -> None:
    truth, records = coco_random.draw(8, crowded=True)
    found = match(truth, records)
    key = np.stack([found.category, found.image, found.rank])
    assert (np.diff(np.ravel_multi_index(key, (9, 99, 101))) > 0).all()
    assert found.matched.shape == found.ignored.shape == (4, 10, len(found.score))
    assert found.counted.shape == (4, len(truth["annotations"]))
    assert found.rank.max() < 100
    same = (np.diff(found.image) == 0) & (np.diff(found.category) == 0)
    assert (np.diff(found.score)[same] <= 0).all()
