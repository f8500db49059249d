"""Write the tables and figures of a study, and print the main table with what came out in words."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace

from pais_bench.cli import context, prepared


def add_arguments(parser: ArgumentParser) -> None:
    """Add the study and the results folder."""
    context.add_study(parser)
    context.add_results(parser)


def run(arguments: Namespace) -> int:
    """Write every report of the study; missing runs leave empty cells.

    Returns 2 where a report failed: it is named on stderr and on the page, and every other one is written.
    """
    from pais_bench.reports.answer import in_terminal
    from pais_bench.reports.results import Results  # pandas and matplotlib, which training environments lack
    from pais_bench.reports.write import ERRORS, write_reports

    study = context.read_study(arguments)
    results = Results.of(study, arguments.results)
    folder = arguments.results / "reports" / study.name
    prepared.require_own_report(study, arguments.study, arguments.results)
    prepared.record_writer(arguments.study, folder)
    written = write_reports(study, results, folder, arguments.study)
    for path in written.paths:
        print(path)
    if "main_table" not in written.failures:
        print(in_terminal(study, results, written.failures))
    for name, failure in written.failures.items():
        print(f"pais-bench report: error: {name} could not be written: {failure}", file=sys.stderr)
    if written.failures:
        print(f"every other report is written; {folder / ERRORS} has the tracebacks", file=sys.stderr)
    return 2 if written.failures else 0
