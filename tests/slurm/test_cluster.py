"""Run the workflow on a SLURM whose jobs run out of memory, are cancelled and requeued.

`make test-slurm` runs this; `make test` does not, because it takes minutes.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from tiny import study  # noqa: E402

from pais_bench.study.load import load_study  # noqa: E402

DAEMONS = ("munged", "slurmctld", "slurmd")
MISSING = [name for name in (*DAEMONS, "srun") if shutil.which(name, path=f"/usr/sbin:{os.environ['PATH']}") is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"no {', '.join(MISSING)}: apt-get install --no-install-recommends slurm-wlm munge"
)
MEMORY = 750
"""MB: too little for two Snakemakes and a training (about 1,000); twice as much is enough."""
STEPS = 400
"""So many that a fast machine still trains when a signal arrives; 60 took a second."""


@dataclass(frozen=True)
class Cluster:
    """Hold the environment of commands that use the cluster."""

    environment: dict[str, str]

    def run(self, *command: str) -> str:
        return subprocess.run(command, env=self.environment, capture_output=True, text=True, check=True).stdout

    def jobs(self, rule: str) -> list[dict[str, str]]:
        """Return SLURM's values of the jobs of a rule, finished or not, in the order of their submission."""
        lines = self.run("scontrol", "--oneliner", "show", "job").splitlines()
        jobs = [dict(text.partition("=")[::2] for text in line.split() if "=" in text) for line in lines]
        of_rule = [job for job in jobs if job.get("Comment", "").startswith(f"rule_{rule}")]
        return sorted(of_rule, key=lambda job: int(job["JobId"]))


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    home = tmp_path_factory.mktemp("slurm")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = min(free.getsockname()[1], 60000)
    script = str(ROOT / "tests/slurm/cluster.sh")
    subprocess.run([script, "up", str(home), str(port)], check=True, timeout=60)
    path = f"{home / 'bin'}:{os.environ['PATH']}"
    try:
        modules = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
        yield Cluster({**os.environ, "SLURM_CONF": str(home / "slurm.conf"), "PATH": path, "PYTHONPATH": modules})
    finally:
        subprocess.run([script, "down", str(home)], check=True, timeout=60)


class Project:
    """Hold a study of one training, and run it on the cluster or without."""

    def __init__(self, folder: Path, training: dict[str, Any] | None = None, **resources: Any) -> None:
        values = study(methods={"supervised": {}}, resources={"default": {"minutes": 10, "mem_mb": 1500}, **resources})
        values["training"] |= {"steps": STEPS, "checkpoint_every": 5, "evaluate_every": STEPS, "milestones": [STEPS]}
        values["training"] |= training or {}
        self.path, self.results = folder / "tiny.yaml", folder / "results"
        self.path.write_text(yaml.safe_dump(values))
        self.run = load_study(self.path).runs()[0]
        self.folder = self.results / self.run.folder

    @contextmanager
    def started(self, cluster: Cluster, *options: str) -> Iterator[subprocess.Popen[str]]:
        """Start the workflow with the shipped profile, with shorter waits than on a busy cluster."""
        profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
        profile |= {"latency-wait": 5, "slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 1}
        profile |= {"slurm-logdir": str(self.results / "logs/slurm"), "slurm-no-account": True}
        folder = self.path.parent / "profile"
        folder.mkdir(exist_ok=True)
        (folder / "config.yaml").write_text(yaml.safe_dump(profile))
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), *options]
        command += ["--directory", str(self.path.parent), "--workflow-profile", str(folder)]
        command += ["--config", f"study={self.path}", f"results={self.results}", f"python={sys.executable}"]
        with (self.path.parent / "output.txt").open("a") as file:
            workflow = subprocess.Popen(command, env=cluster.environment, stdout=file, stderr=file, text=True)
        try:
            yield workflow
        finally:
            workflow.kill()
            workflow.wait()

    def output(self) -> str:
        return (self.path.parent / "output.txt").read_text()[-6000:]

    def step(self) -> int:
        """Return the last step in the log of the training."""
        path = self.folder / "log.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        try:
            return int(json.loads(lines[-1])["step"]) if lines else 0
        except ValueError:
            return 0

    def owner(self) -> str | None:
        """Return the id of the job that trains, or None where no training has the folder."""
        try:
            return str(json.loads((self.folder / "lock.json").read_text())["job"])
        except (FileNotFoundError, ValueError):
            return None

    def train_without_slurm(self) -> Path:
        """Do the same training in one process, without SLURM or interruption, and return its folder."""
        results = self.path.parent / "reference"
        run = ["--percent", "10", "--fold", "1", "--network", "mask_rcnn", "--method", "supervised"]
        for name, options in (("prepare", []), ("split", run[:4]), ("train", run)):
            command = [sys.executable, "-m", "pais_bench", name, str(self.path), "--results", str(results), *options]
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            subprocess.run(command, check=True, capture_output=True, env=environment)
        return results / self.run.folder


def test_doctor_reads_the_partitions(cluster: Cluster, tmp_path: Path) -> None:
    project = Project(tmp_path, train={"gpus": 3})
    command = [sys.executable, "-m", "pais_bench", "doctor", "--for", str(project.path)]
    command += ["--results", str(project.results)]
    done = subprocess.run(command, env=cluster.environment, capture_output=True, text=True)
    assert "ok:   SLURM: gpu (default): 1 nodes of " in done.stdout and " 8000 MB, 2 GPUs, 24.0 h\n" in done.stdout
    assert "fail: resources of train: 3 GPUs a node, and no node of partition gpu has more than 2" in done.stdout
    assert "warn: sacct: Slurm accounting storage is disabled" in done.stdout and done.returncode == 1


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]


