"""Print how many labelled images two split families share, on the prepared dataset of a study."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

from pais_bench import plugins, splits
from pais_bench.pools import Pool
from pais_bench.split_choice import IMPORTED
from pais_bench.store import Store, dataset_folder
from pais_bench.study_file import load_study
from pais_bench.types import BenchError


def add_arguments(parser: ArgumentParser) -> None:
    """Name the study, and of which percents and folds the sets are; by default those of the study."""
    parser.add_argument("study", metavar="STUDY", help="study whose dataset is drawn from")
    parser.add_argument("--percents", type=float, nargs="+", help="percents (default: the study's)")
    parser.add_argument("--folds", type=int, nargs="+", help="folds (default: the study's)")
    parser.add_argument(
        "--source",
        action="append",
        default=[],
        metavar="FAMILY=PATH",
        help="published file or folder of a family that reads one; may be given several times",
    )
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")


def run(arguments: Namespace) -> None:
    """Print the matrix, and what was left out and why."""
    study = load_study(arguments.study)
    store = Store.open(dataset_folder(arguments.results, study.dataset.label), "train")
    percents, folds = arguments.percents or study.split.percents, arguments.folds or study.split.folds
    sources = _sources(arguments.source)
    sets: dict[str, set[int]] = {}
    left_out: dict[str, None] = {}
    for family in sorted({*plugins.names("families")} - {IMPORTED}):
        for percent in percents:
            for fold in folds:
                try:
                    drawn = splits.draw(family, Pool.of(store), percent, fold, sources.get(family))
                    sets[f"{family} {percent:g} % fold {fold}"] = set(drawn.ids)
                except BenchError as error:
                    left_out[f"{family}: {error}"] = None
    print(matrix(sets))
    print("A cell has the shared images, and in parentheses their percent of the smaller set.")
    for reason in left_out:
        print(f"left out: {reason}")


def matrix(sets: Mapping[str, set[int]]) -> str:
    """Give an aligned table: a row and a column per set, the number of shared images and its percent of the smaller."""
    names = list(sets)
    header = ["", *(f"[{number}]" for number in range(1, len(names) + 1))]
    rows = [
        [f"[{number}] {name}", *(_cell(sets[name], sets[other]) for other in names[:number])]
        for number, name in enumerate(names, start=1)
    ]
    widths = [max(len(row[place]) for row in [header, *rows] if place < len(row)) for place in range(len(header))]
    return "\n".join(_line(row, widths) for row in [header, *rows])


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    cells = [cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=False)]
    return "  ".join([row[0].ljust(widths[0]), *cells]).rstrip()


def _cell(one: set[int], other: set[int]) -> str:
    shared = len(one & other)
    return f"{shared} ({100 * shared / min(len(one), len(other)):.1f})"


def _sources(words: Sequence[str]) -> dict[str, Path]:
    found = {}
    for word in words:
        family, equals, path = word.partition("=")
        if not equals or family not in plugins.names("families"):
            known = ", ".join(plugins.names("families"))
            raise BenchError(f"--source {word}: not FAMILY=PATH; the families are {known}")
        found[family] = Path(path)
    return found
