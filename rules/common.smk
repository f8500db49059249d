"""Define the paths, runs, interpreters and resources of a study: all Python of the workflow."""

import json
import os
import re
import runpy
import shlex
import sys
from collections import Counter
from functools import cache
from itertools import groupby
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod

from pais_bench import plugins
from pais_bench.annotations.store import dataset_folder
from pais_bench.cli import prepared
from pais_bench.errors import BenchError
from pais_bench.reports import external
from pais_bench.splits.split import split_path
from pais_bench.study.load import load_study
from pais_bench.study.resources import resources_for
from pais_bench.study.run import suffix
from pais_bench.study.split import IMPORTED

SOURCE = str(config.get("study", "demo"))
RES = os.path.normpath(str(config.get("results", "results")))
if set("{}") & set(RES):
    raise WorkflowError(
        f"results={RES}: Snakemake takes braces for wildcards; choose a folder without them"
    )
try:
    STUDY = load_study(SOURCE)
    DESCRIPTIONS = external.read_all(STUDY)
    prepared.require_before_jobs(STUDY, SOURCE, Path(RES))
except BenchError as error:
    raise WorkflowError(str(error)) from None

# Packages of a cluster's module would come before the pinned ones; the user's interpreter may need them.
if "python" not in config:
    shell.prefix("unset PYTHONPATH PYTHONHOME; ")

# Environments lie in the project, wherever Snakemake runs; relative there, so that a moved project keeps its runs.
BUILD = runpy.run_path(os.path.join(workflow.basedir, "envs", "build.py"))
HOME = str(BUILD["HOME"] if BUILD["INSTALLED"] else workflow.basedir)
PROJECT = "" if os.path.realpath(HOME) == os.path.realpath(os.curdir) else HOME

LOGS = os.path.join(RES, "logs")
DATASET = os.path.join("datasets", "{dataset}")
NOISE = f"-{STUDY.split.label_noise.name}" if STUDY.split.label_noise else ""
STEM = f"{{percent}}pct-fold{{fold}}{NOISE}"
SPLIT = os.path.join("splits", "{dataset}", "{family}", STEM)
RUN = os.path.join(
    "runs",
    "{dataset}",
    STEM,
    "{backend}-{network}",
    "{method}-{digest}",
)

# Description and results file of each other codebase's predictions, by name.
EXTERNAL = {
    description.name: [str(path), str(description.predictions)]
    for path, description in zip(STUDY.external, DESCRIPTIONS)
}
STUDY_BACKENDS = sorted({network.backend for network in STUDY.networks.values()})
BACKENDS = str(config.get("backends", " ".join(STUDY_BACKENDS))).split()
if not set(BACKENDS) <= set(STUDY_BACKENDS):
    raise WorkflowError(
        f"backends={' '.join(BACKENDS)}: this study has {', '.join(STUDY_BACKENDS)}; name some of these"
    )
RUNS = {str(run.folder): run for run in STUDY.runs() if run.network.backend in BACKENDS}
BURN_INS = {
    str(folder): runs
    for folder, runs in STUDY.shared_burn_ins().items()
    if runs[0].network.backend in BACKENDS
}
BEGINS_WITH = {
    str(run.folder): folder for folder, runs in BURN_INS.items() for run in runs
}
# The order of trainings: split by split, so that what is stopped early has whole comparisons; in each from the last method
# to supervised, whose training is the shortest. One that n runs wait for goes n places ahead, or the last of them would
# leave cores idle.
SPLITS = [list(runs) for _, runs in groupby(RUNS.values(), lambda run: run.split)]
GRID = [str(run.folder) for runs in SPLITS for run in reversed(runs)]
PLACES = {
    burn_in: min(GRID.index(str(run.folder)) for run in runs)
    for burn_in, runs in BURN_INS.items()
} | {folder: place for place, folder in enumerate(GRID)}
WAITING = Counter(BEGINS_WITH.values())
WAITING.update(str(run.teacher.folder) for run in RUNS.values() if run.teacher)
ORDER = sorted(PLACES, key=lambda folder: PLACES[folder] - WAITING[folder])
PRIORITIES = {folder: len(ORDER) - place for place, folder in enumerate(ORDER)}
# Splits, predictions and evaluations are short, and go before trainings.
SHORT = len(ORDER) + 1

# A user's list is not the output of a job: no rule can make it again, and Snakemake removes outputs before a job.
if STUDY.split.family == IMPORTED:
    for run in RUNS.values():
        path = split_path(Path(RES), run.dataset, run.split)
        if not path.exists():
            raise WorkflowError(
                f"{path}: missing; after `pais-bench prepare`, run `pais-bench import-split {SOURCE} FILE "
                f"--percent {run.split.percent:g} --fold {run.split.fold} --results {RES}`"
            )


wildcard_constraints:
    dataset=re.escape(STUDY.dataset.label),
    family=STUDY.split.family,
    percent=r"[0-9.e-]+",
    fold=r"[0-9]+",
    backend=r"\w+",
    network=r"[\w.]+",
    method=r"[\w.]+",
    digest="|".join(
        sorted({folder.rpartition("-")[2] for folder in (*RUNS, *BURN_INS)})
    ),
    name=r"[\w.]+",
    checkpoint=f"(?:{'|'.join(suffix(checkpoint) for checkpoint in STUDY.checkpoints)})",


try:
    FOLDERS = {
        network.backend: Path(PROJECT, BUILD["folder"](network.backend))
        for network in STUDY.networks.values()
    }
except FileNotFoundError as error:
    raise WorkflowError(
        f"{error.filename}: missing; pin the environment of this backend"
    ) from None


