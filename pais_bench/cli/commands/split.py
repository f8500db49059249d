"""Draw the labelled images of one percent and fold."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from pais_bench.cli import context
from pais_bench.splits.draw import draw_split
from pais_bench.splits.split import require_objects, split_path, write_split


def add_arguments(parser: ArgumentParser) -> None:
    """Add the study, the results folder, percent and fold."""
    context.add_study(parser)
    context.add_results(parser)
    context.add_split(parser)


def run(arguments: Namespace) -> None:
    """Write the split; raise BenchError where the family cannot draw it, or it has no object."""
    study = context.read_study(arguments)
    choice = context.find_split(study, arguments)
    store = context.open_store(study, arguments.results, "train")
    store.verify()
    split = draw_split(store, study.dataset.label, choice, study.split.source)
    require_objects(split, store)
    path = split_path(arguments.results, study.dataset.label, choice)
    write_split(path, split)
    context.print_progress(f"{path}: {split.description}")
