"""Draw a figure of a study's report again from the CSV beside it, edited or not.

The name of the CSV selects the figure. Its rows may be edited or removed; methods that the study does not name are not
drawn.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from pais_bench import plugins
from pais_bench.cli import context
from pais_bench.errors import BenchError, NothingToShow


def add_arguments(parser: ArgumentParser) -> None:
    """Add the study, the CSV, and the folder of the figure."""
    context.add_study(parser)
    parser.add_argument("csv", metavar="CSV", type=Path, help="CSV of a figure, such as reports/demo/convergence.csv")
    parser.add_argument("--out", type=Path, help="folder of the figure (default: the folder of the CSV)")


def run(arguments: Namespace) -> None:
    """Draw the figure; raise BenchError where no figure has this CSV."""
    study, csv = context.read_study(arguments), arguments.csv
    names = plugins.names("reports")
    plugin = plugins.load("reports", csv.stem) if csv.stem in names else None
    redraw = getattr(plugin.Report(), "redraw", None) if plugin else None
    if redraw is None:
        figures = (name for name in names if hasattr(plugins.load("reports", name).Report, "redraw"))
        raise BenchError(f"{csv}: no figure has a CSV of this name; the figures are {', '.join(figures)}")
    out = arguments.out or csv.parent
    out.mkdir(parents=True, exist_ok=True)
    try:
        paths = redraw(study, csv, out)
    except NothingToShow as error:
        raise BenchError(f"{csv}: {error}; take the CSV of this study's report") from error
    for path in paths:
        print(path)
