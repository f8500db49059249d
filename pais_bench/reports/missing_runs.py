"""List the unfinished runs of a study, the reason of each, and the commands that continue it."""

from __future__ import annotations

import itertools
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pais_bench.annotations.sources import read_content
from pais_bench.annotations.store import dataset_folder
from pais_bench.reports.results import Results
from pais_bench.runs import trained_data
from pais_bench.runs.files import RUN, metrics_file, predictions_file
from pais_bench.runs.job_log import was_stopped
from pais_bench.runs.lock_owner import is_held
from pais_bench.study.run import Run, suffix
from pais_bench.study.study import Study

COMMANDS: dict[str, Callable[[str], str]] = {
    "train": lambda end: RUN,
    "predict": predictions_file,
    "evaluate": metrics_file,
}
"""The commands of a run in their order, and the file that each writes of a checkpoint, by its suffix."""


@dataclass(frozen=True)
class MissingRun:
    """Hold a run without metrics, the known reason, and the commands that remain, in their order.

    failed: the workflow's log of the first of these commands has an error, which is the reason; no process trains the
    run now, and its last attempt was not stopped.
    """

    run: Run
    state: str
    reason: str
    commands: tuple[str, ...]
    failed: bool


def missing_runs(study: Study, results: Results, source: str) -> list[MissingRun]:
    """Return the runs that are not done; source is the study as named on a command line."""
    missing, end = [], suffix(results.printed)
    data = read_content(dataset_folder(results.root, study.dataset.label))
    for run, (_, row) in zip(study.runs(), results.runs.iterrows(), strict=True):
        state = str(row["state"])
        if state == "done":
            continue
        folder = results.root / run.folder
        other = trained_data.is_other(folder, data)
        # Of other data the training comes first, also where it only takes back what is kept of this content.
        trained = state == "trained" and not other
        remaining = _remaining(folder, end) if trained else list(COMMANDS)
        failure = "" if other or is_held(folder) else _failure(results.root, run, remaining[0], end)
        reason = "trained on other data than the prepared one" if other else failure
        reason = reason or _progress(run, state, int(row["step"]), remaining[0])
        commands = tuple(_command(command, source, results.root, run) for command in remaining)
        missing.append(MissingRun(run, state, reason, commands, bool(failure)))
    return missing


def grid_command(source: str, root: Path) -> str:
    """Return the command that makes everything that is missing."""
    return shlex.join(["pais-bench", "run", source, "--results", str(root)])


def _remaining(folder: Path, end: str) -> list[str]:
    """Return the commands from the first one whose file is missing."""
    return list(itertools.dropwhile(lambda command: (folder / COMMANDS[command](end)).exists(), COMMANDS))


def _failure(root: Path, run: Run, command: str, end: str) -> str:
    """Return the last error in the workflow's log of a command; empty where there is none, or it was stopped since."""
    path = root / "logs" / run.folder / f"{command}{'' if command == 'train' else end}.log"
    if not path.exists() or was_stopped(path):
        return ""
    prefix = f"pais-bench {command}: error: "
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if prefix in line]
    if not errors and any(line.startswith("Traceback (most recent call last)") for line in lines):
        errors = lines
    return f"{command} failed: {errors[-1].removeprefix(prefix)}" if errors else ""


def _progress(run: Run, state: str, step: int, command: str) -> str:
    if state == "missing":
        return "not started"
    if state == "started":
        return f"stopped, or still training, at step {step} of {run.training.steps}"
    return "trained, not predicted" if command == "predict" else "predicted, not evaluated"


def _command(command: str, source: str, root: Path, run: Run) -> str:
    words = ["pais-bench", command, source, "--results", str(root), "--percent", f"{run.split.percent:g}"]
    words += ["--fold", str(run.split.fold), "--network", run.network.label, "--method", run.method.label]
    return shlex.join(words)
