"""Which verbs are there? The workflow's six rules, wired to the parts here, and one for every file of verbs/."""

from __future__ import annotations

import argparse
import json
import os
import select
import shlex
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pais_bench import faults, plugins, provenance
from pais_bench.arguments import parser
from pais_bench.config import Run, Study, Weights, suffix
from pais_bench.interruption import INTERRUPTED, Interrupted, obey, requeue
from pais_bench.lock import alone
from pais_bench.study_file import load_study
from pais_bench.types import BenchError


def prepare(study: Study, results: Path, arguments: argparse.Namespace) -> None:
    """Turn the raw data of a dataset into its store."""
    plugin, choice = plugins.load("datasets", study.dataset.name), study.dataset
    folder = _dataset(study, results)
    dataset = plugin.Dataset(plugin.Options(**choice.options), choice.root)
    dataset.prepare(folder, choice.label, repair=arguments.repair, tell=_say)
    _say(f"{folder}: prepared")


def split(study: Study, results: Path, arguments: argparse.Namespace) -> None:
    """Draw the labelled images of one percent and fold."""
    from pais_bench import splits

    run = _run(study, arguments)
    path = _split(run, results)
    store = _store(study, results, "train")
    store.verify()
    drawn = splits.draw_split(store, run.dataset, run.split, study.split.source)
    splits.write_split(path, drawn)
    _say(f"{path}: {drawn.told}")


def train(study: Study, results: Path, arguments: argparse.Namespace) -> int:
    """Train one run, or go on with it; write run.json when it is complete."""
    obey(lambda: sys.exit(INTERRUPTED))
    import torch
    from lightning_fabric import Fabric

    from pais_bench import engine, shares
    from pais_bench.store import Store

    provenance.require_versions(arguments.locked)
    run = _run(study, arguments)
    stores = {part: _store(study, results, part) for part in Store.parts(_dataset(study, results))}
    labelled = _read_split(run, results, stores["train"])
    torch.set_num_threads(arguments.threads)
    _ignore_srun_hint()
    fabric = Fabric(
        accelerator=arguments.accelerator,
        devices=arguments.devices,
        num_nodes=arguments.nodes,
        precision=run.training.precision,
        strategy=shares.strategy(arguments.devices * arguments.nodes),
    )
    fabric.launch()
    folder = results / run.folder
    with alone(folder, fabric) as lock:
        best = [weights.partition("-")[0] for weights in study.weights if weights.endswith("best")]
        trainer = engine.Trainer(run, stores, labelled, folder, fabric, results, best, lock.check, arguments.accumulate)
        name = f"{run.method.label} {run.split.stem} {run.network.label}"
        if trainer.fault:
            _say(f"{name}: {trainer.fault}; going on from the one before it")
        steps = f"step {trainer.step} of {run.training.steps}"
        _say(f"{name}: {len(labelled.ids)} of {labelled.pool} images labelled, {steps}")
        obey(lambda: setattr(trainer, "stopping", True))
        try:
            trainer.fit(arguments.workers, progress=lambda line: _tell(name, run, line))
        except Interrupted as error:
            again = fabric.is_global_zero and requeue()
            _say(f"{name}: {error}{'; SLURM has it in the queue again' if again else ''}")
            return INTERRUPTED
        if fabric.is_global_zero:
            device = torch.cuda.get_device_name() if fabric.device.type == "cuda" else fabric.device.type
            _write_json(
                folder / "run.json",
                {
                    "run": run.model_dump(mode="json"),
                    "digest": run.digest,
                    "commit": provenance.commit(),
                    "versions": provenance.versions(),
                    "split": labelled.summary(),
                    "hardware": provenance.hardware(device, fabric.world_size, arguments.threads),
                    "wall_seconds": round(trainer.seconds, 3),
                    "steps": trainer.step,
                },
            )
            runs = study.runs()
            done = sum((results / one.folder / "run.json").exists() for one in runs)
            _say(f"{name}: trained; {done} of {len(runs)} runs done, {len(runs) - done} left")
    return 0


def predict(study: Study, results: Path, arguments: argparse.Namespace) -> None:
    """Predict the validation images with a trained run."""
    import torch
    from lightning_fabric import Fabric

    from pais_bench import inference, panels

    provenance.require_versions(arguments.locked)
    run, weights = _run(study, arguments), _weights(study, arguments)
    store, folder = _store(study, results, "val"), results / run.folder
    torch.set_num_threads(arguments.threads)
    _ignore_srun_hint()
    fabric = Fabric(accelerator=arguments.accelerator, devices=1, precision=run.training.precision)
    backend = inference.load_trained(run, len(store.categories), folder, weights).to(fabric.device)
    with fabric.autocast():
        records = inference.predict(backend, run, store, store.image_ids, fabric.device)
        looked = panels.look(run, store, folder, weights, fabric.device)
    _write_json(folder / f"panels{suffix(weights)}.json", looked)
    path = folder / f"predictions{suffix(weights)}.json"
    _write_json(path, records)
    _say(f"{path}: {len(records)} instances on {len(store.image_ids)} images")


def evaluate(study: Study, results: Path, arguments: argparse.Namespace) -> None:
    """Measure a run's predictions with every metric of the study."""
    from pais_bench import evaluation
    from pais_bench.draws import Draws

    run, weights = _run(study, arguments), _weights(study, arguments)
    store, folder = _store(study, results, "val"), results / run.folder
    predictions = folder / f"predictions{suffix(weights)}.json"
    found = evaluation.measure(study.metrics, store.coco_dict(), _read_json(predictions), study.dataset.root)
    if weights == study.weights[0]:
        Draws(store).of(predictions)
    path = folder / f"metrics{suffix(weights)}.json"
    model, _, moment = weights.partition("-")
    about = {"digest": run.digest, "model": model, "checkpoint": moment, "images": len(store.image_ids)}
    _write_json(path, {**about, **found})
    _say(f"{path}: mask AP {100 * (found['segm']['AP'] or 0):.1f}")


def report(study: Study, results: Path, arguments: argparse.Namespace) -> None:
    """Write the tables and figures of whatever is measured, and print the main table."""
    from pais_bench.reporting import write_reports
    from pais_bench.results import Results

    measured = Results.of(study, results)
    written = write_reports(study, measured, results / "reports" / study.name, arguments.study)
    for path in written:
        print(path)
    print(plugins.load("reports", "main_table").terminal_table(study, measured))


Verb = Callable[[Study, Path, argparse.Namespace], int | None]
VERBS: dict[str, Verb] = {
    "prepare": prepare,
    "split": split,
    "train": train,
    "predict": predict,
    "evaluate": evaluate,
    "report": report,
}


def main(words: Sequence[str] | None = None) -> int:
    """Run one verb; 0 when it is done, 85 when it is to be continued, 2 after a message about a fault.

    1 without a word where the reader of its output has gone, as `head` does.
    """
    words = sys.argv[1:] if words is None else words
    try:
        status = _main(words)
        sys.stdout.flush()
    except BrokenPipeError:
        if not _reader_has_gone():
            raise  # another pipe, such as one to a loader's process
        # What is still in the buffer would be written, and fail again, when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


def _reader_has_gone() -> bool:
    output = select.poll()
    output.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in output.poll(0))


def _main(words: Sequence[str]) -> int:
    arguments = parser(__doc__, VERBS).parse_args(words)
    try:
        if arguments.verb not in VERBS:
            return arguments.run(arguments) or 0
        return VERBS[arguments.verb](load_study(arguments.study), arguments.results, arguments) or 0
    except (BenchError, OSError, MemoryError, RuntimeError) as error:
        fault = str(error) if isinstance(error, BenchError) else faults.told(error)
        if fault is None:
            raise
    print(f"pais-bench {arguments.verb}: error: {fault}", file=sys.stderr)
    if arguments.verb == "train":
        again = shlex.join([sys.executable, "-m", "pais_bench", *words])
        print(f"when that is mended, this goes on from the last checkpoint: {again}", file=sys.stderr)
    return 2


def _ignore_srun_hint() -> None:
    """Leave out what Fabric says wherever SLURM is installed: srun starts several GPUs where that is wanted."""
    warnings.filterwarnings("ignore", "The `srun` command is available on your system but is not used")


def _run(study: Study, arguments: argparse.Namespace) -> Run:
    """Find the run that the arguments name; a split is common to all networks and methods."""
    asked = {"percent": arguments.percent, "fold": arguments.fold}
    known: dict[str, Sequence[Any]] = {"percent": study.split.percents, "fold": study.split.folds}
    asked["network"] = getattr(arguments, "network", next(iter(study.networks)))
    asked["method"] = getattr(arguments, "method", next(iter(study.methods)))
    known |= {"network": list(study.networks), "method": list(study.methods)}
    for key, value in asked.items():
        if value not in known[key]:
            raise BenchError(
                f"--{key} {value}: not in study '{study.name}'; choose one of {', '.join(map(str, known[key]))}"
            )
    return study.run(**asked)


def _weights(study: Study, arguments: argparse.Namespace) -> Weights:
    asked: Weights = arguments.weights or study.weights[0]
    if asked not in study.weights:
        known = ", ".join(study.weights)
        raise BenchError(f"--weights {asked}: not in study '{study.name}', which has {known}; add it to 'also'")
    return asked


def _dataset(study: Study, results: Path) -> Path:
    from pais_bench.store import dataset_folder

    return dataset_folder(results, study.dataset.label)


def _split(run: Run, results: Path) -> Path:
    from pais_bench import splits

    return splits.split_path(results, run.dataset, run.split)


def _store(study: Study, results: Path, part: str) -> Any:
    from pais_bench.store import Store

    return Store.open(_dataset(study, results), part)


def _read_split(run: Run, results: Path, store: Any) -> Any:
    from pais_bench import splits

    found = splits.read_split(_split(run, results))
    splits.check_split(found, store, run.split)
    return found


def _tell(name: str, run: Run, line: dict[str, Any]) -> None:
    if line["event"] == "evaluation":
        aps = ", ".join(
            f"{model} mask AP {100 * (line[model]['segm_AP'] or 0):.1f}" for model in ("teacher", "student")
        )
        _say(f"{name}: step {line['step']} of {run.training.steps}, {aps}")


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        raise BenchError(f"{path}: missing; run the verb before this one first") from None
    except ValueError as error:
        raise BenchError(
            f"{path}: not valid JSON ({error}); delete it and run the verb before this one again"
        ) from error


def _write_json(path: Path, content: Any) -> None:
    from pais_bench.store import write_text

    write_text(path, json.dumps(content) + "\n")
