"""Check that the reader of logs returns what the figures need, a bounded part of a log of any length."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pais_bench.errors import BenchError
from pais_bench.reports import training_log

BINS = [[0, 0, 0]] * 9 + [[3, 0.95, 0.8]]


def step(number: int, **pseudo: Any) -> str:
    more = {"pseudo": {"precision": 0.5, **pseudo}} if pseudo else {}
    return json.dumps({"event": "step", "step": number, "seconds": number / 2, "loss": {}, **more}) + "\n"


def test_an_absent_log_is_empty(tmp_path: Path) -> None:
    assert training_log.read(tmp_path / "log.jsonl") == training_log.TrainingLog([], [], 0)


def test_evaluations_and_pseudo_labels_are_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    sample = [[0.9, 0.8, 1.0, 0.7, 0.6], [0.5, 0.4, 1.0, 0.3, 0.2]]
    text = step(1) + step(2, score_bins=BINS, sample=sample) + json.dumps({"event": "evaluation", "step": 2}) + "\n"
    path.write_text(text + step(3, sample=[]) + '{"event": "step", "st')
    log = training_log.read(path)
    assert [line["step"] for line in log.evaluations] == [2]
    first, second = log.pseudo_labels
    assert (first["step"], first["precision"], second["step"]) == (2, 0.5, 3)
    assert first["sample"].shape == (2, 5) and first["score_bins"][9] == pytest.approx([3, 0.95, 0.8])
    assert "sample" not in second and "mask_iou_bins" not in first
    assert log.step == 3


def test_a_long_log_is_sampled_evenly_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("".join(step(number, recall=0.1) for number in range(1, 1001)))
    steps = [line["step"] for line in training_log.read(tmp_path / "log.jsonl").pseudo_labels]
    assert len(steps) == training_log.MAX_PSEUDO_LABEL_STEPS and steps[-1] == 1000
    assert np.ptp(np.diff(steps)) <= 1


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("[1]\n", "line 1: not a JSON object"),
        (step(1, sample=[[1, 2]]), r"line 1: pseudo.sample does not have the shape"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, fault: str) -> None:
    (tmp_path / "log.jsonl").write_text(line)
    with pytest.raises(BenchError, match=fault):
        training_log.read(tmp_path / "log.jsonl")
