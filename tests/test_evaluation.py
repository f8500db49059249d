"""Check that a study chooses its metrics, and that each number has the key of its protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import coco_random
import pytest
import yaml

from pais_bench.errors import BenchError
from pais_bench.evaluation.evaluate import evaluate, protocols
from pais_bench.evaluation.metrics import coco
from pais_bench.study.load import load_study

STUDY: dict[str, Any] = {
    "name": "tiny",
    "dataset": {"name": "shapes"},
    "split": {"percents": [10]},
    "networks": {"mask_rcnn": {"backend": "torchvision"}},
    "methods": {"supervised": {}},
}


def write(folder: Path, **more: Any) -> Path:
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump({**STUDY, **more}))
    return path


def test_the_default_is_coco_alone_and_changes_no_run(tmp_path: Path) -> None:
    default = load_study(write(tmp_path))
    both = load_study(write(tmp_path, metrics=["coco", "boundary"]))
    assert default.metrics == ("coco",)
    assert [run.digest for run in default.runs()] == [run.digest for run in both.runs()]
    ground_truth, records = coco_random.generate(0)
    assert evaluate(default.metrics, ground_truth, records) == coco.Metric().evaluate(ground_truth, records)
    numbers = evaluate(both.metrics, ground_truth, records)
    assert set(numbers) == {"segm", "bbox", "boundary", "per_class"}
    assert set(numbers) - {"per_class"} <= set(protocols())
    assert list(protocols())[:2] == ["segm", "bbox"]


@pytest.mark.parametrize(
    ("metrics", "fault"),
    [
        (["coco", "coc"], "tiny.yaml: metrics: metrics: there is no 'coc'; choose one of boundary, cityscapes, coco"),
        (["boundary"], "tiny.yaml: 'metrics': the tables need COCO AP; add coco"),
    ],
)
def test_a_wrong_list_is_refused(metrics: list[str], fault: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=fault):
        load_study(write(tmp_path, metrics=metrics))
