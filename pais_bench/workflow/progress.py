"""Follow the runs of a study by the files that they write, on this machine or by jobs of a cluster."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pais_bench.annotations.sources import read_content
from pais_bench.annotations.store import dataset_folder
from pais_bench.runs import trained_data
from pais_bench.runs.files import EVALUATION_LINE, LOG, RUN, STEP_LINE, metrics_file, predictions_file
from pais_bench.runs.lock_owner import is_held
from pais_bench.study.run import BURN_IN, Run, suffix
from pais_bench.study.study import Study
from pais_bench.workflow.new_lines import NewLines

STATES = ("waiting", "training", "stopped", "trained", "predicted", "done")
"""States of a run; stopped: a training that no process continues now."""

Kind = tuple[str, str]
"""Network with its backend, and method: what the time of a step depends on."""


@dataclass(frozen=True)
class RunProgress:
    """Hold the progress of one run, or of a burn-in that runs share.

    folder: where its files are | state: one of STATES | step: the last one logged | seconds: time of the steps up to
    it, without evaluations, with those of the burn-in that it began with | ap: mask AP 0..1 of the study's reported
    model, at its newest evaluation or, of a run that is done, as the tables have it; None where there is none |
    takes_over: steps of a shared burn-in that it begins with.
    """

    run: Run
    folder: Path
    state: str
    step: int
    seconds: float
    ap: float | None
    takes_over: int = 0

    @property
    def is_trained(self) -> bool:
        """Return whether the training has ended."""
        return self.state in ("trained", "predicted", "done")

    @property
    def kind(self) -> Kind:
        """Return network and method."""
        return f"{self.run.network.backend}/{self.run.network.label}", self.run.method.label

    @property
    def is_burn_in(self) -> bool:
        """Return whether this is a burn-in and no run of the grid."""
        return self.run.method.label == BURN_IN

    def seconds_left(self, step_seconds: Mapping[Kind, float]) -> float | None:
        """Return the time that the steps left take; None where the time of such a step is not known."""
        left = 0 if self.is_trained else max(0, self.run.training.steps - self.step)
        if not left:
            return 0.0
        if self.kind not in step_seconds:
            return None
        seconds = left * step_seconds[self.kind]
        if self.takes_over and not self.step:
            seconds -= self.takes_over * step_seconds.get((self.kind[0], BURN_IN), 0.0)
        return max(0.0, seconds)


class Progress:
    """Read the progress of a study's runs again and again; of a log only the lines that are new are read."""

    def __init__(self, study: Study, results: Path) -> None:
        self.study, self.results = study, results
        sharing = [(runs[0].burn_in, runs) for runs in study.shared_burn_ins().values()]
        self._runs = [*(burn_in for burn_in, _ in sharing if burn_in), *study.runs()]
        self._begins_with = {burn_in.digest: {run.digest for run in runs} for burn_in, runs in sharing if burn_in}
        self._takes_over = {run.digest: run.training.burn_in for _, runs in sharing for run in runs}
        self._logs: dict[Path, _Log] = {}

    def read(self) -> list[RunProgress]:
        """Return the progress of every shared burn-in, and of every run in the order of the grid.

        A line that is being written does not count. A burn-in is done too where all of its runs are trained, as by a
        study that has more methods now: the workflow does not train it any more.
        """
        data = read_content(dataset_folder(self.results, self.study.dataset.label))
        folders = ((run, trained_data.of_content(self.results / run.folder, data)) for run in self._runs)
        progress = [self._read_run(run, folder) for run, folder in folders]
        trained = {one.run.digest for one in progress if one.is_trained}
        return [
            replace(one, state="done") if one.is_burn_in and self._begins_with[one.run.digest] <= trained else one
            for one in progress
        ]

    def _read_run(self, run: Run, folder: Path) -> RunProgress:
        end = suffix(self.study.checkpoints[0])
        log = self._logs.setdefault(folder, _Log(folder / LOG, self.study.report.model))
        log.update()
        ap = log.ap
        if not (folder / RUN).exists():
            training = is_held(folder)
            state = "training" if training else "stopped" if log.step else "waiting"
        elif run.method.label == BURN_IN:
            state = "done"
        elif not (folder / predictions_file(end)).exists():
            state = "trained"
        elif not (folder / metrics_file(end)).exists():
            state = "predicted"
        else:
            state = "done"
            with suppress(OSError, ValueError, KeyError):  # a broken file is named by the report
                ap = _number(json.loads((folder / metrics_file(end)).read_bytes())["segm"]["AP"])
        return RunProgress(run, folder, state, log.step, log.seconds, ap, self._takes_over.get(run.digest, 0))


def measured_step_seconds(runs: Iterable[RunProgress]) -> dict[Kind, float]:
    """Return the median seconds a step of each network and method that has a log."""
    measured: dict[Kind, list[float]] = {}
    for run in runs:
        if run.step and run.seconds:
            measured.setdefault(run.kind, []).append(run.seconds / run.step)
    return {kind: statistics.median(values) for kind, values in measured.items()}


def training_seconds_left(runs: list[RunProgress]) -> float | None:
    """Return the time until all runs are trained, if as many train at once as now; None before the first step.

    A network and method without a log counts as the mean of the others.
    """
    measured = measured_step_seconds(runs)
    if not measured:
        return 0.0 if all(run.is_trained for run in runs) else None
    mean = statistics.fmean(measured.values())
    left = [run.seconds_left({run.kind: mean, **measured}) or 0.0 for run in runs]
    at_once = max(1, sum(run.state == "training" for run in runs))
    return max([sum(left) / at_once, *left])


@dataclass
class _Log:
    """Hold what was read of a log.jsonl."""

    path: Path
    model: str
    step: int = 0
    seconds: float = 0.0
    ap: float | None = None

    def __post_init__(self) -> None:
        self._lines = NewLines(self.path)

    def update(self) -> None:
        """Read the new lines; a log that a resumed training wrote anew is read again."""
        anew, lines = self._lines.read()
        if anew:
            self.step, self.seconds, self.ap = 0, 0.0, None
        for line in _parse_last_step_and_evaluations(lines):
            if line["event"] == "step":
                self.step, self.seconds = int(line["step"]), float(line["seconds"])
            else:
                self.ap = _number(line.get(self.model, {}).get("segm_AP"))


def _parse_last_step_and_evaluations(lines: list[bytes]) -> Iterator[dict[str, Any]]:
    steps = [line for line in lines if line.startswith(STEP_LINE)]
    for text in (*steps[-1:], *(line for line in lines if line.startswith(EVALUATION_LINE))):
        with suppress(ValueError):  # a broken line is named by the report
            yield json.loads(text)


def _number(value: float | None) -> float | None:
    """Return an AP; None where it is undefined, as without an object."""
    return None if value is None or math.isnan(value) else float(value)
