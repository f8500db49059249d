"""Run a whole study: plan, environments, every missing run, tables. Flags of Snakemake follow after `--`.

A terminal shows a table of the runs; anything else, NO_COLOR and TERM=dumb get a line for each thing that happens. The
exit code is that of the workflow. Ctrl-C saves and stops, and the same command continues.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from importlib.util import find_spec
from pathlib import Path

import yaml

from pais_bench import provenance
from pais_bench.cli import context, prepared
from pais_bench.cli.plan import plan
from pais_bench.errors import BenchError
from pais_bench.machine.gpu_claim import visible_gpus
from pais_bench.study.resources import resources_for
from pais_bench.study.study import Study
from pais_bench.workflow import view
from pais_bench.workflow.controller import Controller
from pais_bench.workflow.progress import Progress

PACKAGES = ("snakemake", "rich", "pandas", "matplotlib", "jinja2")
"""What this command needs of the environment `workflow`."""
SECONDS = 2.0
"""Between two looks at the runs."""
DRY_RUN = re.compile(r"--dry-?run|-[pqFRk]*n[pqFRk]*")
"""Snakemake's flags of it, also among other flags of one letter."""
NO_PATH = re.compile(r"[-+]?[\d_.]+(e[-+]?\d+)?|[-+]?(inf|infinity|nan)|true|false|['\"].*|.*['\"]", re.IGNORECASE)
"""Texts that Snakemake reads as numbers and switches, or takes the quotes off."""
LOCKED = "LockException"
"""What Snakemake says where its lock of the working directory is held, or was left behind."""
ERROR_LINES = 20
"""Last lines of the workflow that are printed where it ends without an error in one sentence."""


def add_arguments(parser: ArgumentParser) -> None:
    """Add the study, the results folder, the profile and the dry-run."""
    context.add_study(parser)
    context.add_results(parser)
    parser.add_argument("--profile", default="local", help="local (default), slurm, or a folder with a config.yaml")
    parser.add_argument("-n", "--dry-run", action="store_true", help="print what would be done, and do nothing")
    parser.epilog = "flags of Snakemake: pais-bench run STUDY -- --cores 4 --config backends=torchvision"


def run(arguments: Namespace) -> int:
    """Run the workflow; return its exit code."""
    study = context.read_study(arguments)
    prepared.require_before_jobs(study, arguments.study, arguments.results)
    arguments.dry_run |= any(map(DRY_RUN.fullmatch, arguments.flags))
    profile = _profile(arguments.profile)
    gpus, limits = _shared_gpus(study) if _is_shipped(profile, "local") else ([], [])
    command = _snakemake(arguments, profile, [*gpus, *_own_python(study)], limits)
    if any(find_spec(package) is None for package in PACKAGES):
        return _run_in_environment(arguments, _own_python(study))
    for line in plan(study, arguments.results):
        print(line, flush=True)
    if arguments.dry_run:
        return subprocess.run([*command, "--dry-run"]).returncode
    progress = Progress(study, arguments.results)
    controller = Controller(command, arguments.results / "logs" / "workflow" / f"{study.name}.log")
    status = _watch(controller, progress)
    for error in controller.errors():
        print(error, file=sys.stderr)
    if any(training.state == "done" and not training.is_burn_in for training in progress.read()):
        _print_table(study, arguments.results)
    if not status and "--unlock" in arguments.flags:
        return 0
    if not status:
        page = arguments.results / "reports" / study.name / "report.html"
        print(
            f"page: {page}"
            if page.exists()
            else f"no page was asked for; `pais-bench report {arguments.study}` makes it"
        )
        return 0
    return _explain(status, controller, arguments)


def _profile(name: str) -> Path:
    """Return the folder of a profile, by its name or path."""
    for folder in (provenance.PROJECT / "profiles" / name, Path(name)):
        if (folder / "config.yaml").is_file():
            return folder
    raise BenchError(f"--profile {name}: no folder with a config.yaml; name local, slurm, or such a folder")


def _is_shipped(profile: Path, name: str) -> bool:
    """Return whether a profile is the one of this name that comes with the project."""
    return profile.resolve() == (provenance.PROJECT / "profiles" / name).resolve()


def _shared_gpus(study: Study) -> tuple[list[str], list[str]]:
    """Return the setting and the total of resources that share this machine's GPUs, if trainings request them.

    Each training and prediction claims GPUs of its own; without a GPU one at a time runs. Raises BenchError where a
    training requests more than there are.
    """
    wanted = resources_for(study.resources, "train").gpus
    gpus = visible_gpus() if wanted else []
    if not wanted or not gpus:
        return [], [f"devices={wanted}"] if wanted else []
    if wanted > len(gpus):
        raise BenchError(
            f"resources.train.gpus: {wanted}, and this machine shows {len(gpus)} GPUs; set it to what there is, or run "
            f"where there are more (--profile slurm)"
        )
    return [f"gpus={','.join(gpus)}"], [f"devices={len(gpus)}"]


