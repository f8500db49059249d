"""Check that a study chooses its metrics, and that each number has the key of its protocol."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coco_random
import pytest
import yaml

from pais_bench import plugins
from pais_bench.errors import BenchError
from pais_bench.evaluation import metrics as shipped
from pais_bench.evaluation.evaluate import evaluate, protocols
from pais_bench.evaluation.metrics import coco
from pais_bench.optional_packages import MissingPackage
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


METRIC = """
from pais_bench.evaluation.metrics.base import MetricBase

class Metric(MetricBase):
    protocols = PROTOCOLS

    def evaluate(self, ground_truth, records):
        return NUMBERS
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder of the shipped metrics, to which a test adds its own."""
    path = tmp_path / "pais_bench" / "evaluation" / "metrics"
    shutil.copytree(Path(shipped.__path__[0]), path)
    monkeypatch.setattr(plugins, "_PACKAGE", tmp_path / "pais_bench")
    monkeypatch.setattr(shipped, "__path__", [*shipped.__path__, str(path)])
    protocols.cache_clear()
    yield path
    protocols.cache_clear()
    for file in path.glob("*.py"):
        if not (Path(shipped.__path__[0]) / file.name).exists():
            sys.modules.pop(f"{shipped.__name__}.{file.stem}", None)


def add(folder: Path, name: str, own: dict[str, str], numbers: object = None, head: str = "") -> None:
    (folder / f"{name}.py").write_text(head + METRIC.replace("PROTOCOLS", str(own)).replace("NUMBERS", repr(numbers)))


@pytest.mark.parametrize(
    ("own", "fault"),
    [
        ({"boundary": "Mine"}, r"metrics/mine.py: its protocol 'boundary' \(Mine\) is not told from 'boundary'"),
        ({"boundary_5": "Mine"}, r"'boundary_5' \(Mine\) is not told from 'boundary' \(.*\) of metrics/boundary.py"),
        ({"mine": "COCO boundary AP"}, r"'mine' \(.*\) is not told from 'boundary' .*; give it another key and name"),
        ({}, "metrics/mine.py: Metric has no protocols; set the printed name of each by its key"),
    ],
)
def test_two_protocols_that_a_table_does_not_tell_apart_are_refused(
    own: dict[str, str], fault: str, folder: Path
) -> None:
    add(folder, "mine", own)
    with pytest.raises(BenchError, match=fault):
        protocols()


def test_a_metric_whose_package_is_missing_fails_only_where_it_is_needed(folder: Path) -> None:
    shipped_alone = protocols()
    add(folder, "mine", {"mine": "Mine"}, head="import no_such_package")
    protocols.cache_clear()
    assert protocols() == protocols(("coco", "boundary")) == shipped_alone
    for attempt in (lambda: protocols(("coco", "mine")), lambda: evaluate(["mine"], *coco_random.generate(0))):
        with pytest.raises(MissingPackage, match="metrics/mine: the package 'no_such_package' is not installed"):
            attempt()


@pytest.mark.parametrize(
    ("numbers", "fault"),
    [
        (0.5, "float; give a mapping of numbers by the key of each protocol"),
        ({"mine": 0.5}, "float for 'mine'; give a mapping of numbers by their names"),
        ({"mine": {"AP": 41.2}}, "41.2 as AP of 'mine'; give a number 0..1, None where undefined"),
        ({"mine": {"AP": "x"}}, "'x' as AP of 'mine'; give a number 0..1"),
        ({"mien": {"AP": 0.5}}, "'mien', which protocols does not name; known: mine"),
        ({"per_class": {"a": 0.5}}, "'per_class', which protocols does not name; known: mine"),
    ],
)
def test_numbers_that_no_table_would_show_are_refused(numbers: object, fault: str, folder: Path) -> None:
    add(folder, "mine", {"mine": "Mine"}, numbers)
    with pytest.raises(BenchError) as refused:
        evaluate(["coco", "mine"], *coco_random.generate(0))
    assert f"metrics/mine.py: evaluate returned {fault}" in str(refused.value)


def test_a_metric_of_ones_own_has_its_numbers_beside_those_of_coco(folder: Path) -> None:
    own = {"mine": {"AP": 0.5, "AR": None}, "mine_per_class": {"a": 1}}
    add(folder, "mine", {"mine": "Mine"}, own)
    numbers = evaluate(["coco", "mine"], *coco_random.generate(0))
    assert {key: numbers[key] for key in own} == own and "segm" in numbers
