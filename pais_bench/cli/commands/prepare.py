"""Read the raw data of a study's dataset, check it, and write its annotation store."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from pais_bench import plugins
from pais_bench.annotations.store import dataset_folder
from pais_bench.cli import context


def add_arguments(parser: ArgumentParser) -> None:
    """Add the study, the results folder and --repair."""
    context.add_study(parser)
    context.add_results(parser)
    parser.add_argument("--repair", action="store_true", help="drop faulty records of a dataset, and list them")


def run(arguments: Namespace) -> None:
    """Write the store; raise BenchError for faulty data."""
    choice = context.read_study(arguments).dataset
    plugin, folder = plugins.load("datasets", choice.name), dataset_folder(arguments.results, choice.label)
    dataset = plugin.Dataset(plugin.Options(**choice.options), choice.root)
    dataset.prepare(folder, choice.label, repair=arguments.repair, progress=context.print_progress)
    context.print_progress(f"{folder}: prepared")
