"""Read a training's log.jsonl: its evaluations, and the numbers of its pseudo-labels."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pais_bench.errors import BenchError
from pais_bench.runs.files import STEP_LINE

MAX_PSEUDO_LABEL_STEPS = 48
"""Logged steps of a run whose pseudo-labels are read; a log of 180,000 steps has thousands."""

_PSEUDO = b'"pseudo": {'
_END = b"\n"
_ARRAYS = {"score_bins": (10, 3), "mask_iou_bins": (10, 3), "sample": (-1, 5)}


@dataclass(frozen=True)
class TrainingLog:
    """Hold what is read of one log.jsonl.

    evaluations: its lines of that event | pseudo_labels: step, seconds and `pseudo` of at most MAX_PSEUDO_LABEL_STEPS
    logged steps that have pseudo-labels, evenly spread, the last among them; as arrays score_bins, mask_iou_bins
    f32[10,3] (count, mean predicted, mean true) and sample f32[n,5] (score, predicted IoU, class weight, mask weight,
    true IoU) | step: the last one logged, 0 where there is none.
    """

    evaluations: list[dict[str, Any]]
    pseudo_labels: list[dict[str, Any]]
    step: int


def read(path: Path) -> TrainingLog:
    """Read a log; an absent one is empty, and a last line without its end is skipped, as it is being written.

    Raises BenchError that names a broken line. Steps whose pseudo-labels are not needed are not parsed.
    """
    content = path.read_bytes() if path.exists() else b""
    others: list[int] = []
    steps: list[int] = []
    last = start = 0
    # A long log has 8 MB, of which little is needed: a search is much faster than parsing every line.
    while end := content.find(_END, start) + 1:
        if not content.startswith(STEP_LINE, start):
            others.append(start)
        elif content.find(_PSEUDO, start, end) >= 0:
            steps.append(start)
        last, start = start, end
    selected = {round(index) for index in np.linspace(0, len(steps) - 1, MAX_PSEUDO_LABEL_STEPS)} if steps else set()
    events = [_parse(path, content, offset) for offset in others]
    pseudo_labels = [_parse_pseudo_labels(path, content, steps[index]) for index in sorted(selected)]
    step = _parse(path, content, last).get("step", 0) if start else 0
    return TrainingLog([event for event in events if event.get("event") == "evaluation"], pseudo_labels, step)


def _line(path: Path, content: bytes, start: int) -> str:
    return f"{path}, line {content.count(_END, 0, start) + 1}"


def _parse(path: Path, content: bytes, start: int) -> dict[str, Any]:
    """Parse the line that starts at an offset."""
    remedy = "remove the file and make it again"
    try:
        line = json.loads(content[start : content.index(_END, start)])
    except ValueError as error:
        raise BenchError(f"{_line(path, content, start)}: not valid JSON ({error}); {remedy}") from error
    if not isinstance(line, dict):
        raise BenchError(f"{_line(path, content, start)}: not a JSON object; {remedy}")
    return line


def _parse_pseudo_labels(path: Path, content: bytes, start: int) -> dict[str, Any]:
    line = _parse(path, content, start)
    record = {"step": line.get("step"), "seconds": line.get("seconds"), **line["pseudo"]}
    for name, shape in _ARRAYS.items():
        values = record.pop(name, None)
        try:
            if values:
                record[name] = np.array(values, dtype=np.float32).reshape(shape)
        except (ValueError, TypeError) as error:
            where = _line(path, content, start)
            raise BenchError(f"{where}: pseudo.{name} does not have the shape {shape}; train again") from error
    return record
