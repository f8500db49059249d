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
_PSEUDO = b'"pseudo": {'
_END = b"\n"
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
    content = path.read_bytes() if path.exists() else b""
    told: list[int] = []
    looked: list[int] = []
    last = start = 0
    # A long log has 8 MB, of which little is read: to search it is much faster than to take all its lines apart.
    while end := content.find(_END, start) + 1:
        if not content.startswith(_STEP, start):
            told.append(start)
        elif content.find(_PSEUDO, start, end) >= 0:
            looked.append(start)
        last, start = start, end
    chosen = {round(place) for place in np.linspace(0, len(looked) - 1, LOOKS)} if looked else set()
    events = [_parse(path, content, place) for place in told]
    looks = [_look(path, content, looked[index]) for index in sorted(chosen)]
    step = _parse(path, content, last).get("step", 0) if start else 0
    return Log([one for one in events if one.get("event") == "evaluation"], looks, step)


def _where(path: Path, content: bytes, start: int) -> str:
    return f"{path}, line {content.count(_END, 0, start) + 1}"


def _parse(path: Path, content: bytes, start: int) -> dict[str, Any]:
    """Parse the line that starts there."""
    remedy = "remove the file and make it again"
    try:
        line = json.loads(content[start : content.index(_END, start)])
    except ValueError as error:
        raise BenchError(f"{_where(path, content, start)}: not valid JSON ({error}); {remedy}") from error
    if not isinstance(line, dict):
        raise BenchError(f"{_where(path, content, start)}: not a JSON object; {remedy}")
    return line


def _look(path: Path, content: bytes, start: int) -> dict[str, Any]:
    line = _parse(path, content, start)
    found = {"step": line.get("step"), "seconds": line.get("seconds"), **line["pseudo"]}
    for name, shape in _ARRAYS.items():
        values = found.pop(name, None)
        try:
            if values:
                found[name] = np.array(values, dtype=np.float32).reshape(shape)
        except (ValueError, TypeError) as error:
            where = _where(path, content, start)
            raise BenchError(f"{where}: pseudo.{name} has not the shape {shape}; train again") from error
    return found
