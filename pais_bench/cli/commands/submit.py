"""Pack trained and evaluated runs as bundles for a leaderboard: one zip per run.

A bundle holds the predictions, run.json, metrics.json, and a manifest with the sha256 of each. The same run gives the
same bytes.
"""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import get_args

from pais_bench.cli import context
from pais_bench.errors import BenchError
from pais_bench.provenance import sha256_of
from pais_bench.runs.files import LOG, RUN, errors_file, metrics_file, predictions_file
from pais_bench.study.run import ModelCheckpoint, suffix

AGAIN = "run `pais-bench predict` and `pais-bench evaluate` again"


def add_arguments(parser: ArgumentParser) -> None:
    """Add the runs, the folder of the bundles, the submitter and the checkpoint."""
    parser.add_argument("runs", nargs="+", metavar="RUN", type=Path, help="folder of an evaluated run")
    parser.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="folder of the bundles")
    parser.add_argument("--by", default="", metavar="NAME", help="who submits, as the leaderboard shows it")
    checkpoints = get_args(ModelCheckpoint)
    parser.add_argument("--checkpoint", choices=checkpoints, default="teacher-last", help="(default: teacher-last)")


def run(arguments: Namespace) -> None:
    """Write a bundle per run; raise BenchError after the last where some could not be packed, each named on stderr."""
    faults = []
    for folder in arguments.runs:
        try:
            path = pack(folder, arguments.out, arguments.by, arguments.checkpoint)
            context.print_progress(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
        except BenchError as error:
            if len(arguments.runs) == 1:
                raise
            faults.append(str(error))
            context.print_progress(f"left out: {error}")
    if faults:
        raise BenchError(f"{len(faults)} of {len(arguments.runs)} runs were not packed, the first: {faults[0]}")


def pack(folder: Path, out: Path, by: str, checkpoint: ModelCheckpoint) -> Path:
    """Write the bundle of a run, and return its path.

    Raises BenchError where the training or the evaluation is not complete, or is older than what it is made from.
    """
    # Here, as --help loads every command.
    from pais_bench.leaderboard.bundle import MEMBERS, METRICS, PREDICTIONS, Manifest, write_bundle
    from pais_bench.leaderboard.submission import read_submission
    from pais_bench.study.base import parse

    end = suffix(checkpoint)
    files = {RUN: folder / RUN, PREDICTIONS: folder / predictions_file(end), METRICS: folder / metrics_file(end)}
    _require_complete(files[RUN], files[PREDICTIONS], files[METRICS])
    run = read_submission(files[RUN], files[METRICS], checkpoint).run
    sha256 = {name: sha256_of(files[name]) for name in MEMBERS}
    analysis = folder / errors_file(end)
    evaluated = context.read_json(analysis) if analysis.exists() else {}
    if not isinstance(evaluated, dict) or evaluated.get("predictions") != sha256[PREDICTIONS]:
        raise BenchError(f"{files[METRICS]}: of other predictions than these; run `pais-bench evaluate` again")
    values = {"by": by, "checkpoint": checkpoint, "validation": evaluated["images"], "members": sha256}
    name = "-".join([*run.folder.parts[1:], *([checkpoint] if end else []), *re.findall(r"\w+", by)])
    path = out / f"{name}.zip"
    write_bundle(path, parse(Manifest, values, "--by"), files)
    return path


def _require_complete(record: Path, predictions: Path, metrics: Path) -> None:
    """Raise BenchError for a file that is missing, or is older than the one before it."""
    if not record.is_file():
        started = (record.parent / LOG).exists()
        remedy = "the training is not complete; run `pais-bench train` again"
        raise BenchError(f"{record}: missing; {remedy if started else 'name a run, a folder below results/runs/'}")
    if not predictions.is_file():
        raise BenchError(f"{predictions}: missing; {AGAIN}")
    if not metrics.is_file():
        raise BenchError(f"{metrics}: missing; run `pais-bench evaluate`")
    for new, old in ((predictions, record), (metrics, predictions)):
        if new.stat().st_mtime_ns < old.stat().st_mtime_ns:
            raise BenchError(f"{new}: older than {old.name}; {AGAIN}, or copy a run with its times (cp -a, rsync -a)")
