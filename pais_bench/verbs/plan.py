"""Say what a study will cost before it is paid: runs, device hours, disk, the longest chain, and what is done already.

Times are measured, from the logs of this study's runs with the same network and method; where there is none yet, it
says unknown and invents nothing.
"""

from __future__ import annotations

import json
import statistics
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pais_bench.config import Run, Study
from pais_bench.demands import demand
from pais_bench.study_file import load_study, shipped

STAGES = ("run.json", "predictions.json", "metrics.json")


def add_arguments(parser: ArgumentParser) -> None:
    """Ask for a study, and the results folder."""
    parser.add_argument("study", metavar="STUDY", help=f"path of a study file, or one of {shipped()}")
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")


def run(arguments: Namespace) -> None:
    """Print the plan."""
    study = load_study(arguments.study)
    for line in plan(study, arguments.results):
        print(line)


class Progress(NamedTuple):
    """Hold how far a run is: steps trained, seconds they took, disk in bytes."""

    steps: int
    seconds: float
    disk: int
    stage: int


def plan(study: Study, results: Path) -> Iterator[str]:
    """Give the lines of the plan."""
    runs = list({run.digest: run for run in study.runs()}.values())
    progress = {run.digest: _progress(run, results / run.folder) for run in runs}
    told = ("trained", "predicted", "evaluated")
    counts = (sum(one.stage > i for one in progress.values()) for i in range(3))
    done = ", ".join(f"{count} {word}" for count, word in zip(counts, told, strict=True))
    started = sum(one.steps > 0 and one.stage == 0 for one in progress.values())
    yield f"{study.name}: {len(runs)} runs; {done}, {started} begun"

    pace = _paces(runs, progress)
    left: dict[str, float | None] = {}
    for run in runs:
        steps = max(0, run.training.steps - progress[run.digest].steps) if progress[run.digest].stage == 0 else 0
        step = pace.get(_kind(run))
        left[run.digest] = 0.0 if not steps else step and steps * step
    for (network, method), seconds in sorted(pace.items()):
        yield f"  {network} {method}: {1000 * seconds:.0f} ms a step, measured"
    unknown = sorted({" ".join(_kind(run)) for run in runs if left[run.digest] is None})
    if unknown:
        yield f"  unknown, because no run of theirs has been logged: {', '.join(unknown)}"

    asked = demand(study.resources, "train")
    devices = (asked.gpus or 1) * (asked.nodes or 1)
    known = [value for value in left.values() if value is not None]
    least = "" if len(known) == len(left) else f"at least, and what {len(left) - len(known)} runs of unknown pace take"
    longest = max((_chain(run, left) for run in runs), default=0.0)
    yield f"device hours left: {devices * sum(known) / 3600:.1f} {least}".rstrip() if known else "hours: unknown"
    if known:
        yield f"longest chain left: {longest / 3600:.1f} hours, however many devices there are"
    disks = [one.disk for one in progress.values() if one.stage]
    if disks:
        end = f"{len(runs) * statistics.fmean(disks) / 1e9:.2f} GB at the end, by the {len(disks)} trained runs"
        yield f"disk: {sum(one.disk for one in progress.values()) / 1e9:.2f} GB now, {end}"
    else:
        yield "disk: unknown, because no run is trained yet"


def _kind(run: Run) -> tuple[str, str]:
    return f"{run.network.backend}/{run.network.label}", run.method.label


def _progress(run: Run, folder: Path) -> Progress:
    """Look at what a run has written; a line that is being written now does not count."""
    last: dict[str, Any] = {}
    path = folder / "log.jsonl"
    for text in path.read_text().splitlines(keepends=True) if path.exists() else ():
        if text.endswith("\n"):
            line = json.loads(text)
            last = line if line.get("event") == "step" else last
    stage = sum((folder / name).exists() for name in STAGES)
    disk = sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) if folder.is_dir() else 0
    return Progress(int(last.get("step", 0)), float(last.get("seconds", 0.0)), disk, stage)


def _paces(runs: list[Run], progress: dict[str, Progress]) -> dict[tuple[str, str], float]:
    """Give the median seconds a step of each network and method that has been logged."""
    seen: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        steps, seconds, *_ = progress[run.digest]
        if steps and seconds:
            seen.setdefault(_kind(run), []).append(seconds / steps)
    return {kind: statistics.median(paces) for kind, paces in seen.items()}


def _chain(run: Run, left: dict[str, float | None]) -> float:
    """Give the seconds of a run's training and of those of the teachers before it."""
    return (left.get(run.digest) or 0.0) + (_chain(run.teacher, left) if run.teacher else 0.0)
