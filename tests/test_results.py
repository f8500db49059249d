"""Does results.py tell what was measured, from what stands inside the files?"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from pais_bench.config import DatasetChoice, Run, SplitGrid, Study, StudyMethod, StudyNetwork, Training
from pais_bench.results import CURVE_COLUMNS, KEYS, RUN_COLUMNS, Results
from pais_bench.types import BenchError


@pytest.fixture
def study() -> Study:
    return Study(
        name="small",
        dataset=DatasetChoice(name="shapes", label="shapes"),
        split=SplitGrid(percents=(1, 10), folds=(1,)),
        training=Training(steps=20),
        networks={"small": StudyNetwork(backend="torchvision", name="mask_rcnn")},
        methods={"base": StudyMethod(name="supervised"), "pais": StudyMethod()},
    )


def put(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def put_run(root: Path, run: Run, steps: int = 20) -> None:
    content = {"run": run.model_dump(mode="json"), "digest": run.digest, "commit": "c0ffee", "wall_seconds": 12.5}
    put(root / run.folder / "run.json", {**content, "steps": steps})


def put_metrics(root: Path, run: Run, **segm: float | None) -> None:
    numbers = {"digest": run.digest, "model": "teacher", "images": 240, "segm": segm, "bbox": {"AP": 0.25, "APs": None}}
    put(root / run.folder / "metrics.json", numbers)


def put_log(root: Path, run: Run, text: str = "") -> None:
    step = {"event": "step", "step": 10, "seconds": 1.0, "lr": 0.1, "loss": {"labelled/class": 1.0}}
    evaluation = {
        "event": "evaluation",
        "step": 10,
        "seconds": 1.5,
        "images_seen": 120,
        "student": {"segm_AP": 0.1, "segm_AP50": 0.2, "bbox_AP": 0.15, "images": 240},
        "teacher": {"segm_AP": 0.3, "segm_AP50": None, "bbox_AP": 0.25, "images": 240},
    }
    path = root / run.folder / "log.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(step) + "\n" + json.dumps(evaluation) + "\n" + text)


def test_an_empty_folder_is_all_missing(study: Study, tmp_path: Path) -> None:
    results = Results.of(study, tmp_path)
    assert list(results.runs["state"]) == ["missing"] * 4
    assert list(results.runs.columns) == list(RUN_COLUMNS)
    assert list(results.curves.columns) == list(CURVE_COLUMNS)
    assert results.curves.empty


def test_states(study: Study, tmp_path: Path) -> None:
    done, trained, started, begun = study.runs()
    put_run(tmp_path, done)
    put_metrics(tmp_path, done, AP=0.1, AP50=0.2, APs=None)
    put_run(tmp_path, trained)
    put_log(tmp_path, started)
    put_run(tmp_path, begun, steps=5)
    assert list(Results.of(study, tmp_path).runs["state"]) == ["done", "trained", "started", "started"]


def test_a_row_of_runs(study: Study, tmp_path: Path) -> None:
    run = study.runs()[0]
    put_run(tmp_path, run)
    put_metrics(tmp_path, run, AP=0.1, AP50=0.2, APs=None)
    row = Results.of(study, tmp_path).runs.iloc[0]
    keys = ("shapes", "soft_teacher", 1.0, 1, "torchvision", "small", "base", run.digest)
    assert tuple(row[list(KEYS)]) == keys
    assert (row["model"], row["images"], row["wall_seconds"], row["commit"]) == ("teacher", 240, 12.5, "c0ffee")
    assert (row["segm_AP"], row["segm_AP50"], row["bbox_AP"]) == (0.1, 0.2, 0.25)
    assert math.isnan(row["segm_APs"]) and math.isnan(row["bbox_APs"])


def test_rows_of_curves(study: Study, tmp_path: Path) -> None:
    run = study.runs()[1]
    put_log(tmp_path, run)
    teacher, student = (row for _, row in Results.of(study, tmp_path).curves.iterrows())
    assert (teacher["method"], teacher["digest"]) == ("pais", run.digest)
    assert tuple(student[["step", "seconds", "images_seen", "model", "AP", "AP50", "bbox_AP"]]) == (
        (10, 1.5, 120, "student", 0.1, 0.2, 0.15)
    )
    assert (teacher["model"], teacher["AP"]) == ("teacher", 0.3)
    assert math.isnan(teacher["AP50"])


def test_predictions_of_another_codebase_need_no_run_file(study: Study, tmp_path: Path) -> None:
    put_metrics(tmp_path, study.runs()[3], AP=0.4, AP50=0.6)
    row = Results.of(study, tmp_path).runs.iloc[3]
    assert (row["state"], row["method"], row["percent"], row["segm_AP"]) == ("done", "pais", 10, 0.4)


def test_a_line_that_is_being_written_is_left_alone(study: Study, tmp_path: Path) -> None:
    put_log(tmp_path, study.runs()[0], '{"event": "eval')
    assert len(Results.of(study, tmp_path).curves) == 2


def test_a_broken_line_is_named(study: Study, tmp_path: Path) -> None:
    put_log(tmp_path, study.runs()[0], '{"event": "eval\n')
    with pytest.raises(BenchError, match=r"log.jsonl, line 3: not valid JSON"):
        Results.of(study, tmp_path)


def test_a_run_in_the_folder_of_another_is_refused(study: Study, tmp_path: Path) -> None:
    here, other = study.runs()[:2]
    put_run(tmp_path, other)
    (tmp_path / here.folder).mkdir(parents=True)
    (tmp_path / other.folder / "run.json").rename(tmp_path / here.folder / "run.json")
    with pytest.raises(BenchError, match=f"run.json: belongs to run {other.digest}, not to {here.digest}; remove"):
        Results.of(study, tmp_path)


def test_metrics_of_another_run_are_refused(study: Study, tmp_path: Path) -> None:
    run = study.runs()[0]
    put(tmp_path / run.folder / "metrics.json", {"digest": "00000000", "segm": {}, "bbox": {}})
    with pytest.raises(BenchError, match="metrics.json: belongs to run 00000000"):
        Results.of(study, tmp_path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [("{", "not valid JSON"), ("[]", "not a JSON object"), ("{}", "missing key 'run'"), ('{"run": {}}', "'dataset'")],
)
def test_a_broken_run_file_is_named(study: Study, tmp_path: Path, content: str, fault: str) -> None:
    put(tmp_path / study.runs()[0].folder / "run.json", {})
    (tmp_path / study.runs()[0].folder / "run.json").write_text(content)
    with pytest.raises(BenchError, match=f"run.json: .*{fault}"):
        Results.of(study, tmp_path)
