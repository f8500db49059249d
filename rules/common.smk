"""What does the workflow know of a study? Its paths, its runs, and who computes them: all Python of the workflow."""

import json
import os
import re
import runpy
import shlex
import sys
from pathlib import Path

from snakemake.exceptions import WorkflowError
from snakemake.settings.types import DeploymentMethod

from pais_bench import external, plugins
from pais_bench.config import suffix
from pais_bench.demands import demand
from pais_bench.split_choice import IMPORTED
from pais_bench.splits import split_path
from pais_bench.study_file import load_study
from pais_bench.types import BenchError

try:
    STUDY = load_study(config.get("study", "demo"))
    OTHERS = external.read_all(STUDY)
except BenchError as error:
    raise WorkflowError(str(error)) from None

RES = config.get("results", "results")
LOGS = os.path.join(RES, "logs")
DATASET = os.path.join("datasets", "{dataset}")
SPOILT = f"-{STUDY.split.corruption.name}" if STUDY.split.corruption else ""
STEM = f"{{percent}}pct-fold{{fold}}{SPOILT}"
SPLIT = os.path.join("splits", "{dataset}", "{family}", STEM)
RUN = os.path.join(
    "runs",
    "{dataset}",
    STEM,
    "{backend}-{network}",
    "{method}-{digest}",
)

# The files of other codebases' predictions, by name: the description and the results.
EXTERNAL = {
    one.name: [str(path), str(one.predictions)]
    for path, one in zip(STUDY.external, OTHERS)
}
KNOWN = sorted({network.backend for network in STUDY.networks.values()})
WANTED = str(config.get("backends", " ".join(KNOWN))).split()
if not set(WANTED) <= set(KNOWN):
    raise WorkflowError(
        f"backends={' '.join(WANTED)}: this study has {', '.join(KNOWN)}; name some of these"
    )
RUNS = {str(run.folder): run for run in STUDY.runs() if run.network.backend in WANTED}

# A list of the user is no job's output: no rule could make it again, and Snakemake removes what it is to make.
if STUDY.split.family == IMPORTED:
    for run in RUNS.values():
        path = split_path(Path(RES), run.dataset, run.split)
        if not path.exists():
            raise WorkflowError(
                f"{path}: missing; after `pais-bench prepare`, run `pais-bench import-split {config.get('study')} FILE "
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
    digest="|".join(sorted({run.digest for run in RUNS.values()})),
    name=r"[\w.]+",
    weights=f"(?:{'|'.join(suffix(weights) for weights in STUDY.weights)})",


BUILD = runpy.run_path(os.path.join(workflow.basedir, "envs", "build.py"))
try:
    FOLDERS = {
        network.backend: BUILD["folder"](network.backend)
        for network in STUDY.networks.values()
    }
except FileNotFoundError as error:
    raise WorkflowError(
        f"{error.filename}: missing; pin the environment of this backend"
    ) from None


CONDA = DeploymentMethod.CONDA in workflow.deployment_settings.deployment_method


def environment(wildcards):
    """Give what says that a backend is installed; nothing where the user names the interpreter, or conda makes it.

    The folder is named by what the lock pins, so changed pins train again. ancient: an environment that was removed
    and built again by envs/build.py does not.
    """
    if "python" in config or CONDA:
        return []
    return ancient(str(FOLDERS[wildcards.backend] / "READY"))


def trained_teacher(wildcards):
    """Give what says that the run is trained whose network is to be the teacher; nothing for most methods."""
    teacher = RUNS[RUN.format(**wildcards)].teacher
    return [os.path.join(RES, teacher.folder, "run.json")] if teacher else []


def weights(wildcards):
    """Give the weights that predict, by what the names of their files end in."""
    return next(one for one in STUDY.weights if suffix(one) == wildcards.weights)


def interpreter(wildcards):
    """Give the Python that trains and predicts with a backend."""
    built = "python" if CONDA else str(FOLDERS[wildcards.backend] / "bin" / "python")
    return config.get("python") or built


def locked(wildcards):
    """Give the words that hold a run to the pins of its backend; an interpreter of the user's is not held to them."""
    return "" if "python" in config else f"--locked {wildcards.backend}"


# Resources and not params: another place of the study file, the interpreter or the results repeats no training.
HERE = {
    "python": sys.executable,
    "study": str(config.get("study", "demo")),
    "results": RES,
}


def failures():
    """Give the command that tells of the runs that failed; where it fails itself, the grid's own end is what counts."""
    words = [sys.executable, "-m", "pais_bench", "failures", HERE["study"]]
    words += ["--results", RES]
    for backend, folder in FOLDERS.items():
        python = config.get("python") or folder / "bin" / "python"
        words += ["--python", f"{backend}={python}"]
    return f"{shlex.join(words)} >&2 || true"


BACKEND = {**HERE, "python": interpreter, "locked": locked}


def asked(rule):
    """Give what the study asks of a cluster for the jobs of a rule, more of it at every further attempt."""
    wanted = demand(STUDY.resources, rule)
    gpus = (wanted.gpus or 0) * (wanted.nodes or 1)
    found = {
        "slurm_partition": wanted.partition,
        "slurm_account": wanted.account,
        "mem_mb": wanted.mem_mb
        and (lambda wildcards, attempt: wanted.grown("mem_mb", attempt)),
        "runtime": wanted.minutes
        and (lambda wildcards, attempt: wanted.grown("minutes", attempt)),
        "gpu": gpus,
    }
    return {key: value for key, value in found.items() if value}


def asked_of_training():
    """Give the same of a training, and how its processes are started where there are several: by srun under SLURM."""
    wanted = demand(STUDY.resources, "train")
    devices, nodes = wanted.gpus or 1, wanted.nodes or 1
    found = {**asked("train"), "devices": devices, "nodes": nodes, "launch": ""}
    found["workers"] = (wanted.cpus or 1) - 1 if wanted.gpus else 0
    if devices > 1:
        step = f"srun --kill-on-bad-exit=1 --nodes={nodes} --ntasks-per-node={devices} --gres=gpu:{devices}"
        found["launch"] = (
            f"${{SLURM_JOB_ID:+{step} --cpus-per-task={wanted.cpus or 1}}}"
        )
        # gpu, which is a total, does not go with tasks_per_node.
        del found["gpu"]
        found |= {"mpi": "srun", "tasks_per_node": devices, "gres": f"gpu:{devices}"}
    return found


def processors(rule):
    """Give the number of CPU threads of a job."""
    return demand(STUDY.resources, rule).cpus or 1
