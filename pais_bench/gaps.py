"""Why is a cell of the grid empty, and which commands go on with it? imports no torch."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pais_bench.config import Run, Study, suffix
from pais_bench.results import Results

VERBS = {"train": "run.json", "predict": "predictions{}.json", "evaluate": "metrics{}.json"}
"""The verbs of a run, in their order, and what each leaves when it is done, by what the names of weights end in."""


@dataclass(frozen=True)
class Gap:
    """Hold a run without metrics, what is known of the reason, and the commands that are left, in their order."""

    run: Run
    state: str
    reason: str
    commands: tuple[str, ...]


def gaps(study: Study, results: Results, source: str) -> list[Gap]:
    """List the runs that are not done; source is what a command line calls the study."""
    found = []
    for run, (_, row) in zip(study.runs(), results.runs.iterrows(), strict=True):
        if row["state"] == "done":
            continue
        end = suffix(results.printed)
        left = list(_left(results.root / run.folder, str(row["state"]), end))
        reason = _failure(results.root, run, left[0], end) or _unfinished(
            run, str(row["state"]), int(row["step"]), left[0]
        )
        commands = tuple(_command(verb, source, results.root, run) for verb in left)
        found.append(Gap(run, str(row["state"]), reason, commands))
    return found


def whole_grid(source: str, root: Path) -> str:
    """Give the command that makes everything that is missing."""
    words = ["snakemake", "--workflow-profile", "profiles/local", "--config", f"study={source}", f"results={root}"]
    return shlex.join(words)


def _left(folder: Path, state: str, end: str) -> Iterator[str]:
    """Give the verbs that are to be run; what comes after a missing file is made again."""
    missing = state != "trained"
    for verb, file in VERBS.items():
        missing = missing or not (folder / file.format(end)).exists()
        if missing:
            yield verb


def _failure(root: Path, run: Run, verb: str, end: str) -> str:
    """Give the last error that the workflow's log of the next verb tells; empty where there is none."""
    path = root / "logs" / run.folder / (f"{verb}.log" if verb == "train" else f"{verb}{end}.log")
    if not path.exists():
        return ""
    lines = [line.strip() for line in path.read_text(errors="replace").splitlines() if line.strip()]
    told = [line for line in lines if f"pais-bench {verb}: error: " in line]
    if not told and any(line.startswith("Traceback (most recent call last)") for line in lines):
        told = lines
    return f"{verb} failed: {told[-1].removeprefix(f'pais-bench {verb}: error: ')}" if told else ""


def _unfinished(run: Run, state: str, step: int, verb: str) -> str:
    if state == "missing":
        return "not begun"
    if state == "started":
        return f"stopped, or still training, at step {step} of {run.training.steps}"
    return "trained, not predicted" if verb == "predict" else "predicted, not evaluated"


def _command(verb: str, source: str, root: Path, run: Run) -> str:
    words = ["pais-bench", verb, source, "--results", str(root), "--percent", f"{run.split.percent:g}"]
    words += ["--fold", str(run.split.fold), "--network", run.network.label, "--method", run.method.label]
    return shlex.join(words)
