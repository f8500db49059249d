"""Print how many labelled images the splits of all families share, on the prepared dataset of a study."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence

from pais_bench import plugins
from pais_bench.cli import context
from pais_bench.errors import BenchError
from pais_bench.splits.draw import draw
from pais_bench.splits.family import ImagePool
from pais_bench.study.split import IMPORTED


def add_arguments(parser: ArgumentParser) -> None:
    """Add the study, the results folder, percents, folds, and published files."""
    context.add_study(parser)
    context.add_results(parser)
    parser.add_argument("--percents", type=float, nargs="+", help="percents (default: the study's)")
    parser.add_argument("--folds", type=int, nargs="+", help="folds (default: the study's)")
    context.add_sources(parser)


def run(arguments: Namespace) -> None:
    """Print the matrix, and the families that were left out with the reason."""
    study = context.read_study(arguments)
    pool = ImagePool.of(context.open_store(study, arguments.results, "train"))
    percents, folds = arguments.percents or study.split.percents, arguments.folds or study.split.folds
    if wrong := [percent for percent in percents if not 0 < percent <= 100]:
        raise BenchError(f"--percents {wrong[0]:g}: give percents above 0, up to 100")
    if beyond := [fold for fold in folds if not 0 <= fold < 2**32]:
        raise BenchError(f"--folds {beyond[0]}: give whole numbers from 0 on, below 2^32")
    sources = context.find_sources(arguments)
    sets: dict[str, set[int]] = {}
    left_out: dict[str, None] = {}
    for family in sorted({*plugins.names("families")} - {IMPORTED}):
        for percent in percents:
            for fold in folds:
                try:
                    labelled = draw(family, pool, percent, fold, sources.get(family))
                    sets[f"{family} {percent:g} % fold {fold}"] = set(labelled.ids)
                except BenchError as error:
                    left_out[f"{family}: {error}"] = None
    print(matrix(sets))
    print("A cell has the number of shared images, and in parentheses its percent of the smaller set.")
    for reason in left_out:
        print(f"left out: {reason}")


def matrix(sets: Mapping[str, set[int]]) -> str:
    """Return an aligned table with a row and a column per set, whose cells count the shared images."""
    names = list(sets)
    header = ["", *(f"[{number}]" for number in range(1, len(names) + 1))]
    rows = [
        [f"[{number}] {name}", *(_cell(sets[name], sets[other]) for other in names[:number])]
        for number, name in enumerate(names, start=1)
    ]
    widths = [max(len(row[column]) for row in [header, *rows] if column < len(row)) for column in range(len(header))]
    return "\n".join(_line(row, widths) for row in [header, *rows])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=False)]
    return "  ".join([row[0].ljust(widths[0]), *cells]).rstrip()


def _cell(first: set[int], second: set[int]) -> str:
    shared = len(first & second)
    return f"{shared} ({100 * shared / min(len(first), len(second)):.1f})"
