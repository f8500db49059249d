"""Evaluate the bundles of a folder on the ground truth that is given, and write a page that ranks them.

No number of a bundle is believed. What does not fit is named with its reason, and the others are ranked.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from pais_bench.cli import context
from pais_bench.errors import BenchError


def add_arguments(parser: ArgumentParser) -> None:
    """Add the bundles, the truth of each dataset, published files of splits, and the folder of the page."""
    parser.add_argument(
        "folder", metavar="FOLDER", type=Path, help="folder of bundles, which `pais-bench submit` writes"
    )
    truth = "ground truth of a dataset: its prepared folder, results/datasets/LABEL, or a COCO annotation file"
    parser.add_argument("--truth", action="append", required=True, metavar="LABEL=PATH", help=truth)
    context.add_sources(parser)
    out = "folder of leaderboard.html, leaderboard.csv and the evaluated numbers (default: leaderboard)"
    parser.add_argument("--out", type=Path, default=Path("leaderboard"), help=out)


def run(arguments: Namespace) -> None:
    """Write the page; raise BenchError after it where bundles were refused, each named on stderr with its reason."""
    from pais_bench.leaderboard.entries import read_entries  # scipy and matplotlib take a second to import
    from pais_bench.leaderboard.page import write_leaderboard
    from pais_bench.leaderboard.ranking import rank
    from pais_bench.leaderboard.truth import Truth

    folder, out = arguments.folder, arguments.out
    if not folder.is_dir():
        raise BenchError(f"{folder}: no such folder; name the one that holds the bundles")
    if out.resolve().is_relative_to(folder.resolve()):
        raise BenchError(f"--out {out}: lies among the bundles; name another folder for the page")
    sources = context.find_sources(arguments)
    truths = {
        label: Truth.open(label, path, sources, out / "truth" / label)
        for label, path in context.named_paths("--truth", arguments.truth).items()
    }
    entries = read_entries(folder, truths, out / "evaluated", context.print_progress)
    for path in write_leaderboard(out, rank(entries.fitting), entries.refused, truths):
        print(path)
    if entries.refused:
        count, first = len(entries.fitting) + len(entries.refused), next(iter(entries.refused))
        raise BenchError(
            f"{len(entries.refused)} of {count} bundles were refused, the first: {first}; the page has the reasons"
        )
