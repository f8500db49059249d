"""Evaluate predictions of another codebase for the tables of a study: a COCO results file and a YAML about it.

The YAML has the keys name, network, method, percent, fold, split_family (one of ours, or unknown), source, and
predictions, the path of the results file. The study lists the YAML under `external`; the workflow then runs this.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from pais_bench.annotations.sources import read_content
from pais_bench.annotations.store import dataset_folder
from pais_bench.cli import context
from pais_bench.errors import BenchError
from pais_bench.evaluation import evaluate
from pais_bench.evaluation.coco.check import have_masks
from pais_bench.evaluation.results_file import named_in_errors, read_records
from pais_bench.reports import external
from pais_bench.runs.files import metrics_file, predictions_file
from pais_bench.study.study import Study


def add_arguments(parser: ArgumentParser) -> None:
    """Add the study, the results folder, and the names of external predictions."""
    context.add_study(parser)
    context.add_results(parser)
    parser.add_argument("--name", action="append", help="name of external predictions (default: all)")


def run(arguments: Namespace) -> None:
    """Evaluate the predictions; raise BenchError for a name that the study lacks, or a file that does not fit."""
    study = context.read_study(arguments)
    known = {description.name: description for description in external.read_all(study)}
    names = arguments.name or list(known)
    if not known:
        raise BenchError(f"{arguments.study}: no external predictions; list the YAML that describes them in 'external'")
    for name in names:
        if name not in known:
            raise BenchError(f"{arguments.study}: no external predictions '{name}'; it has {', '.join(known)}")
    for name in names:
        metrics = evaluate_external(study, known[name], arguments.results)
        folder = arguments.results / known[name].folder(study.dataset.label)
        print(f"{folder}: mask AP {evaluate.in_percent(metrics['segm']['AP'])}, {known[name].source}")


def evaluate_external(study: Study, description: external.External, results: Path) -> dict[str, Any]:
    """Evaluate predictions like those of a run, and return the content of metrics.json.

    Writes predictions.json, a copy, bootstrap.json, errors.json and metrics.json into the folder of the predictions.
    """
    from pais_bench.evaluation.bootstrap_cache import BootstrapAP  # here, as --help loads every command
    from pais_bench.evaluation.error_cache import ErrorAnalysis

    records = read_records(description.predictions)
    store = context.open_store(study, results, "val")
    with named_in_errors(description.predictions):
        if not have_masks(records):
            raise BenchError("boxes alone, but the tables print mask AP; `pais-bench evaluate-file` measures box AP")
        metrics = evaluate.evaluate(study.metrics, store.coco_dict(), records, study.dataset.root)
    folder = results / description.folder(study.dataset.label)
    context.write_json(folder / predictions_file(), records)
    BootstrapAP(store).of(folder / predictions_file())
    ErrorAnalysis(store).content(folder / predictions_file())
    data = read_content(dataset_folder(results, study.dataset.label))
    content = {"external": description.description, "data": data, "images": len(store.image_ids), **metrics}
    context.write_json(folder / metrics_file(), content)
    return content
