"""Check that the bootstrap of predictions is computed once, and again when anything that it depends on has changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import coco_random
import numpy as np
import pytest

from pais_bench.annotations.store import Store, Subset, write_store
from pais_bench.errors import BenchError
from pais_bench.evaluation import significance
from pais_bench.evaluation.bootstrap_cache import BootstrapAP
from pais_bench.evaluation.coco.bootstrap import bootstrap_ap
from pais_bench.evaluation.coco.matching import match

Record = dict[str, Any]


def store_of(folder: Path, ground_truth: Record) -> Store:
    images = [{**image, "file_name": f"{image['id']}.png"} for image in ground_truth["images"]]
    subset = Subset("random", folder, images, ground_truth["annotations"], ground_truth["categories"])
    write_store(folder, "random", {"val": subset})
    return Store.open(folder, "val")


def expected(ground_truth: Record, records: list[Record]) -> Any:
    return bootstrap_ap(match(ground_truth, records), significance.bootstrap_counts(len(ground_truth["images"])))


def test_samples_are_cached_until_predictions_or_images_change(tmp_path: Path) -> None:
    ground_truth, records = coco_random.generate(2, images=20)
    predictions, cache = tmp_path / "predictions-student-best.json", tmp_path / "bootstrap-student-best.json"
    predictions.write_text(json.dumps(records))
    ap = BootstrapAP(store_of(tmp_path / "one", ground_truth)).of(predictions)
    assert np.array_equal(ap, expected(ground_truth, records), equal_nan=True) and len(ap) == 1001

    content = json.loads(cache.read_text())
    cache.write_text(json.dumps({**content, "AP": [0.125, *content["AP"][1:]]}))
    again = BootstrapAP(store_of(tmp_path / "one", ground_truth))
    assert again.of(predictions)[0] == 0.125, "read, not computed"

    predictions.write_text(json.dumps(records[::2]))
    assert np.array_equal(again.of(predictions), expected(ground_truth, records[::2]), equal_nan=True)

    other = {**ground_truth, "annotations": ground_truth["annotations"][1:]}
    moved = BootstrapAP(store_of(tmp_path / "two", other)).of(predictions)
    assert np.array_equal(moved, expected(other, records[::2]), equal_nan=True)


@pytest.mark.parametrize("content", ["", "{", "[]", "3", '{"AP": 3}', '{"AP": [0.5]}'])
def test_a_damaged_cache_is_computed_again(content: str, tmp_path: Path) -> None:
    ground_truth, records = coco_random.generate(1)
    store = store_of(tmp_path, ground_truth)
    (tmp_path / "predictions.json").write_text(json.dumps(records))
    ap = BootstrapAP(store).of(tmp_path / "predictions.json")
    (tmp_path / "bootstrap.json").write_text(content)
    assert np.array_equal(BootstrapAP(store).of(tmp_path / "predictions.json"), ap, equal_nan=True)


def test_predictions_of_other_images_are_refused(tmp_path: Path) -> None:
    ground_truth, records = coco_random.generate(1)
    store = store_of(tmp_path, ground_truth)
    (tmp_path / "predictions.json").write_text(json.dumps([{**records[0], "image_id": 1}]))
    with pytest.raises(BenchError, match=r"predictions.json: prediction record 0: the ground truth has no image_id 1"):
        BootstrapAP(store).of(tmp_path / "predictions.json")
    assert not (tmp_path / "bootstrap.json").exists()