def _snakemake(arguments: Namespace, profile: Path, settings: list[str], limits: list[str]) -> list[str]:
    """Return the command of Snakemake, with one --config and one --resources: a second one would replace the first.

    Raises BenchError where they name another study or results folder than is shown.
    """
    parser = ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--config", "-C", nargs="*", action="extend", default=[])
    parser.add_argument("--resources", "--res", nargs="*", action="extend", default=[])
    own, flags = parser.parse_known_args(arguments.flags)
    for value in own.config:
        if value.split("=")[0] in ("study", "results"):
            raise BenchError(f"--config {value}: name the study and --results before `--`")
    paths = [f"study={_plain(arguments.study)}", f"results={_plain(str(arguments.results))}"]
    config = [*paths, *settings, *own.config]
    command = [sys.executable, "-m", "snakemake", "--config", *config]
    resources = [*limits, *own.resources]  # of one name, the last one counts
    command += ["--resources", *resources] if resources else []
    command += ["--quiet", "host", "reason", "rules"] if arguments.dry_run else []
    if _is_shipped(profile, "slurm"):
        command += ["--slurm-logdir", str(arguments.results / "logs" / "slurm")]
    # An option of a single value comes last: one of several values would take the targets after it for its own.
    return [*command, "--workflow-profile", str(profile), "--snakefile", str(provenance.PROJECT / "Snakefile"), *flags]


def _plain(path: str) -> str:
    """Return a path as a value of --config, which Snakemake reads as a number, a switch or YAML before a text.

    Raises BenchError for one that it would read as something else in any spelling.
    """
    for spelling in (path, f"./{path}"):
        if not NO_PATH.fullmatch(spelling) and _as_yaml(spelling) == spelling:
            return spelling
    raise BenchError(f"{path}: Snakemake takes what follows ' #' for a comment, and ': ' for a key; rename this path")


def _as_yaml(text: str) -> object:
    """Return what YAML reads; a text that is no YAML is taken as it is."""
    try:
        return yaml.load(text, yaml.BaseLoader)
    except yaml.YAMLError:
        return text


def _own_python(study: Study) -> list[str]:
    """Return the setting to train with this Python, if the package is installed with every backend's framework here.

    A checkout always has environments of its own, with the versions of the locks.
    """
    backends = {network.backend for network in study.networks.values()}
    needed = ("torch", "torchvision", "lightning_fabric", *backends)
    mine = provenance.INSTALLED and all(find_spec(module) for module in needed)
    return [f"python={sys.executable}"] if mine else []


def _run_in_environment(arguments: Namespace, python: list[str]) -> int:
    """Run this command in the environment `workflow`, built on first use; return only where it cannot be built."""
    build = [sys.executable, str(provenance.LOCKS / "build.py"), "workflow"]
    done = subprocess.run(build, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        return done.returncode
    path = str(provenance.PROJECT / done.stdout.strip())
    words = [arguments.study, "--results", str(arguments.results), "--profile", arguments.profile]
    words += ["-n"] * arguments.dry_run + ["--", *arguments.flags]
    words += ["--config", *python] if python else []
    sys.stdout.flush()
    os.execv(path, [path, "-m", "pais_bench", "run", *words])


def _watch(controller: Controller, progress: Progress) -> int:
    """Show the runs until the workflow has ended, and return its exit code; end it where they cannot be shown."""
    try:
        return (_show_table if view.is_terminal() else _print_news)(controller, progress)
    except BaseException:  # such as a pipe that its reader has closed: the workflow, a session of its own, would go on
        controller.stop()
        raise


def _show_table(controller: Controller, progress: Progress) -> int:
    """Show the table of the runs until the workflow has ended; return its exit code."""
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Live(console=console, auto_refresh=False) as live:
        status = None
        while status is None:
            status = controller.wait(SECONDS)
            note = "" if status is not None else _note(controller)
            live.update(view.table(progress.read(), console.height - 8, note), refresh=True)
    return status


def _print_news(controller: Controller, progress: Progress) -> int:
    """Print a line for each thing that happens until the workflow has ended; return its exit code."""
    before, note, status = progress.read(), "", None
    context.print_progress(view.headline(before))
    while status is None:
        status = controller.wait(SECONDS)
        now = progress.read()
        for line in view.news(before, now):
            context.print_progress(line)
        before, last = now, _note(controller)
        # The runs say what they do; before the first one environments are built and data is prepared.
        if last != note and (controller.signals or all(run.state == "waiting" for run in now)):
            context.print_progress(last)
        note = last
    return status


def _note(controller: Controller) -> str:
    """Return what the workflow does now."""
    if controller.signals:
        return "saving and stopping; a second Ctrl-C ends without saving"
    return controller.last_progress()


def _print_table(study: Study, results: Path) -> None:
    from pais_bench.reports.answer import in_terminal
    from pais_bench.reports.results import Results

    print(in_terminal(study, Results.of(study, results)))


def _explain(status: int, controller: Controller, arguments: Namespace) -> int:
    """Say why a workflow ended before its end, and return its exit code."""
    if signal.SIGINT in controller.signals:
        raise KeyboardInterrupt
    if controller.signals:
        name = controller.signals[-1].name
        print(f"pais-bench run: stopped by {name}; run the same command to continue", file=sys.stderr)
        return status
    if any(LOCKED in line for line in controller.last_lines(ERROR_LINES)):
        words = ["pais-bench", "run", arguments.study, "--results", str(arguments.results), "--", "--unlock"]
        print(
            f"pais-bench run: error: {arguments.results}: another run of the workflow writes there, or one that was "
            f"killed did; where none is left, give `{shlex.join(words)}`, and this command again",
            file=sys.stderr,
        )
        return status
    if not controller.errors():
        print(*controller.last_lines(ERROR_LINES), sep="\n", file=sys.stderr)
    words = ["pais-bench", "failures", arguments.study, "--results", str(arguments.results)]
    print(
        f"pais-bench run: error: the workflow ended with exit code {status}; {controller.log} has its whole output, "
        f"and `{shlex.join(words)}` lists the failed runs with the command that continues each",
        file=sys.stderr,
    )
    return status
