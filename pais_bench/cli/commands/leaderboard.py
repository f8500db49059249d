"""Evaluate the bundles of a folder on the ground truth that is given, and write a page that ranks them.

No number of a bundle is believed. What does not fit is named with its reason, and the others are ranked.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from pais_bench import plugins
from pais_bench.cli import context
from pais_bench.errors import BenchError


def add_arguments(parser: ArgumentParser) -> None:
    """Add the bundles, the truth of each dataset, published files of splits, and the folder of the page."""
    parser.add_argument(
        "folder", metavar="FOLDER", type=Path, help="folder of bundles, which `pais-bench submit` writes"
    )
    truth = "ground truth of a dataset: its prepared folder, results/datasets/LABEL, or a COCO annotation file"
    parser.add_argument("--truth", action="append", required=True, metavar="LABEL=PATH", help=truth)
    source = "published file or folder of a split family that reads one; may be given several times"
    parser.add_argument("--source", action="append", default=[], metavar="FAMILY=PATH", help=source)
    out = "folder of leaderboard.html, leaderboard.csv and the evaluated numbers (default: leaderboard)"
    parser.add_argument("--out", type=Path, default=Path("leaderboard"), help=out)


def run(arguments: Namespace) -> int:
    """Write the page; return 1 where a bundle was refused, each named on stderr with its reason."""
    from pais_bench.leaderboard.entries import read_entries  # scipy and matplotlib take a second to import
    from pais_bench.leaderboard.page import write_leaderboard
    from pais_bench.leaderboard.ranking import rank
    from pais_bench.leaderboard.truth import Truth

    folder, out = arguments.folder, arguments.out
    if not folder.is_dir():
        raise BenchError(f"{folder}: no such folder; name the one that holds the bundles")
    if out.resolve().is_relative_to(folder.resolve()):
        raise BenchError(f"--out {out}: lies among the bundles; name another folder for the page")
    sources = _pairs("--source", arguments.source)
    for family in set(sources) - set(plugins.names("families")):
        raise BenchError(f"--source {family}: no such family; choose one of {', '.join(plugins.names('families'))}")
    truths = {
        label: Truth.open(label, path, sources, out / "truth" / label)
        for label, path in _pairs("--truth", arguments.truth).items()
    }
    entries = read_entries(folder, truths, out / "evaluated", context.print_progress)
    for path in write_leaderboard(out, rank(entries.fitting), entries.refused, truths):
        print(path)
    if entries.refused:
        count = len(entries.fitting) + len(entries.refused)
        print(f"{len(entries.refused)} of {count} bundles were refused; the page has the reasons", file=sys.stderr)
    return 1 if entries.refused else 0


def _pairs(option: str, texts: Sequence[str]) -> dict[str, Path]:
    """Return the path of each name of NAME=PATH; raise BenchError for another text, and for a name given twice."""
    pairs: dict[str, Path] = {}
    for text in texts:
        name, _, path = text.partition("=")
        if not name or not path:
            raise BenchError(f"{option} {text}: not a name and a path; give NAME=PATH")
        if name in pairs:
            raise BenchError(f"{option} {text}: '{name}' is given twice; give each name once")
        pairs[name] = Path(path)
    return pairs
