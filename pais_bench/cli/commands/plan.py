"""Print what is done of a study, and what the rest will cost: device hours, the longest chain, disk.

Times are measured, from the logs of this study's runs with the same network and method; where there is no log yet, they
are unknown.
"""

from __future__ import annotations

import json
import statistics
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pais_bench.cli import context
from pais_bench.study.resources import resources_for
from pais_bench.study.run import Run
from pais_bench.study.study import Study

STAGES = ("run.json", "predictions.json", "metrics.json")


def add_arguments(parser: ArgumentParser) -> None:
    """Add the study and the results folder."""
    context.add_study(parser)
    context.add_results(parser)


def run(arguments: Namespace) -> None:
    """Print the plan."""
    for line in plan(context.read_study(arguments), arguments.results):
        print(line)


class Progress(NamedTuple):
    """Hold the progress of a run: steps trained, seconds they took, bytes on disk, number of STAGES that are done."""

    steps: int
    seconds: float
    disk: int
    stage: int


def plan(study: Study, results: Path) -> Iterator[str]:
    """Yield the lines of the plan."""
    runs = list({run.digest: run for run in study.runs()}.values())
    progress = {run.digest: _read_progress(results / run.folder) for run in runs}
    counts = (sum(run.stage > i for run in progress.values()) for i in range(3))
    names = ("trained", "predicted", "evaluated")
    done = ", ".join(f"{count} {name}" for count, name in zip(counts, names, strict=True))
    started = sum(run.steps > 0 and run.stage == 0 for run in progress.values())
    yield f"{study.name}: {len(runs)} runs; {done}, {started} started"

    step_seconds = _step_seconds(runs, progress)
    left = {run.digest: _seconds_left(run, progress[run.digest], step_seconds.get(_kind(run))) for run in runs}
    for (network, method), seconds in sorted(step_seconds.items()):
        yield f"  {network} {method}: {1000 * seconds:.0f} ms a step, measured"
    unknown = sorted({" ".join(_kind(run)) for run in runs if left[run.digest] is None})
    if unknown:
        yield f"  unknown step time, no run is logged yet: {', '.join(unknown)}"

    resources = resources_for(study.resources, "train")
    devices = (resources.gpus or 1) * (resources.nodes or 1)
    known = [seconds for seconds in left.values() if seconds is not None]
    rest = "" if len(known) == len(left) else f", and {len(left) - len(known)} runs of unknown step time"
    longest = max((_chain_seconds(run, left) for run in runs), default=0.0)
    yield f"device hours left: {devices * sum(known) / 3600:.1f}{rest}" if known else "device hours left: unknown"
    if known:
        yield f"longest chain left: {longest / 3600:.1f} hours on any number of devices"
    disks = [run.disk for run in progress.values() if run.stage]
    if disks:
        total = f"{len(runs) * statistics.fmean(disks) / 1e9:.2f} GB at the end, by the {len(disks)} trained runs"
        yield f"disk: {sum(run.disk for run in progress.values()) / 1e9:.2f} GB now, {total}"
    else:
        yield "disk: unknown, no run is trained yet"


def _kind(run: Run) -> tuple[str, str]:
    return f"{run.network.backend}/{run.network.label}", run.method.label


def _read_progress(folder: Path) -> Progress:
    """Read the progress of a run; a line that is being written now does not count."""
    last: dict[str, Any] = {}
    path = folder / "log.jsonl"
    for text in path.read_text().splitlines(keepends=True) if path.exists() else ():
        if text.endswith("\n"):
            line = json.loads(text)
            last = line if line.get("event") == "step" else last
    stage = sum((folder / name).exists() for name in STAGES)
    disk = sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) if folder.is_dir() else 0
    return Progress(int(last.get("step", 0)), float(last.get("seconds", 0.0)), disk, stage)


def _step_seconds(runs: list[Run], progress: dict[str, Progress]) -> dict[tuple[str, str], float]:
    """Return the median seconds per step of each network and method that has a log."""
    measured: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        steps, seconds, *_ = progress[run.digest]
        if steps and seconds:
            measured.setdefault(_kind(run), []).append(seconds / steps)
    return {kind: statistics.median(values) for kind, values in measured.items()}


def _seconds_left(run: Run, progress: Progress, step_seconds: float | None) -> float | None:
    steps = 0 if progress.stage else max(0, run.training.steps - progress.steps)
    if not steps:
        return 0.0
    return None if step_seconds is None else steps * step_seconds


def _chain_seconds(run: Run, left: dict[str, float | None]) -> float:
    """Return the seconds that are left of a run's training and of its teachers' before it."""
    return (left.get(run.digest) or 0.0) + (_chain_seconds(run.teacher, left) if run.teacher else 0.0)
