"""Say what is done of a study, and what the rest will cost, for the commands that print it: plan, run and doctor."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path

from pais_bench import plugins
from pais_bench.cli import prepared
from pais_bench.study.resources import resources_for
from pais_bench.study.run import Run
from pais_bench.study.study import Study
from pais_bench.workflow.progress import Progress, RunProgress, measured_step_seconds


def plan(study: Study, results: Path) -> Iterator[str]:
    """Yield the lines of the plan of a study."""
    trainings = Progress(study, results).read()
    runs = [training for training in trainings if not training.is_burn_in]
    trained = [run for run in runs if run.is_trained]
    predicted, evaluated = (sum(run.state in states for run in runs) for states in (("predicted", "done"), ("done",)))
    started = sum(run.step > 0 and not run.is_trained for run in runs)
    done = f"{len(trained)} trained, {predicted} predicted, {evaluated} evaluated"
    yield f"{study.name}: {len(runs)} runs; {done}, {started} started"
    if burn_ins := [training for training in trainings if training.is_burn_in]:
        ready = sum(burn_in.is_trained for burn_in in burn_ins)
        yield f"  burn-ins that runs of a split share: {ready} of {len(burn_ins)} trained"

    step_seconds = measured_step_seconds(trainings)
    left = {training.run.digest: training.seconds_left(step_seconds) for training in trainings}
    for (network, method), seconds in sorted(step_seconds.items()):
        yield f"  {network} {method}: {1000 * seconds:.0f} ms a step, measured"
    unknown = sorted({" ".join(training.kind) for training in trainings if left[training.run.digest] is None})
    if unknown:
        yield f"  unknown step time, no run is logged yet: {', '.join(unknown)}"
    yield from _method_costs(runs)

    devices = resources_for(study.resources, "train").devices
    known = [seconds for seconds in left.values() if seconds is not None]
    rest = "" if len(known) == len(left) else f", and {len(left) - len(known)} trainings of unknown step time"
    longest = max((_chain_seconds(training.run, left) for training in trainings), default=0.0)
    yield f"device hours left: {devices * sum(known) / 3600:.1f}{rest}" if known else "device hours left: unknown"
    if known:
        yield f"longest chain left: {longest / 3600:.1f} hours on any number of devices"
    mean = mean_disk(trainings)
    if mean is not None:
        total = f"{len(trainings) * mean / 1e9:.2f} GB at the end, by the {len(trained)} trained runs"
        yield f"disk: {sum(_disk(training.folder) for training in trainings) / 1e9:.2f} GB now, {total}"
    else:
        yield "disk: unknown, no run is trained yet"
    if len(trained) < len(runs):
        yield from (f"weights: {line}" for line in prepared.absent_weights(study))


def mean_disk(trainings: Iterable[RunProgress]) -> float | None:
    """Return the mean size of the trained runs, in bytes; None where none is trained."""
    sizes = [_disk(training.folder) for training in trainings if training.is_trained and not training.is_burn_in]
    return statistics.fmean(sizes) if sizes else None


def _method_costs(runs: Iterable[RunProgress]) -> Iterator[str]:
    """Yield what methods add to the cost of the steps that are left with unlabelled images, a line for each method."""
    images: dict[str, int] = {}
    methods = {}
    for progress in runs:
        training, method = progress.run.training, progress.run.method
        steps = 0 if progress.is_trained else max(0, training.steps - max(progress.step, training.burn_in))
        images[method.label] = images.get(method.label, 0) + steps * training.unlabelled_batch_size
        methods[method.label] = method
    for label, method in methods.items():
        cost = plugins.build("methods", method.name, method.options).describe_cost(images[label])
        if cost and images[label]:
            yield f"  {label}: {cost}"


def _disk(folder: Path) -> int:
    """Return the bytes of the files of a run."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.is_file()) if folder.is_dir() else 0


def _chain_seconds(run: Run, left: dict[str, float | None]) -> float:
    """Return the seconds that are left of a run's training, and of its burn-in and its teachers' before it."""
    before = [other for other in (run.teacher, run.burn_in) if other is not None]
    return (left.get(run.digest) or 0.0) + max((_chain_seconds(other, left) for other in before), default=0.0)
