"""Read the raw data of a study's dataset, check it, and write its annotation store."""

from __future__ import annotations

import contextlib
from argparse import ArgumentParser, BooleanOptionalAction, Namespace

from pais_bench import plugins
from pais_bench.annotations import sources
from pais_bench.annotations.store import dataset_folder
from pais_bench.cli import context, prepared
from pais_bench.evaluation import evaluate
from pais_bench.images.files import RESULTS_MARK
from pais_bench.optional_packages import MissingPackage


def add_arguments(parser: ArgumentParser) -> None:
    """Add the study, the results folder, --repair and --verify-images."""
    context.add_study(parser)
    context.add_results(parser)
    parser.add_argument("--repair", action="store_true", help="drop or correct faulty records, and list them")
    parser.add_argument(
        "--verify-images",
        action=BooleanOptionalAction,
        help="decode every image to find damaged ones (default: of datasets up to 20,000 images)",
    )


def run(arguments: Namespace) -> None:
    """Write the store; raise BenchError for faulty data, and for a label that another root has."""
    study = context.read_study(arguments)
    choice, folder = study.dataset, dataset_folder(arguments.results, study.dataset.label)
    dataset = plugins.build("datasets", choice.name, choice.options, choice.root)
    origin, hashes = prepared.read_present(choice, folder)
    prepared.require_own_label(choice, arguments.results, origin)
    dataset.prepare(
        folder,
        choice.label,
        repair=arguments.repair,
        progress=context.print_progress,
        verify_images=arguments.verify_images,
    )
    (arguments.results / RESULTS_MARK).touch()
    sources.record(folder, origin, hashes)
    with contextlib.suppress(MissingPackage):  # `evaluate` may run in another environment
        evaluate.require(study.metrics, sources.read_classes(folder))
    context.print_progress(f"{folder}: prepared")
