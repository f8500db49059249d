"""Evaluate a run's predictions with every metric of the study."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from pais_bench.cli import context
from pais_bench.cli.prepared import require_trained
from pais_bench.runs.files import metrics_file, predictions_file
from pais_bench.study.run import suffix


def add_arguments(parser: ArgumentParser) -> None:
    """Add run and checkpoint."""
    context.add_run(parser)
    context.add_checkpoint(parser)


def run(arguments: Namespace) -> None:
    """Write metrics.json, the analysis of errors and the bootstrap samples of AP.

    Raises BenchError where there are no predictions, and for a record that does not fit the images.
    """
    from pais_bench.evaluation.bootstrap_cache import BootstrapAP  # scipy takes a second to import
    from pais_bench.evaluation.error_cache import ErrorAnalysis
    from pais_bench.evaluation.evaluate import evaluate, in_percent
    from pais_bench.evaluation.results_file import as_records, named_in_errors

    study = context.read_study(arguments)
    run, checkpoint = context.find_run(study, arguments), context.find_checkpoint(study, arguments)
    store, folder = context.open_store(study, arguments.results, "val"), arguments.results / run.folder
    require_trained(run, arguments.results)
    predictions = folder / predictions_file(suffix(checkpoint))
    records = as_records(predictions, context.read_json(predictions))
    with named_in_errors(predictions):
        metrics = evaluate(study.metrics, store.coco_dict(), records, study.dataset.root)
    ErrorAnalysis(store).content(predictions)
    if checkpoint == study.checkpoints[0]:
        BootstrapAP(store).of(predictions)
    path = folder / metrics_file(suffix(checkpoint))
    model, _, moment = checkpoint.partition("-")
    header = {"digest": run.digest, "model": model, "checkpoint": moment, "images": len(store.image_ids)}
    context.write_json(path, {**header, **metrics})
    context.print_progress(f"{path}: mask AP {in_percent(metrics['segm']['AP'])}")
