"""Train one run, or continue it from its last checkpoint; run.json is written when it is complete."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from pais_bench import provenance
from pais_bench.annotations.sources import read_classes, read_content
from pais_bench.annotations.store import dataset_folder
from pais_bench.cli import context, prepared
from pais_bench.errors import BenchError
from pais_bench.evaluation.evaluate import in_percent
from pais_bench.runs import trained_data
from pais_bench.runs.files import RUN
from pais_bench.runs.job_log import CONTINUE
from pais_bench.study.resources import ViewsOn, resources_for
from pais_bench.study.run import Run
from pais_bench.study.study import Study
from pais_bench.training.lock import lock_folder
from pais_bench.training.preemption import INTERRUPTED, Interrupted, end_with_parent, on_signal, requeue

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from pais_bench.splits.split import Split
    from pais_bench.training.trainer import Trainer


def add_arguments(parser: ArgumentParser) -> None:
    """Add the run and the devices, which change no number."""
    context.add_run(parser)
    burn_in = "train the burn-in of the run alone, for all runs that begin with it"
    parser.add_argument("--burn-in", action="store_true", help=burn_in)
    context.add_torch(parser)
    parser.add_argument("--devices", type=context.at_least(1), default=1, help="devices per node (default: 1)")
    parser.add_argument("--nodes", type=context.at_least(1), default=1, help="nodes (default: 1)")
    accumulate = "micro-batches of a device's batch: less memory, the same step (default: the study's, or 1)"
    parser.add_argument("--accumulate", type=context.at_least(1), help=accumulate)
    context.add_workers(parser)
    context.add_gpus(parser)
    views_on = "what makes views: cpu, device, or auto: the device where it is a GPU (default: the study's, or auto)"
    parser.add_argument("--views-on", choices=get_args(ViewsOn), help=views_on)


def run(arguments: Namespace) -> int:
    """Train; return 85 where a signal stopped the run, with everything saved."""
    on_signal(_stop_before_training)
    context.claim_named_gpus(arguments, arguments.devices)  # before torch looks for GPUs
    import torch

    from pais_bench.training.trainer import Trainer

    provenance.require_versions(arguments.locked)
    study, results = context.read_study(arguments), arguments.results
    run = _find_run(study, arguments)
    stores, content = prepared.open_stores(study, results), read_content(dataset_folder(results, study.dataset.label))
    split = context.read_checked_split(run.dataset, run.split, results, stores["train"])
    torch.set_num_threads(arguments.threads)
    torch.set_float32_matmul_precision(run.training.matmul_precision)
    if run.teacher:
        prepared.require_trained(run.teacher, results)
    fabric = _launch(arguments, run)
    folder = results / run.folder
    name = f"{run.method.label} {run.split.stem} {run.network.label}"
    with lock_folder(folder, fabric) as lock:
        said = trained_data.enter(folder, content) if fabric.is_global_zero else ""
        if said:
            context.print_progress(f"{name}: {said}")
        fabric.barrier()
        resources = resources_for(study.resources, "train")
        trainer = Trainer(
            run,
            stores,
            split,
            folder,
            fabric,
            results,
            best=study.best_models,
            guard=lock.check,
            micro_batches=arguments.accumulate or resources.accumulate or 1,
            views_on=arguments.views_on or resources.views_on or "auto",
            burn_in=prepared.find_burn_in(study, run, results),
        )
        if trainer.fault:
            context.print_progress(f"{name}: {trainer.fault}; continuing from the one before it")
        steps = f"step {trainer.step} of {run.training.steps}"
        context.print_progress(f"{name}: {len(split.ids)} of {split.pool} images labelled, {steps}")
        on_signal(lambda: setattr(trainer, "stopping", True))
        try:
            sharing = max(arguments.devices, len(arguments.gpus))
            workers = context.count_workers(arguments, fabric.device.type, sharing)
            trainer.fit(workers, progress=lambda line: _print_evaluation(name, run, line))
        except Interrupted as error:
            requeued = fabric.is_global_zero and requeue()
            context.print_progress(f"{name}: {error}{'; SLURM has requeued the job' if requeued else ''}")
            return INTERRUPTED
        if fabric.is_global_zero:
            _write_run(folder, run, trainer, split, content)
            context.print_progress(f"{name}: trained; {_count_trained(study, results)}")
    return 0


def _find_run(study: Study, arguments: Namespace) -> Run:
    """Return the run that the arguments name, or its burn-in."""
    run = context.find_run(study, arguments)
    if not arguments.burn_in:
        return run
    if run.burn_in is None:
        raise BenchError(f"--burn-in: methods.{run.method.label} has none; set training.burn_in")
    return run.burn_in


def _stop_before_training() -> None:
    context.print_progress(f"stopped before a step was taken; {CONTINUE}")
    sys.exit(INTERRUPTED)


def _launch(arguments: Namespace, run: Run) -> Fabric:
    """Start the processes of the training; each continues from here."""
    from lightning_fabric import Fabric

    from pais_bench.training.distributed import strategy

    context.quieten_fabric()
    fabric = Fabric(
        accelerator=arguments.accelerator,
        devices=arguments.devices,
        num_nodes=arguments.nodes,
        precision=run.training.precision,
        strategy=strategy(arguments.devices * arguments.nodes),
    )
    fabric.launch()
    if fabric.local_rank:
        end_with_parent()
    return fabric


def _write_run(folder: Path, run: Run, trainer: Trainer, split: Split, content: str | None) -> None:
    """Write run.json; of a run that was trained before, and took no step here, it says what trained it then."""
    record = {
        "run": run.model_dump(mode="json"),
        "digest": run.digest,
        **trainer.trained_by,
        "split": split.summary(),
        "classes": read_classes(dataset_folder(trainer.results, run.dataset)),
        "data": content,
        "begun_with": trainer.begun_with,
        "wall_seconds": round(trainer.seconds, 3),
        "steps": trainer.step,
    }
    context.write_json(folder / RUN, record)


def _count_trained(study: Study, results: Path) -> str:
    runs = study.runs()
    done = sum((results / run.folder / RUN).exists() for run in runs)
    return f"{done} of {len(runs)} runs done, {len(runs) - done} left"


def _print_evaluation(name: str, run: Run, line: dict[str, Any]) -> None:
    if line["event"] == "evaluation":
        ap = {model: in_percent(line[model]["segm_AP"]) for model in ("teacher", "student")}
        models = ", ".join(f"{model} mask AP {text}" for model, text in ap.items())
        context.print_progress(f"{name}: step {line['step']} of {run.training.steps}, {models}")
