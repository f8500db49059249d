"""What survives when a run is killed? A whole checkpoint, the one before it, and a log that has every step once."""

from __future__ import annotations

import json
import math
import os
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module

from pais_bench.config import Run
from pais_bench.types import BenchError


class Damaged(BenchError):
    """Say that a checkpoint is torn; the one before it may be whole."""


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint, and keep the one before it: a crash at any moment leaves one of them, whole."""
    partial = _written(path, state)
    if path.exists():
        os.replace(path, before(path))
    os.replace(partial, path)


def _written(path: Path, state: Mapping[str, Any]) -> Path:
    """Write a state beside its file, to be renamed."""
    partial = path.with_suffix(".tmp")
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        partial.unlink(missing_ok=True)  # on a full disk its space is wanted
        raise
    return partial


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
            path = self.paths[model]
            os.replace(_written(path, {"digest": digest, **state}), path)
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


def before(path: Path) -> Path:
    """Give where the checkpoint before the newest lies."""
    return path.with_suffix(".before.pt")


def newest(path: Path, run: Run) -> tuple[dict[str, Any] | None, str]:
    """Give the newest whole checkpoint, None where none was written yet, and what is wrong with a newer one.

    Raises BenchError where a checkpoint is of another run, or where none of them is whole.
    """
    found = [one for one in (path, before(path)) if one.exists()]
    faults: list[str] = []
    for one in found:
        try:
            return read_checkpoint(one, run), "; ".join(faults)
        except Damaged as error:
            faults.append(str(error))
    if faults:
        raise BenchError("; ".join(faults))
    return None, ""


def read_checkpoint(path: Path, run: Run) -> dict[str, Any]:
    """Read a checkpoint of this very run; no code of a file is run.

    Raises BenchError where there is none, where it is torn (Damaged), or was written by a run with other options.
    """
    try:
        with zipfile.ZipFile(path) as file:
            torn = file.testzip()  # torch itself reads what a crash left of a block without a word
        if torn:
            raise ValueError(f"{torn} is not what was written")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        digest = state["digest"]
    except FileNotFoundError:
        raise BenchError(f"{path}: no checkpoint; run `pais-bench train` first") from None
    except MemoryError:
        raise
    except Exception as error:
        fault = (str(error).splitlines() or [""])[0].split(". ")[0]
        raise Damaged(f"{path}: damaged checkpoint ({fault}); delete it to train this run anew") from error
    if digest != run.digest:
        raise BenchError(f"{path}: checkpoint of run {digest}, not of {run.digest}; delete it or use another folder")
    return state


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

    def holds(self, event: str, step: int) -> bool:
        """Say whether there is a line of this event at a step."""
        if not self.path.exists():
            return False
        texts = [text for text in self.path.read_text().splitlines(keepends=True) if _step_of(text) == step]
        return any(json.loads(text)["event"] == event for text in texts)

    def sync(self) -> None:
        """Have the disk hold the lines that a checkpoint takes for granted."""
        if self.path.exists():
            with self.path.open("rb") as file:
                os.fsync(file.fileno())


def _step_of(text: str) -> float:
    try:
        return int(json.loads(text)["step"]) if text.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf
