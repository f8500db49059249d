"""List the runs of a study that failed: the last lines of each log, and the command that goes on.

Failed is what a rule has a log of and no result, and what nobody trains now. The workflow prints this when it ends with
an error.
"""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from pais_bench.config import Study, suffix
from pais_bench.study_file import load_study, shipped


def add_arguments(parser: ArgumentParser) -> None:
    """Ask for a study, the results folder, and how much of each log to show."""
    parser.add_argument("study", metavar="STUDY", help=f"path of a study file, or one of {shipped()}")
    parser.add_argument("--results", type=Path, default=Path("results"), help="results folder (default: results)")
    parser.add_argument("--lines", type=int, default=5, help="last lines of each log that are shown (default: 5)")
    told = "interpreter of a backend's runs, as torchvision=/path/to/python (default: this one)"
    parser.add_argument("--python", action="append", default=[], metavar="BACKEND=PATH", help=told)


def run(arguments: Namespace) -> None:
    """Print the digest."""
    failed = list(failures(load_study(arguments.study), arguments.results))
    print(f"{len(failed)} of the runs of {arguments.study} failed" if failed else "no run failed")
    pythons = dict(one.split("=", 1) for one in arguments.python if "=" in one)
    for log, rule, backend, words in failed:
        python = sys.executable if rule == "evaluate" else pythons.get(backend, sys.executable)
        command = [python, "-m", "pais_bench", rule, str(arguments.study), "--results", str(arguments.results)]
        lines = log.read_text(errors="replace").splitlines()[-arguments.lines :]
        print(f"\n{log}", *(f"    {line}" for line in lines or ["(empty)"]), sep="\n")
        print(f"  goes on: {shlex.join([*command, *words])}")


def failures(study: Study, results: Path) -> Iterator[tuple[Path, str, str, list[str]]]:
    """Give log, rule, backend and arguments of each failed job, one a run: what comes after it never began."""
    from pais_bench.gaps import VERBS

    end = suffix(study.weights[0])
    for one in study.runs():
        words = ["--percent", f"{one.split.percent:g}", "--fold", str(one.split.fold)]
        words += ["--network", one.network.label, "--method", one.method.label]
        for rule, made in VERBS.items():
            log = results / "logs" / one.folder / f"{rule}{'' if rule == 'train' else end}.log"
            if not log.exists() or (results / one.folder / "lock.json").exists():
                break
            if not (results / one.folder / made.format(end)).exists():
                yield log, rule, one.network.backend, words
                break
