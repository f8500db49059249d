"""Write log.jsonl: one JSON object a line, every step at most once, also after a resume."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pais_bench.whole_file import open_whole


class LogWriter:
    """Append lines to a training's log and take back those that come after its checkpoint."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line at once."""
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def take_over(self, path: Path, every: Mapping[str, int]) -> None:
        """Begin with the lines of another log whose step is a multiple of what is given for their event."""
        texts = path.read_text().splitlines(keepends=True)
        self._replace(text for text in texts if _step_of(text) % every[json.loads(text)["event"]] == 0)

    def keep_until(self, step: int) -> None:
        """Drop the lines of later steps and a torn last line."""
        if not self.path.exists():
            return
        texts = self.path.read_text().splitlines(keepends=True)
        self._replace(text for text in texts if _step_of(text) <= step)

    def holds(self, event: str, step: int) -> bool:
        """Return whether there is a line of this event at a step."""
        if not self.path.exists():
            return False
        texts = [text for text in self.path.read_text().splitlines(keepends=True) if _step_of(text) == step]
        return any(json.loads(text)["event"] == event for text in texts)

    def sync(self) -> None:
        """Flush the lines to disk, before a checkpoint that relies on them."""
        if self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def _replace(self, texts: Iterable[str]) -> None:
        with open_whole(self.path) as file:
            file.writelines(texts)


def _step_of(text: str) -> float:
    try:
        return int(json.loads(text)["step"]) if text.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf
