"""Check that the fast matching returns pycocotools' numbers, and keeps what a bootstrap needs."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import coco_random
import numpy as np
import pytest
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from pais_bench.evaluation.coco.average_precision import evaluate_fast, summarize
from pais_bench.evaluation.coco.ground_truth import GroundTruth
from pais_bench.evaluation.coco.matching import match
from pais_bench.evaluation.coco.pycocotools import NAMES
from pais_bench.evaluation.metrics import coco
from pais_bench.evaluation.metrics.base import Numbers


def approx(numbers: Numbers) -> dict[str, object]:
    return {name: pytest.approx(numbers[name], abs=1e-12) for name in NAMES}


@pytest.mark.parametrize("seed", range(20))
def test_random_data_as_pycocotools(seed: int) -> None:
    ground_truth, records = coco_random.generate(seed, crowded=seed % 4 == 0)
    expected = coco.Metric().evaluate(ground_truth, records)
    for kind in ("segm", "bbox"):
        numbers = summarize(match(ground_truth, records, kind=kind))
        assert tuple(numbers) == NAMES
        assert numbers == approx(expected[kind])


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_the_example_of_cocoapi(kind: str, shared_data: Path) -> None:
    folder = shared_data / "cocoapi_eval"
    ground_truth = json.loads((folder / "instances_val2014_100.json").read_text())
    masks = json.loads((folder / "instances_val2014_fakesegm100_results.json").read_text())
    boxes = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    records = [{**mask, "bbox": box["bbox"]} for mask, box in zip(masks, boxes, strict=True)]
    numbers = summarize(match(ground_truth, records, kind=kind))
    assert numbers == approx(coco.Metric().evaluate(ground_truth, records)[kind])
    assert numbers["AP"] == pytest.approx({"segm": 0.319545, "bbox": 0.504581}[kind], abs=1e-6)


def test_a_subset_of_the_images() -> None:
    ground_truth, records = coco_random.generate(3)
    ids = [image["id"] for image in ground_truth["images"]][:5]
    expected = coco.Metric().evaluate(coco_random.of_images(ground_truth, *ids), records)
    numbers = evaluate_fast(GroundTruth.of(ground_truth, ids), records)
    for kind in ("segm", "bbox"):
        assert numbers[kind] == approx(expected[kind])


def test_no_detections_are_zero_and_no_objects_are_undefined() -> None:
    ground_truth, records = coco_random.generate(1)
    assert summarize(match(ground_truth, []))["AP"] == 0
    assert set(summarize(match({**ground_truth, "annotations": []}, records)).values()) == {None}


@pytest.mark.parametrize("new_id", [lambda old: old - 1, lambda old: 7], ids=["from 0", "repeated"])
def test_the_ids_of_objects_do_not_enter(new_id: Callable[[int], int]) -> None:
    """Check that an object of id 0 is found, although COCOeval on its own takes the id for "no match"."""
    ground_truth, records = coco_random.generate(7)
    expected = coco.Metric().evaluate(ground_truth, records)
    alone = bare_pycocotools(ground_truth, records)
    assert alone == pytest.approx(expected["segm"]["AP"], abs=1e-12)
    for annotation in ground_truth["annotations"]:
        annotation["id"] = new_id(annotation["id"])
    assert bare_pycocotools(ground_truth, records) < alone - 1e-4
    assert coco.Metric().evaluate(ground_truth, records) == expected
    assert summarize(match(ground_truth, records)) == approx(expected["segm"])


def bare_pycocotools(ground_truth: dict[str, Any], records: list[dict[str, Any]]) -> float:
    """Return the mask AP of COCOeval with the ids as they are."""
    gt, results = COCO(), COCO()
    areas = [{**record, "id": number, "iscrowd": 0} for number, record in enumerate(records, 1)]
    areas = [{**record, "area": float(rle.area(record["segmentation"]))} for record in areas]
    for index, objects in ((gt, ground_truth["annotations"]), (results, areas)):
        index.dataset = {**ground_truth, "annotations": [dict(record) for record in objects]}
        index.createIndex()
    evaluation = COCOeval(gt, results, "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])


def test_matches_are_sorted_by_category_image_and_rank() -> None:
    ground_truth, records = coco_random.generate(8, crowded=True)
    matches = match(ground_truth, records)
    key = np.stack([matches.category, matches.image, matches.rank])
    assert (np.diff(np.ravel_multi_index(key, (9, 99, 101))) > 0).all()
    assert matches.matched.shape == matches.ignored.shape == (4, 10, len(matches.score))
    assert matches.counted.shape == (4, len(ground_truth["annotations"]))
    assert matches.rank.max() < 100
    same_group = (np.diff(matches.image) == 0) & (np.diff(matches.category) == 0)
    assert (np.diff(matches.score)[same_group] <= 0).all()