CONDA = DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method


def environment(wildcards):
    """Return the READY file of a backend's environment; nothing where the user or conda provides the interpreter.

    The folder is named by the pins of the lock, so changed pins repeat a training. The file is ancient, so an
    environment that was removed and built again does not.
    """
    if "python" in config or CONDA:
        return []
    return ancient(str(FOLDERS[wildcards.backend] / "READY"))


@cache
def dataset_identity():
    """Return what prepare reads, as text: other files below the root, or other options, prepare the dataset again."""
    choice = STUDY.dataset
    try:
        origin, _ = prepared.read_present(
            choice, dataset_folder(Path(RES), choice.label)
        )
    except BenchError as error:
        raise WorkflowError(str(error)) from None
    identity = [choice.name, choice.options, *([origin.sha256] if origin.root else [])]
    return json.dumps(identity, sort_keys=True)


def trained_teacher(wildcards):
    """Return run.json of the pretrained teacher's run; nothing for methods without one, and for burn-ins."""
    run = RUNS.get(RUN.format(**wildcards))
    return (
        [os.path.join(RES, run.teacher.folder, "run.json")]
        if run and run.teacher
        else []
    )


def burn_in(wildcards):
    """Return run.json of the burn-in that a run begins with; nothing where it has one of its own.

    A run that is trained keeps the one that it had, so that a method that is added later repeats no other.
    """
    folder = RUN.format(**wildcards)
    path = Path(RES, folder, "run.json")
    begun_with = read_begun_with(path) if path.exists() else BEGINS_WITH.get(folder, "")
    return ancient(os.path.join(RES, begun_with, "run.json")) if begun_with else []


def read_begun_with(path):
    """Return the folder of the burn-in that a run's run.json names; nothing where it names none."""
    try:
        return json.loads(path.read_text(encoding="utf-8")).get("begun_with", "")
    except (OSError, ValueError, AttributeError):
        return ""


def trained_run(wildcards):
    """Return the options of `train` that name a run, or a run and that its burn-in alone is meant."""
    runs = BURN_INS.get(RUN.format(**wildcards))
    return (
        f"--method {runs[0].method.label} --burn-in"
        if runs
        else f"--method {wildcards.method}"
    )


def checkpoint(wildcards):
    """Return the checkpoint whose file names have the suffix."""
    return next(
        name for name in STUDY.checkpoints if suffix(name) == wildcards.checkpoint
    )


def interpreter(wildcards):
    """Return the Python that trains and predicts with a backend."""
    python = "python" if CONDA else str(FOLDERS[wildcards.backend] / "bin" / "python")
    return config.get("python") or python


def locked(wildcards):
    """Return the option that requires the pinned versions of a backend; nothing for the user's interpreter."""
    return "" if "python" in config else f"--locked {wildcards.backend}"


# Resources, not params: another path of the study, the interpreter or the results repeats no training.
COMMON = {
    "python": sys.executable,
    "study": SOURCE,
    "results": RES,
}


def failures_command():
    """Return the command that lists the failed runs; its own failure is ignored."""
    command = [sys.executable, "-m", "pais_bench", "failures", COMMON["study"]]
    command += ["--results", RES]
    for backend, folder in FOLDERS.items():
        python = config.get("python") or folder / "bin" / "python"
        command += ["--python", f"{backend}={python}"]
    return f"{shlex.join(command)} >&2 || true"


# `pais-bench run` names the GPUs that the trainings and predictions of one machine share.
CLAIM = f"--gpus {config['gpus']}" if "gpus" in config else ""
BACKEND = {**COMMON, "python": interpreter, "locked": locked, "claim": CLAIM}


def cluster_resources(rule):
    """Return the cluster resources of a rule's jobs; memory and time grow with every attempt."""
    study_resources = resources_for(STUDY.resources, rule)
    gpus = (study_resources.gpus or 0) * (study_resources.nodes or 1)
    requested = {
        "slurm_partition": study_resources.partition,
        "slurm_account": study_resources.account,
        "mem_mb": study_resources.mem_mb
        and (lambda wildcards, attempt: study_resources.scaled("mem_mb", attempt)),
        "runtime": study_resources.minutes
        and (lambda wildcards, attempt: study_resources.scaled("minutes", attempt)),
        "gpu": gpus,
    }
    return {key: value for key, value in requested.items() if value}


def training_resources():
    """Return the resources of a training, and the srun command that starts its processes where there are several."""
    study_resources = resources_for(STUDY.resources, "train")
    devices, nodes = study_resources.gpus or 1, study_resources.nodes or 1
    cpus = study_resources.cpus or 1
    requested = {
        **cluster_resources("train"),
        "devices": devices,
        "nodes": nodes,
        "launch": "",
    }
    # Without cpus in the study, a training counts the CPUs that it is given.
    counted = study_resources.gpus and study_resources.cpus
    requested["workers"] = f"--workers {cpus - 1}" if counted else ""
    if devices > 1:
        step = f"srun --kill-on-bad-exit=1 --nodes={nodes} --ntasks-per-node={devices} --gres=gpu:{devices}"
        requested["launch"] = f"${{SLURM_JOB_ID:+{step} --cpus-per-task={cpus}}}"
        # Snakemake refuses gpu, which is a total, together with tasks_per_node.
        del requested["gpu"]
        requested |= {
            "mpi": "srun",
            "tasks_per_node": devices,
            "gres": f"gpu:{devices}",
        }
    return requested


def processors(rule):
    """Return the number of CPU threads of a job."""
    return resources_for(STUDY.resources, rule).cpus or 1
