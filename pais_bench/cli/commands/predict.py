"""Predict the validation images with a trained run."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from pais_bench import provenance
from pais_bench.cli import context
from pais_bench.cli.prepared import require_trained
from pais_bench.runs.files import examples_file, predictions_file
from pais_bench.study.run import suffix


def add_arguments(parser: ArgumentParser) -> None:
    """Add run, checkpoint, torch settings and loader processes."""
    context.add_run(parser)
    context.add_checkpoint(parser)
    context.add_torch(parser)
    context.add_workers(parser)
    context.add_gpus(parser)


def run(arguments: Namespace) -> None:
    """Write predictions.json (COCO results) and examples.json; raise BenchError where the run is not trained."""
    context.claim_named_gpus(arguments, 1)  # before torch looks for GPUs
    from pais_bench.training import examples
    from pais_bench.training.networks import load_trained
    from pais_bench.training.predict import predict

    provenance.require_versions(arguments.locked)
    study = context.read_study(arguments)
    run, checkpoint = context.find_run(study, arguments), context.find_checkpoint(study, arguments)
    store, folder = context.open_store(study, arguments.results, "val"), arguments.results / run.folder
    require_trained(run, arguments.results)
    fabric = context.one_device(arguments, run)
    backend = load_trained(run, store.isthing, folder, checkpoint).to(fabric.device)
    with fabric.autocast():
        workers = context.count_workers(arguments, fabric.device.type, max(1, len(arguments.gpus)))
        records = predict(backend, run, store, store.image_ids, fabric.device, workers)
        example_records = examples.predict_examples(run, store, folder, checkpoint, fabric.device)
    context.write_json(folder / examples_file(suffix(checkpoint)), example_records)
    path = folder / predictions_file(suffix(checkpoint))
    context.write_json(path, records)
    context.print_progress(f"{path}: {len(records)} instances on {len(store.image_ids)} images")
