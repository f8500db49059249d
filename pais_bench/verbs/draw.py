"""Draw a figure again from the CSV beside it, edited or not, as a study's report draws it.

The name of the CSV says which figure it is. Its rows may be edited or left out; methods that the study does not name
are not drawn.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from pais_bench import plugins
from pais_bench.study_file import load_study
from pais_bench.types import BenchError


def add_arguments(parser: ArgumentParser) -> None:
    """Name the study, the CSV, and where the figure goes."""
    parser.add_argument("study", metavar="STUDY", help="study whose methods, networks and percents the figure shows")
    parser.add_argument("csv", metavar="CSV", type=Path, help="CSV of a figure, such as reports/demo/convergence.csv")
    parser.add_argument("--out", type=Path, help="folder of the figure (default: the folder of the CSV)")


def run(arguments: Namespace) -> None:
    """Draw; raise BenchError where the CSV is none of a figure."""
    study, csv = load_study(arguments.study), arguments.csv
    names = plugins.names("reports")
    plugin = plugins.load("reports", csv.stem) if csv.stem in names else None
    redraw = getattr(plugin.Report(), "redraw", None) if plugin else None
    if redraw is None:
        figures = (name for name in names if hasattr(plugins.load("reports", name).Report, "redraw"))
        raise BenchError(f"{csv}: its name is none of a figure's CSV; the figures are {', '.join(figures)}")
    out = arguments.out or csv.parent
    out.mkdir(parents=True, exist_ok=True)
    for path in redraw(study, csv, out):
        print(path)
