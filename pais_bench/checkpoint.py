"""What survives when a run is killed? A checkpoint that is whole or the one before it, and a log without repeats."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module

from pais_bench.types import BenchError


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint so that a reader finds the old one or the new one, whole."""
    partial = path.with_suffix(".tmp")
    with partial.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


class Best:
    """Keep the weights of each wanted model at the evaluation where its mask AP was highest, the first of equals.

    They reach the disk together with a checkpoint, so that a resumed run finds those of evaluations that it knows.
    """

    def __init__(self, folder: Path, models: Sequence[str]) -> None:
        """Name the files, best-teacher.pt say; none where no model is wanted."""
        self.paths = {model: folder / f"best-{model}.pt" for model in models}
        self.ap = dict.fromkeys(models, -math.inf)
        self.unwritten: dict[str, dict[str, Any]] = {}

    def look(self, line: Mapping[str, Any], networks: Mapping[str, Module]) -> None:
        """Take a copy of every model that an evaluation's line shows better than ever; a line without it says nothing.

        AP is that of the evaluations while training: of the images that are evaluated on in the end.
        """
        for model in self.paths:
            ap = line.get(model, {}).get("segm_AP")
            if ap is not None and ap > self.ap[model]:
                weights = {name: value.detach().cpu().clone() for name, value in networks[model].state_dict().items()}
                self.ap[model] = ap
                self.unwritten[model] = {"step": line["step"], "segm_AP": ap, model: weights}

    def write(self, digest: str) -> None:
        """Write what is new, each file whole or not at all."""
        for model, state in self.unwritten.items():
            write_checkpoint(self.paths[model], {"digest": digest, **state})
        self.unwritten.clear()

    def resume(self, step: int, evaluated: bool, read: Callable[[Path], dict[str, Any]]) -> None:
        """Go on from the files of a run at a step; evaluated says whether it should have some.

        A file of a later step was written just before a kill: that step comes again. Raises BenchError for a run that
        was begun without keeping them.
        """
        for model, path in self.paths.items():
            if path.exists():
                state = read(path)
                self.ap[model] = state["segm_AP"] if state["step"] <= step else -math.inf
            elif evaluated:
                raise BenchError(
                    f"{path}: missing, and the run is at step {step}; remove its folder to train it anew, or ask for "
                    f"the last weights instead of the best"
                )


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
