"""Check that Results reads the measured numbers from the content of the run folders."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from test_reports import make_study

from pais_bench.errors import BenchError
from pais_bench.reports.results import CURVE_COLUMNS, KEYS, RUN_COLUMNS, Results
from pais_bench.study.run import Run

STUDY = make_study()


def put(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def put_run(root: Path, run: Run, steps: int = 20, begun_with: str = "") -> None:
    content = {"run": run.model_dump(mode="json"), "digest": run.digest, "commit": "c0ffee", "wall_seconds": 12.5}
    put(root / run.folder / "run.json", {**content, "steps": steps, "begun_with": begun_with})


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


def test_an_empty_folder_is_all_missing(tmp_path: Path) -> None:
    results = Results.of(STUDY, tmp_path)
    assert list(results.runs["state"]) == ["missing"] * 6
    assert list(results.runs.columns) == list(RUN_COLUMNS)
    assert list(results.curves.columns) == list(CURVE_COLUMNS)
    assert results.curves.empty


def test_rows_of_runs(tmp_path: Path) -> None:
    done, started, trained, _, evaluated, _ = STUDY.runs()
    put_run(tmp_path, done)
    put_metrics(tmp_path, done, AP=0.1, AP50=0.2, APs=None)
    put_log(tmp_path, started)
    put_run(tmp_path, trained)
    put_metrics(tmp_path, evaluated, AP=0.4, AP50=0.6)
    runs = Results.of(STUDY, tmp_path).runs
    assert list(runs["state"]) == ["done", "started", "trained", "missing", "done", "missing"]
    row, without_run_file = runs.iloc[0], runs.iloc[4]
    keys = ("my_shapes", "soft_teacher", 1.0, 1, "torchvision", "small", "base_line", done.digest)
    assert tuple(row[list(KEYS)]) == keys
    assert (row["model"], row["images"], row["wall_seconds"], row["commit"]) == ("teacher", 240, 12.5, "c0ffee")
    assert (row["segm_AP"], row["segm_AP50"], row["bbox_AP"]) == (0.1, 0.2, 0.25)
    assert math.isnan(row["segm_APs"]) and math.isnan(row["bbox_APs"])
    assert tuple(without_run_file[["method", "percent", "segm_AP"]]) == ("pais", 10, 0.4)
    put_run(tmp_path, done, begun_with="runs/burn_in")
    put_run(tmp_path, trained, begun_with="runs/removed")
    put(tmp_path / "runs" / "burn_in" / "run.json", {"wall_seconds": 2.5})
    shared = Results.of(STUDY, tmp_path).runs[["begun_with", "burn_in_seconds"]]
    assert shared.values.tolist() == [["runs/burn_in", 2.5], ["", 0], ["runs/removed", 0], *3 * [["", 0]]]
    put_run(tmp_path, trained, steps=5)
    assert Results.of(STUDY, tmp_path).runs["state"][2] == "started", "interrupted"


def test_rows_of_curves(tmp_path: Path) -> None:
    run = STUDY.runs()[1]
    put_log(tmp_path, run, '{"event": "eval')  # a line that is being written is skipped
    teacher, student = (row for _, row in Results.of(STUDY, tmp_path).curves.iterrows())
    assert (teacher["method"], teacher["digest"]) == ("pais", run.digest)
    assert tuple(student[["step", "seconds", "images_seen", "model", "AP", "AP50", "bbox_AP"]]) == (
        (10, 1.5, 120, "student", 0.1, 0.2, 0.15)
    )
    assert (teacher["model"], teacher["AP"]) == ("teacher", 0.3)
    assert math.isnan(teacher["AP50"])


def test_a_run_in_the_folder_of_another_is_refused(tmp_path: Path) -> None:
    run, other = STUDY.runs()[:2]
    put_run(tmp_path, other)
    (tmp_path / run.folder).mkdir(parents=True)
    (tmp_path / other.folder / "run.json").rename(tmp_path / run.folder / "run.json")
    with pytest.raises(BenchError, match=f"run.json: belongs to run {other.digest}, not to {run.digest}; remove"):
        Results.of(STUDY, tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("run.json", "{", "not valid JSON"),
        ("run.json", "[]", "not a JSON object"),
        ("run.json", "{}", "missing key 'run'"),
        ("run.json", '{"run": {}}', "'dataset'"),
        ("metrics.json", '{"digest": "00000000", "segm": {}, "bbox": {}}', "belongs to run 00000000"),
        ("log.jsonl", '{"event": "step"}\n{"event": "eval\n', "line 2: not valid JSON"),
    ],
)
def test_a_faulty_file_is_named(tmp_path: Path, name: str, content: str, fault: str) -> None:
    path = tmp_path / STUDY.runs()[0].folder / name
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(BenchError, match=f"{name}[:,] .*{fault}"):
        Results.of(STUDY, tmp_path)
