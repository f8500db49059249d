"""Is of a log read what the figures need, and a bounded part of it however long it is?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pais_bench import logs
from pais_bench.types import BenchError

BINS = [[0, 0, 0]] * 9 + [[3, 0.95, 0.8]]


def step(number: int, **pseudo: Any) -> str:
    more = {"pseudo": {"precision": 0.5, **pseudo}} if pseudo else {}
    return json.dumps({"event": "step", "step": number, "seconds": number / 2, "loss": {}, **more}) + "\n"


def test_an_absent_log_is_empty(tmp_path: Path) -> None:
    assert logs.read(tmp_path / "log.jsonl") == logs.Log([], [], 0)


def test_evaluations_and_looks_are_read(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    sample = [[0.9, 0.8, 1.0, 0.7, 0.6], [0.5, 0.4, 1.0, 0.3, 0.2]]
    told = step(1) + step(2, score_bins=BINS, sample=sample) + json.dumps({"event": "evaluation", "step": 2}) + "\n"
    path.write_text(told + step(3, sample=[]) + '{"event": "step", "st')
    log = logs.read(path)
    assert [one["step"] for one in log.evaluations] == [2]
    assert [look["step"] for look in log.looks] == [2, 3]
    assert log.looks[0]["sample"].shape == (2, 5) and log.looks[0]["score_bins"][9] == pytest.approx([3, 0.95, 0.8])
    assert log.looks[0]["precision"] == 0.5 and "sample" not in log.looks[1] and "quality_bins" not in log.looks[0]
    assert log.step == 3


def test_a_long_log_is_looked_at_evenly_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text("".join(step(number, recall=0.1) for number in range(1, 1001)))
    steps = [look["step"] for look in logs.read(tmp_path / "log.jsonl").looks]
    assert len(steps) == logs.LOOKS and steps[-1] == 1000
    assert np.ptp(np.diff(steps)) <= 1


@pytest.mark.parametrize(
    ("line", "fault"),
    [("[1]\n", "line 1: not a JSON object"), (step(1, sample=[[1, 2]]), r"line 1: pseudo.sample has not the shape")],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, fault: str) -> None:
    (tmp_path / "log.jsonl").write_text(line)
    with pytest.raises(BenchError, match=fault):
        logs.read(tmp_path / "log.jsonl")
