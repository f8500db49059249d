"""Is the bootstrap of predictions computed once, and again when anything that it rests on has changed?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import coco_random
import numpy as np
import pytest

from pais_bench import statistics
from pais_bench.draws import Draws
from pais_bench.metrics.coco import bootstrap_ap, match
from pais_bench.store import Part, Store, write_store
from pais_bench.types import BenchError

Record = dict[str, Any]


def store_of(folder: Path, truth: Record) -> Store:
    images = [{**image, "file_name": f"{image['id']}.png"} for image in truth["images"]]
    write_store(folder, "drawn", {"val": Part("drawn", folder, images, truth["annotations"], truth["categories"])})
    return Store.open(folder, "val")


def expected(truth: Record, records: list[Record]) -> Any:
    return bootstrap_ap(match(truth, records), statistics.draw(len(truth["images"])))


def test_draws_are_kept_and_follow_what_they_rest_on(tmp_path: Path) -> None:
    truth, records = coco_random.draw(2, images=20)
    predictions, kept = tmp_path / "predictions-student-best.json", tmp_path / "bootstrap-student-best.json"
    predictions.write_text(json.dumps(records))
    found = Draws(store_of(tmp_path / "one", truth)).of(predictions)
    assert np.array_equal(found, expected(truth, records), equal_nan=True) and len(found) == 1001

    content = json.loads(kept.read_text())
    kept.write_text(json.dumps({**content, "AP": [0.125, *content["AP"][1:]]}))
    again = Draws(store_of(tmp_path / "one", truth))
    assert again.of(predictions)[0] == 0.125, "read, not computed"

    predictions.write_text(json.dumps(records[::2]))
    assert np.array_equal(again.of(predictions), expected(truth, records[::2]), equal_nan=True)

    other = {**truth, "annotations": truth["annotations"][1:]}
    moved = Draws(store_of(tmp_path / "two", other)).of(predictions)
    assert np.array_equal(moved, expected(other, records[::2]), equal_nan=True)


@pytest.mark.parametrize("torn", ["", "{", "[]", "3", '{"AP": 3}', '{"AP": [0.5]}'])
def test_a_torn_file_is_made_again(torn: str, tmp_path: Path) -> None:
    truth, records = coco_random.draw(1)
    store = store_of(tmp_path, truth)
    (tmp_path / "predictions.json").write_text(json.dumps(records))
    whole = Draws(store).of(tmp_path / "predictions.json")
    (tmp_path / "bootstrap.json").write_text(torn)
    assert np.array_equal(Draws(store).of(tmp_path / "predictions.json"), whole, equal_nan=True)


def test_predictions_of_other_images_are_refused(tmp_path: Path) -> None:
    truth, records = coco_random.draw(1)
    store = store_of(tmp_path, truth)
    (tmp_path / "predictions.json").write_text(json.dumps([{**records[0], "image_id": 1}]))
    with pytest.raises(BenchError, match=r"predictions.json: prediction record 0: the truth has no image_id 1"):
        Draws(store).of(tmp_path / "predictions.json")
    assert not (tmp_path / "bootstrap.json").exists()
