"""Write checkpoints that survive a kill at any moment: the newest, and the one before it."""

from __future__ import annotations

import math
import os
import pickle
import re
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn import Module

from pais_bench.errors import BenchError, describe_fault
from pais_bench.runs.files import best_checkpoint
from pais_bench.study.run import Run


class Damaged(BenchError):
    """Report that a checkpoint is damaged; the one before it may be whole."""


def write_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a checkpoint and keep the one before it, so that a crash at any moment leaves a whole one."""
    partial = _write_partial(path, state)
    if path.exists():
        os.replace(path, previous(path))
    os.replace(partial, path)


def _write_partial(path: Path, state: Mapping[str, Any]) -> Path:
    """Write a state beside its file and return the path, to be renamed."""
    partial = path.with_suffix(".tmp")
    try:
        with partial.open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        partial.unlink(missing_ok=True)  # frees its space on a full disk
        raise
    return partial


class BestCheckpoints:
    """Keep the weights of each model at the evaluation with its highest mask AP, the first of equals.

    They are written together with a checkpoint, so that those of a resumed run are of evaluations in its log.
    """

    def __init__(self, folder: Path, models: Sequence[str]) -> None:
        """Set the files, such as best-teacher.pt, one for each model."""
        self.paths = {model: folder / best_checkpoint(model) for model in models}
        self.ap = dict.fromkeys(models, -math.inf)
        self.unwritten: dict[str, dict[str, Any]] = {}

    def update(self, line: Mapping[str, Any], networks: Mapping[str, Module]) -> None:
        """Copy the weights of every model whose AP in an evaluation's line is the highest so far.

        AP is that of the evaluations during training, on images that the final evaluation uses too.
        """
        for model in self.paths:
            ap = line.get(model, {}).get("segm_AP")
            if ap is not None and ap > self.ap[model]:
                weights = {name: value.detach().cpu().clone() for name, value in networks[model].state_dict().items()}
                self.ap[model] = ap
                self.unwritten[model] = {"step": line["step"], "segm_AP": ap, model: weights}

    def write(self, digest: str) -> None:
        """Write the new weights, each file atomically."""
        for model, state in self.unwritten.items():
            path = self.paths[model]
            os.replace(_write_partial(path, {"digest": digest, **state}), path)
        self.unwritten.clear()

    def take_over(self, folder: Path, read: Callable[[Path], dict[str, Any]]) -> None:
        """Begin with the files of the burn-in in a folder; they are written here with the next checkpoint."""
        for model, path in self.paths.items():
            state = read(folder / path.name)
            self.ap[model] = state["segm_AP"]
            self.unwritten[model] = {key: value for key, value in state.items() if key != "digest"}

    def resume(self, step: int, evaluated: bool, read: Callable[[Path], dict[str, Any]]) -> None:
        """Continue from the files of a run at a step; evaluated says whether it should have any.

        A file of a later step was written just before a kill, and that step is repeated. Raises BenchError for a run
        that was started without keeping them.
        """
        for model, path in self.paths.items():
            if path.exists():
                state = read(path)
                self.ap[model] = state["segm_AP"] if state["step"] <= step else -math.inf
            elif evaluated:
                raise BenchError(
                    f"{path}: missing, and the run is at step {step}; remove its folder to train it anew, or report "
                    f"the last checkpoint instead of the best"
                )


def previous(path: Path) -> Path:
    """Return the path of the checkpoint before the newest."""
    return path.with_suffix(".before.pt")


def read_newest(path: Path, run: Run) -> tuple[dict[str, Any] | None, str]:
    """Return the newest whole checkpoint, None where none was written yet, and the fault of a newer one.

    Raises BenchError where a checkpoint is of another run, or where none of them is whole.
    """
    faults: list[str] = []
    for file in (path, previous(path)):
        if not file.exists():
            continue
        try:
            return read_checkpoint(file, run), "; ".join(faults)
        except Damaged as error:
            faults.append(str(error))
    if faults:
        raise BenchError("; ".join(faults))
    return None, ""


def read_checkpoint(path: Path, run: Run) -> dict[str, Any]:
    """Read a checkpoint of this run, without executing code of the file.

    Raises BenchError where there is none, where it is damaged or holds what is not loaded (Damaged), or was written by
    a run with other options. A fault of the machine is raised as it is: the file may be whole.
    """
    try:
        with zipfile.ZipFile(path) as file:
            damaged = file.testzip()  # torch.load reads a damaged block silently
        if damaged:
            raise ValueError(f"{damaged} has a wrong checksum")
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        digest = state["digest"]
    except FileNotFoundError:
        raise BenchError(f"{path}: no checkpoint; run `pais-bench train` first") from None
    except pickle.UnpicklingError as error:  # of a file with the right checksums
        kinds = re.findall(r"GLOBAL (\S+)", str(error))
        raise Damaged(
            f"{path}: no damaged checkpoint, but one that is not loaded, as it holds more than tensors and numbers "
            f"({kinds[0] if kinds else 'unknown'}); move {_what_to_remove(path)} away to train this run anew"
        ) from error
    except Exception as error:
        if describe_fault(error):
            raise
        fault = (str(error).splitlines() or [""])[0].split(". ")[0]
        raise Damaged(
            f"{path}: damaged checkpoint ({fault}); delete {_what_to_remove(path)} to train this run anew"
        ) from error
    if digest != run.digest:
        raise BenchError(f"{path}: checkpoint of run {digest}, not of {run.digest}; delete it or use another folder")
    return state


def _what_to_remove(path: Path) -> str:
    """Return what has to go for a training to begin anew; without its best checkpoint a begun run is refused."""
    return "the folder of the run" if path.name.startswith("best-") else "it"
