"""What survives when a run is killed? A checkpoint that is whole or the one before it, and a log without repeats."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint so that a reader finds the old one or the new one, whole."""
    partial = path.with_suffix(".tmp")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


class Log:
    """Hold log.jsonl: one JSON object a line, every step at most once."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, line: Mapping[str, Any]) -> None:
        """Write one line at once."""
        with self.path.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def keep_until(self, step: int) -> None:
        """Drop the lines of later steps and a torn last line."""
        if not self.path.exists():
            return
        kept = [text for text in self.path.read_text().splitlines(keepends=True) if _step_of(text) <= step]
        whole = self.path.with_suffix(".tmp")
        whole.write_text("".join(kept))
        os.replace(whole, self.path)


def _step_of(text: str) -> float:
    try:
        return int(json.loads(text)["step"]) if text.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf
