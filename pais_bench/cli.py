"""Which verbs are there? The workflow's six rules, wired to the parts here, and one for every file of verbs/."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pais_bench import __version__, plugins, provenance
from pais_bench.config import Run, Study, Weights, suffix
from pais_bench.study_file import load_study, shipped
from pais_bench.types import BenchError

INTERRUPTED = 85
"""Exit code of a training that saved and stopped before its last step: the same command goes on."""

EXAMPLES = """examples, in the order of the workflow (a study is a YAML file or the name of a shipped one):
  pais-bench prepare  demo
  pais-bench split    demo --percent 10 --fold 1
  pais-bench train    demo --percent 10 --fold 1 --network mask_rcnn --method pais
  pais-bench predict  demo --percent 10 --fold 1 --network mask_rcnn --method pais
  pais-bench evaluate demo --percent 10 --fold 1 --network mask_rcnn --method pais
  pais-bench report   demo

all of them at once, in parallel and only what is missing:
  snakemake --workflow-profile profiles/local --config study=demo
"""


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
    import torch
    from lightning_fabric import Fabric

    from pais_bench import engine
    from pais_bench.store import Store

    run = _run(study, arguments)
    stores = {part: _store(study, results, part) for part in Store.parts(_dataset(study, results))}
    labelled = _read_split(run, results, stores["train"])
    torch.set_num_threads(arguments.threads)
    fabric = Fabric(
        accelerator=arguments.accelerator,
        devices=arguments.devices,
        num_nodes=arguments.nodes,
        precision=run.training.precision,
    )
    fabric.launch()
    folder = results / run.folder
    folder.mkdir(parents=True, exist_ok=True)
    best = [weights.partition("-")[0] for weights in study.weights if weights.endswith("best")]
    trainer = engine.Trainer(run, stores, labelled, folder, fabric, results, best)

    def stop(number: int, frame: object) -> None:
        trainer.stopping = True

    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, stop)
    name = f"{run.method.label} {run.split.stem} {run.network.label}"
    _say(f"{name}: {len(labelled.ids)} of {labelled.pool} images labelled, step {trainer.step} of {run.training.steps}")
    try:
        trainer.fit(arguments.workers, progress=lambda line: _tell(name, run, line))
    except engine.Interrupted as error:
        _say(f"{name}: {error}")
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

    run, weights = _run(study, arguments), _weights(study, arguments)
    store, folder, printed = _store(study, results, "val"), results / run.folder, weights == study.weights[0]
    torch.set_num_threads(arguments.threads)
    fabric = Fabric(accelerator=arguments.accelerator, devices=1, precision=run.training.precision)
    backend = inference.load_trained(run, len(store.categories), folder, weights).to(fabric.device)
    with fabric.autocast():
        records = inference.predict(backend, run, store, store.image_ids, fabric.device)
        looked = panels.look(run, store, folder / "checkpoint.pt", fabric.device) if printed else None
    if looked is not None:
        _write_json(folder / "panels.json", looked)
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
    print(plugins.load("reports", "main_table").terminal_table(study, measured))
    for path in written:
        print(path)


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
    """Run one verb; 0 when it is done, 85 when it is to be continued, 2 after a message about a fault."""
    arguments = _parser().parse_args(words)
    try:
        if arguments.verb not in VERBS:
            return arguments.run(arguments) or 0
        return VERBS[arguments.verb](load_study(arguments.study), arguments.results, arguments) or 0
    except BenchError as error:
        print(f"pais-bench {arguments.verb}: error: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pais-bench", description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        one = verbs.add_parser(name, help=verb.__doc__, description=verb.__doc__)
        one.add_argument("study", metavar="STUDY", help=f"path of a study file, or one of {shipped()}")
        one.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")
        if name not in ("prepare", "report"):
            one.add_argument("--percent", type=float, required=True, help="percent of the images that is labelled")
            one.add_argument("--fold", type=int, required=True, help="fold, which is also the seed")
        if name == "prepare":
            one.add_argument("--repair", action="store_true", help="drop faulty records of a dataset, and list them")
        if name in ("train", "predict", "evaluate"):
            one.add_argument("--network", required=True, help="label of a network in the study")
            one.add_argument("--method", required=True, help="label of a method in the study")
        if name in ("predict", "evaluate"):
            one.add_argument("--weights", help="teacher-last, student-best, ... (default: what the tables print)")
        if name in ("train", "predict"):
            one.add_argument("--threads", type=int, default=1, help="CPU threads of torch (default: 1)")
            one.add_argument("--accelerator", default="auto", help="cpu, cuda, mps, or auto (default)")
        if name == "train":
            one.add_argument("--devices", type=int, default=1, help="devices per node (default: 1)")
            one.add_argument("--nodes", type=int, default=1, help="nodes (default: 1)")
            one.add_argument("--workers", type=int, default=0, help="loader processes; changes no number (default: 0)")
    for name in plugins.names("verbs"):
        plugin = plugins.load("verbs", name)
        told = (plugin.__doc__ or "").strip()
        one = verbs.add_parser(name.replace("_", "-"), help=told.splitlines()[0], description=told)
        plugin.add_arguments(one)
        one.set_defaults(run=plugin.run)
    return parser


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