def read(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    return state


def wait_for(event: str, condition: Callable[[], Any], workflow: subprocess.Popen[str], project: Project) -> Any:
    """Wait until a condition is true, while the workflow runs, and return its value."""
    deadline = time.monotonic() + 240
    while not (value := condition()):
        assert workflow.poll() is None and time.monotonic() < deadline, f"no {event}\n{project.output()}"
        time.sleep(0.1)
    return value


def test_a_study_survives_lack_of_memory_preemption_and_cancellation(cluster: Cluster, tmp_path: Path) -> None:
    project = Project(tmp_path, train={"gpus": 1, "mem_mb": MEMORY})
    cluster.run("scontrol", "update", "NodeName=localhost", "State=DRAIN", "Reason=test")
    with project.started(cluster) as workflow:
        interrupt(cluster, project, workflow)
        assert workflow.wait(timeout=300) == 0, project.output()
    assert [job["JobState"] for job in cluster.jobs("report")] == ["COMPLETED"]
    assert (project.results / "reports/tiny/main_table.md").exists()
    assert json.loads((project.folder / "run.json").read_text())["steps"] == STEPS
    assert [line["step"] for line in logged(project.folder)] == [*range(1, STEPS + 1), STEPS]
    state, expected = read(project.folder), read(project.train_without_slurm())
    for model in ("student", "teacher"):
        assert all(torch.equal(state[model][name], value) for name, value in expected[model].items())


def interrupt(cluster: Cluster, project: Project, workflow: subprocess.Popen[str]) -> None:
    """Interrupt a running study in the ways of a cluster, and wait for each effect."""
    # A drained node starts no job before it is resumed.
    waiting = wait_for("pending job", lambda: cluster.jobs("prepare"), workflow, project)
    assert waiting[0]["JobState"] == "PENDING"
    cluster.run("scontrol", "update", "NodeName=localhost", "State=RESUME")

    # The first attempt has too little memory, the second requests twice as much.
    wait_for("second attempt", lambda: len(cluster.jobs("train")) == 2, workflow, project)
    first, second = cluster.jobs("train")
    assert first["JobState"] in ("OUT_OF_MEMORY", "FAILED") and f"mem={MEMORY}M" in first["TRES"]
    assert f"mem={2 * MEMORY}M" in second["TRES"] and second["TresPerJob"] == "gres:gpu:1"

    # After the signal of the time limit the training saves, and the job is requeued. The signal is sent after steps of
    # the second attempt: the first may have done some, and a process that still starts would only end.
    wait_for("training of the second attempt", lambda: project.owner() == second["JobId"], workflow, project)
    begin = project.step()
    wait_for("ten steps", lambda: project.step() >= begin + 10, workflow, project)
    cluster.run("scancel", "--signal=TERM", second["JobId"])
    wait_for("requeue", lambda: cluster.jobs("train")[1]["Restarts"] == "1", workflow, project)
    assert begin + 10 <= project.step() < STEPS

    # A cancelled job is not requeued; the next attempt continues.
    reached = project.step()
    wait_for("further steps", lambda: project.step() >= reached + 10, workflow, project)
    cluster.run("scancel", second["JobId"])
    wait_for("third attempt", lambda: len(cluster.jobs("train")) == 3, workflow, project)
    assert cluster.jobs("train")[1]["JobState"] == "CANCELLED"


def test_a_training_on_two_gpus_is_two_processes_with_the_steps_of_one(cluster: Cluster, tmp_path: Path) -> None:
    # AdamW amplifies rounding errors of small gradients; small steps of SGD leave the first proposals unchanged.
    project = Project(
        tmp_path, {"optimizer": "sgd", "lr": 0.002}, train={"gpus": 2, "mem_mb": 3500, "max_mem_mb": 4000}
    )
    with project.started(cluster, str(project.folder / "run.json")) as workflow:
        wait_for("ten steps", lambda: project.step() >= 10, workflow, project)
        (job,) = cluster.jobs("train")
        assert job["TresPerNode"] == "gres:gpu:2" and job["NumTasks"] == "2" and job["NumCPUs"] == "2"
        assert project.owner() == job["JobId"]

        # Both processes get the signal of the time limit, and save once; the same job continues with both.
        cluster.run("scancel", "--signal=TERM", job["JobId"])
        wait_for("requeue", lambda: cluster.jobs("train")[0]["Restarts"] == "1", workflow, project)
        assert 10 <= project.step() < STEPS
        assert workflow.wait(timeout=300) == 0, project.output()
    assert len(cluster.jobs("train")) == 1
    assert json.loads((project.folder / "run.json").read_text())["hardware"]["devices"] == 2
    lines, expected = logged(project.folder), logged(project.train_without_slurm())
    assert [line["step"] for line in lines] == [line["step"] for line in expected] == [*range(1, STEPS + 1), STEPS]
    for line, other in zip(lines[:4], expected[:4], strict=True):  # in single precision they diverge after some steps
        assert line["loss"] == pytest.approx(other["loss"], rel=1e-4)
