"""Check that metrics/coco.py returns pycocotools' numbers, and refuses what pycocotools would crash on."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_random import of_images
from pycocotools import mask as rle

from pais_bench.errors import BenchError
from pais_bench.evaluation.coco.check import checked_records
from pais_bench.evaluation.coco.pycocotools import NAMES
from pais_bench.evaluation.metrics import coco

# pycocotools 2.0.11 on the example of its authors (val2014_fake_eval_res.txt prints three of these digits)
SEGM = [0.319545, 0.562288, 0.298927, 0.387374, 0.310183, 0.326934]
SEGM += [0.268230, 0.415449, 0.416839, 0.469450, 0.376759, 0.381472]
BBOX = [0.504581, 0.696973, 0.572982, 0.585626, 0.519400, 0.501398]
BBOX += [0.386813, 0.593680, 0.595353, 0.639811, 0.566421, 0.564291]


def encode(x: int, y: int, width: int, height: int, size: tuple[int, int] = (50, 40)) -> dict[str, Any]:
    mask = np.zeros(size, dtype=np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    return {"size": list(size), "counts": rle.encode(mask)["counts"].decode()}


def annotation(number: int, image: int, category: int, box: tuple[int, int, int, int]) -> dict[str, Any]:
    common = {"id": number, "image_id": image, "category_id": category, "iscrowd": 0}
    return {**common, "bbox": list(box), "area": box[2] * box[3], "segmentation": encode(*box)}


@pytest.fixture
def ground_truth() -> dict[str, Any]:
    return {
        "images": [{"id": 7, "height": 50, "width": 40}, {"id": 9, "height": 50, "width": 40}],
        "categories": [{"id": 3, "name": "disc"}, {"id": 5, "name": "bar"}, {"id": 8, "name": "never"}],
        "annotations": [annotation(1, 7, 3, (2, 2, 10, 10)), annotation(2, 9, 5, (5, 5, 20, 8))],
    }


def record(image: int, category: int, box: tuple[int, int, int, int], **changes: Any) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "segmentation": encode(*box), "score": 0.9, **changes}


def test_the_example_of_cocoapi(shared_data: Path) -> None:
    folder = shared_data / "cocoapi_eval"
    masks = json.loads((folder / "instances_val2014_fakesegm100_results.json").read_text())
    boxes = json.loads((folder / "instances_val2014_fakebbox100_results.json").read_text())
    records = [{**mask, "bbox": box["bbox"]} for mask, box in zip(masks, boxes, strict=True)]
    result = coco.Metric().evaluate(json.loads((folder / "instances_val2014_100.json").read_text()), records)
    assert [result["segm"][name] for name in NAMES] == pytest.approx(SEGM, abs=1e-6)
    assert [result["bbox"][name] for name in NAMES] == pytest.approx(BBOX, abs=1e-6)
    per_class = [value for value in result["per_class"].values() if value is not None]
    assert np.mean(per_class) == pytest.approx(SEGM[0], abs=1e-6)
    assert len(result["per_class"]) == 80


def test_perfect_predictions(ground_truth: dict[str, Any]) -> None:
    result = coco.Metric().evaluate(ground_truth, [record(7, 3, (2, 2, 10, 10)), record(9, 5, (5, 5, 20, 8))])
    assert result["segm"]["AP"] == result["bbox"]["AP"] == pytest.approx(1)
    assert result["per_class"] == {"disc": pytest.approx(1), "bar": pytest.approx(1), "never": None}


def test_no_predictions_are_zero_and_json(ground_truth: dict[str, Any]) -> None:
    result = coco.Metric().evaluate(ground_truth, [])
    assert result["segm"]["AP"] == result["bbox"]["AR100"] == 0
    assert result["segm"]["APl"] is None
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_missed_object_halves_the_ap_and_records_of_other_images_do_not_count(ground_truth: dict[str, Any]) -> None:
    records = [record(7, 3, (2, 2, 10, 10)), record(9, 5, (30, 40, 5, 5))]
    assert coco.Metric().evaluate(ground_truth, records)["segm"]["AP"] == pytest.approx(0.5)
    assert coco.Metric().evaluate(of_images(ground_truth, 7), records)["segm"]["AP"] == pytest.approx(1)
    assert coco.Metric().evaluate(of_images(ground_truth, 9), records)["segm"]["AP"] == 0


def test_the_area_of_a_prediction_is_that_of_its_mask(ground_truth: dict[str, Any]) -> None:
    # A false positive with a small mask in a large box: it must not count as a medium false positive.
    ground_truth["annotations"] = [annotation(1, 7, 3, (0, 0, 40, 40))]
    wrong = record(7, 3, (0, 45, 5, 5), bbox=[0, 0, 40, 50], score=0.99)
    result = coco.Metric().evaluate(ground_truth, [record(7, 3, (0, 0, 40, 40)), wrong])
    assert result["segm"]["APm"] == pytest.approx(1)
    assert result["segm"]["AP"] == pytest.approx(0.5)


def test_arguments_are_not_changed_and_nothing_is_printed(
    ground_truth: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    records = [record(7, 3, (2, 2, 10, 10))]
    before = copy.deepcopy((ground_truth, records))
    coco.Metric().evaluate(ground_truth, records)
    assert (ground_truth, records) == before
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"image_id": 8}, "record 0: the ground truth has no image_id 8"),
        ({"category_id": 4}, r"no category_id 4 \(image_id 7\)"),
        ({"segmentation": encode(1, 1, 2, 2, (40, 50))}, r"its mask is \[40, 50\].*image_id 7 is \[50, 40\]"),
        ({"score": float("nan")}, "its score is nan"),
    ],
)
def test_a_wrong_record_is_named(ground_truth: dict[str, Any], changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(BenchError, match=fault):
        checked_records(ground_truth, [record(7, 3, (2, 2, 10, 10), **changes)])


def test_a_missing_key_is_named(ground_truth: dict[str, Any]) -> None:
    incomplete = record(7, 3, (2, 2, 10, 10))
    del incomplete["score"]
    with pytest.raises(BenchError, match="missing key 'score'"):
        checked_records(ground_truth, [incomplete])
