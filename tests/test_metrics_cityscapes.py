"""Check that metrics/cityscapes.py writes what cityscapesscripts reads, and returns its numbers."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from coco_random import of_images
from PIL import Image
from pycocotools import mask as rle

from pais_bench.errors import BenchError
from pais_bench.evaluation.metrics import cityscapes

pytest.importorskip("cityscapesscripts", reason="no cityscapesscripts here")

HEIGHT, WIDTH = 60, 120


def encode(x: int, y: int, w: int, h: int) -> dict[str, Any]:
    mask = np.zeros((HEIGHT, WIDTH), dtype=np.uint8, order="F")
    mask[y : y + h, x : x + w] = 1
    code = rle.encode(mask)
    return {"size": [HEIGHT, WIDTH], "counts": code["counts"].decode()}


def annotation(image: int, category: int, *box: int, crowd: int = 0) -> dict[str, Any]:
    mask = encode(*box)
    common = {"id": hash((image, box)) % 10**9 + 1, "image_id": image, "category_id": category, "iscrowd": crowd}
    return {**common, "segmentation": mask, "bbox": list(box), "area": box[2] * box[3]}


def record(image: int, category: int, score: float, *box: int) -> dict[str, Any]:
    return {"image_id": image, "category_id": category, "score": score, "segmentation": encode(*box)}


@pytest.fixture
def ground_truth() -> dict[str, Any]:
    names = {24: "person", 26: "car"}
    images = [{"id": n, "height": HEIGHT, "width": WIDTH, "file_name": f"x/x_{n}_leftImg8bit.png"} for n in (5, 8)]
    return {
        "images": images,
        "categories": [{"id": number, "name": name} for number, name in names.items()],
        "annotations": [
            annotation(5, 26, 0, 0, 40, 30),
            annotation(5, 26, 60, 0, 40, 30),
            annotation(8, 24, 10, 10, 20, 40),
            annotation(8, 24, 60, 10, 30, 30, crowd=1),
        ],
    }


def test_perfect_predictions(ground_truth: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    records = [record(5, 26, 0.9, 0, 0, 40, 30), record(5, 26, 0.8, 60, 0, 40, 30), record(8, 24, 0.7, 10, 10, 20, 40)]
    result = cityscapes.Metric().evaluate(ground_truth, records)
    assert result["cityscapes"] == {"AP": pytest.approx(1), "AP50": pytest.approx(1)}
    assert result["cityscapes_per_class"]["car"] == pytest.approx(1)
    assert result["cityscapes_per_class"]["train"] is None
    assert list(tmp_path.iterdir()) == []


def test_a_second_call_does_not_reuse_the_ground_truth_of_the_first(ground_truth: dict[str, Any]) -> None:
    records = [record(8, 24, 0.7, 10, 10, 20, 40)]
    assert cityscapes.Metric().evaluate(of_images(ground_truth, 8), records)["cityscapes"]["AP"] == pytest.approx(1)
    ground_truth["annotations"] = [annotation(8, 24, 80, 10, 20, 40)]
    assert cityscapes.Metric().evaluate(of_images(ground_truth, 8), records)["cityscapes"]["AP"] == 0


def test_a_false_negative_a_false_positive_and_a_detection_on_a_group(ground_truth: dict[str, Any]) -> None:
    car = [record(5, 26, 0.9, 0, 0, 40, 30)]
    per_class = cityscapes.Metric().evaluate(of_images(ground_truth, 5), car)["cityscapes_per_class"]
    assert per_class["car"] == pytest.approx(0.5)
    person = [record(8, 24, 0.5, 10, 10, 20, 40)]
    false_positive = record(8, 24, 0.9, 95, 0, 20, 20)
    on_group = record(8, 24, 0.9, 60, 10, 28, 28)
    second = of_images(ground_truth, 8)
    assert cityscapes.Metric().evaluate(second, [*person, false_positive])["cityscapes"]["AP"] < 0.9
    assert cityscapes.Metric().evaluate(second, [*person, on_group])["cityscapes"]["AP"] == pytest.approx(1)


def test_the_official_ground_truth_has_void(ground_truth: dict[str, Any], tmp_path: Path) -> None:
    ids = cityscapes._instance_ids([row for row in ground_truth["annotations"] if row["image_id"] == 8], HEIGHT, WIDTH)
    ids[:20, 95:115] = 0
    folder = tmp_path / "gtFine" / "val" / "x"
    folder.mkdir(parents=True)
    Image.fromarray(ids).save(folder / "x_8_gtFine_instanceIds.png")
    metric = cityscapes.Metric(tmp_path)
    records = [record(8, 24, 0.5, 10, 10, 20, 40), record(8, 24, 0.9, 95, 0, 20, 20)]
    assert metric.evaluate(of_images(ground_truth, 8), records)["cityscapes"]["AP"] == pytest.approx(1)
    with pytest.raises(BenchError, match="x_5_gtFine_instanceIds.png: no such ground-truth image"):
        metric.evaluate(of_images(ground_truth, 5), records)


def test_other_classes_and_a_missing_package_are_named(
    ground_truth: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    other = {**ground_truth, "categories": [{"id": 24, "name": "disc"}]}
    with pytest.raises(BenchError, match="category 24 'disc' is not a Cityscapes class"):
        cityscapes.Metric().evaluate(other, [])
    for module in ("cityscapesscripts", "cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BenchError, match="'cityscapesscripts' is not installed in .*; install cityscapesscripts"):
        cityscapes.Metric().evaluate(ground_truth, [])
