"""Does a study choose its metrics, and does each stand under the name of its protocol?"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import coco_random
import pytest
import yaml

from pais_bench.evaluation import measure, protocols
from pais_bench.metrics.coco import evaluate
from pais_bench.study_file import load_study
from pais_bench.types import BenchError

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
    truth, records = coco_random.draw(0)
    assert measure(default.metrics, truth, records) == evaluate(truth, records)
    found = measure(both.metrics, truth, records)
    assert set(found) == {"segm", "bbox", "boundary", "per_class"}
    assert set(found) - {"per_class"} <= set(protocols())
    assert list(protocols())[:2] == ["segm", "bbox"]


@pytest.mark.parametrize(
    ("metrics", "fault"),
    [
        (["coco", "coc"], "tiny.yaml: metrics: metrics: there is no 'coc'; choose one of boundary, cityscapes, coco"),
        (["boundary"], "tiny.yaml: 'metrics': the tables need COCO AP; add coco"),
    ],
)
def test_a_wrong_list_is_told(metrics: list[str], fault: str, tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=fault):
        load_study(write(tmp_path, metrics=metrics))


def test_a_metric_of_something_else_is_named() -> None:
    with pytest.raises(BenchError, match="metrics: 'pseudo_labels' measures no predictions"):
        measure(["coco", "pseudo_labels"], *coco_random.draw(0))
