"""List the failed runs of a study: the last lines of each log, and the command that continues the run.

A run has failed if a rule left a log and no result, and no process trains it now. Runs that were stopped, by Ctrl-C or
by SLURM, have not failed, and are counted apart. The workflow prints this list when it ends with an error.
"""

from __future__ import annotations

import shlex
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from pathlib import Path

from pais_bench.cli import context
from pais_bench.runs.job_log import CONTINUE, was_stopped
from pais_bench.runs.lock_owner import is_held
from pais_bench.study.run import suffix
from pais_bench.study.study import Study


def add_arguments(parser: ArgumentParser) -> None:
    """Add the study, the results folder, the length of each log, and the interpreters."""
    context.add_study(parser)
    context.add_results(parser)
    parser.add_argument(
        "--lines", type=context.at_least(1), default=5, help="last lines of each log that are shown (default: 5)"
    )
    text = "interpreter of a backend's runs, as torchvision=/path/to/python (default: this one)"
    parser.add_argument("--python", action="append", default=[], metavar="BACKEND=PATH", help=text)


def run(arguments: Namespace) -> None:
    """Print the list; raise BenchError where --python is no BACKEND=PATH."""
    pythons = context.named_paths("--python", arguments.python)
    unfinished = list(failures(context.read_study(arguments), arguments.results))
    failed = [job for job in unfinished if not was_stopped(job[0])]
    print(f"{len(failed)} of the runs of {arguments.study} failed" if failed else "no run failed")
    if stopped := len(unfinished) - len(failed):
        print(f"{stopped} of the runs of {arguments.study} stopped; {CONTINUE}")
    for log, rule, backend, options in failed:
        python = sys.executable if rule == "evaluate" else pythons.get(backend, sys.executable)
        command = [str(python), "-m", "pais_bench", rule, str(arguments.study), "--results", str(arguments.results)]
        lines = log.read_text(errors="replace").splitlines()[-arguments.lines :]
        print(f"\n{log}", *(f"    {line}" for line in lines or ["(empty)"]), sep="\n")
        print(f"  continue with: {shlex.join([*command, *options])}")


def failures(study: Study, results: Path) -> Iterator[tuple[Path, str, str, list[str]]]:
    """Yield log, rule, backend and arguments of the first failed job of each run; later jobs never started."""
    from pais_bench.reports.missing_runs import COMMANDS

    ends = [(checkpoint, suffix(checkpoint)) for checkpoint in study.checkpoints]
    jobs = [("train", "", ""), *((rule, *pair) for pair in ends for rule in list(COMMANDS)[1:])]
    burn_ins = [(folder, runs[0], ["--burn-in"]) for folder, runs in study.shared_burn_ins().items()]
    for run_folder, run, flags in [*burn_ins, *((run.folder, run, []) for run in study.runs())]:
        options = ["--percent", f"{run.split.percent:g}", "--fold", str(run.split.fold)]
        options += ["--network", run.network.label, "--method", run.method.label, *flags]
        for rule, checkpoint, end in jobs:
            if (results / run_folder / COMMANDS[rule](end)).exists():
                continue
            log = results / "logs" / run_folder / f"{rule}{end}.log"
            if log.exists() and not is_held(results / run_folder):
                yield log, rule, run.network.backend, [*options, *(["--checkpoint", checkpoint] if end else [])]
            break
