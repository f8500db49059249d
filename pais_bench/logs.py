"""What does a training's log say? Its evaluations, and what its pseudo-labels were like; imports no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pais_bench.types import BenchError

LOOKS = 48
"""Of so many logged steps of a run the pseudo-labels are read; a log of 180,000 steps has thousands."""

_STEP = b'{"event": "step"'
_ARRAYS = {"score_bins": (10, 3), "quality_bins": (10, 3), "sample": (-1, 5)}


@dataclass(frozen=True)
class Log:
    """Hold what is read of one log.jsonl.

    evaluations: its lines of that event | looks: step, seconds and `pseudo` of at most LOOKS logged steps that have
    pseudo-labels, evenly spread, the last among them; bins f32[10,3] (count, mean predicted, mean true) and sample
    f32[n,5] (score, predicted IoU, class weight, mask weight, true IoU) are arrays | step: the last one logged, 0 where
    there is none.
    """

    evaluations: list[dict[str, Any]]
    looks: list[dict[str, Any]]
    step: int


def read(path: Path) -> Log:
    """Read a log; one that is absent is empty, and a last line without its end is being written now.

    Raises BenchError that names the line where one is broken. Steps that are not looked at are not parsed.
    """
    told: list[tuple[int, bytes]] = []
    looked: list[tuple[int, bytes]] = []
    last: tuple[int, bytes] | None = None
    for number, line in _lines(path):
        if not line.startswith(_STEP):
            told.append((number, line))
        elif b'"pseudo": {' in line:
            looked.append((number, line))
        last = number, line
    chosen = {round(place) for place in np.linspace(0, len(looked) - 1, LOOKS)} if looked else set()
    events = [_parse(path, *line) for line in told]
    looks = [_look(path, *looked[place]) for place in sorted(chosen)]
    step = _parse(path, *last).get("step", 0) if last else 0
    return Log([one for one in events if one.get("event") == "evaluation"], looks, step)


def _lines(path: Path) -> list[tuple[int, bytes]]:
    if not path.exists():
        return []
    lines = path.read_bytes().splitlines(keepends=True)
    return [(number, line) for number, line in enumerate(lines, start=1) if line.endswith(b"\n")]


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    where, remedy = f"{path}, line {number}", "remove the file and make it again"
    try:
        content = json.loads(line)
    except ValueError as error:
        raise BenchError(f"{where}: not valid JSON ({error}); {remedy}") from error
    if not isinstance(content, dict):
        raise BenchError(f"{where}: not a JSON object; {remedy}")
    return content


def _look(path: Path, number: int, text: bytes) -> dict[str, Any]:
    line = _parse(path, number, text)
    found = {"step": line.get("step"), "seconds": line.get("seconds"), **line["pseudo"]}
    for name, shape in _ARRAYS.items():
        content = found.pop(name, None)
        try:
            if content:
                found[name] = np.array(content, dtype=np.float32).reshape(shape)
        except (ValueError, TypeError) as error:
            raise BenchError(f"{path}, line {number}: pseudo.{name} has not the shape {shape}; train again") from error
    return found
