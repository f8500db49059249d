"""Print what is done of a study, and what the rest will cost: device hours, the longest chain, disk.

Times are measured, from the logs of this study's runs with the same network and method; where there is no log yet, they
are unknown.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from pais_bench.cli import context, prepared
from pais_bench.cli.plan import plan


def add_arguments(parser: ArgumentParser) -> None:
    """Add the study and the results folder."""
    context.add_study(parser)
    context.add_results(parser)


def run(arguments: Namespace) -> None:
    """Print the plan; raise BenchError for what would stop the study after its first job."""
    study = context.read_study(arguments)
    prepared.require_before_jobs(study, arguments.study, arguments.results)
    for line in plan(study, arguments.results):
        print(line)
