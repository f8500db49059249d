"""Write the tables and figures of a study, and print the main table."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from pais_bench import plugins
from pais_bench.cli import context


def add_arguments(parser: ArgumentParser) -> None:
    """Add the study and the results folder."""
    context.add_study(parser)
    context.add_results(parser)


def run(arguments: Namespace) -> None:
    """Write every report of the study; missing runs leave empty cells."""
    from pais_bench.reports.results import Results  # pandas and matplotlib, which training environments lack
    from pais_bench.reports.write import write_reports

    study = context.read_study(arguments)
    results = Results.of(study, arguments.results)
    for path in write_reports(study, results, arguments.results / "reports" / study.name, arguments.study):
        print(path)
    print(plugins.load("reports", "main_table").terminal_table(study, results))
