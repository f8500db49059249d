"""Does the workflow survive a real SLURM? Jobs that succeed, run out of memory, are cancelled, and lose their node.

`make test-slurm` runs this; it takes minutes, so `make test` does not.
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

from pais_bench.study_file import load_study  # noqa: E402

DAEMONS = ("munged", "slurmctld", "slurmd")
MISSING = [name for name in (*DAEMONS, "srun") if shutil.which(name, path=f"/usr/sbin:{os.environ['PATH']}") is None]
pytestmark = pytest.mark.skipif(
    bool(MISSING), reason=f"no {', '.join(MISSING)}: apt-get install --no-install-recommends slurm-wlm munge"
)
MEMORY = 750
"""MB: too little for two Snakemakes and a training (about 1,000), and twice of it is enough."""
STEPS = 400
"""So many that a fast machine still trains when what a test does to it arrives; 60 were over in a second."""


@dataclass(frozen=True)
class Cluster:
    """Hold the environment of commands that talk to the cluster."""

    environment: dict[str, str]

    def run(self, *words: str) -> str:
        return subprocess.run(words, env=self.environment, capture_output=True, text=True, check=True).stdout

    def jobs(self, rule: str) -> list[dict[str, str]]:
        """Give what SLURM knows of the jobs of a rule, finished or not, in the order of their submission."""
        texts = self.run("scontrol", "--oneliner", "show", "job").splitlines()
        told = [dict(word.partition("=")[::2] for word in text.split() if "=" in word) for text in texts]
        chosen = [one for one in told if one.get("Comment", "").startswith(f"rule_{rule}")]
        return sorted(chosen, key=lambda one: int(one["JobId"]))


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
    """Hold a study of one training, and the two ways to make it."""

    def __init__(self, folder: Path, training: dict[str, Any] | None = None, **resources: Any) -> None:
        values = study(methods={"supervised": {}}, resources={"default": {"minutes": 10, "mem_mb": 1500}, **resources})
        values["training"] |= {"steps": STEPS, "checkpoint_every": 5, "evaluate_every": STEPS, "milestones": [STEPS]}
        values["training"] |= training or {}
        self.path, self.results = folder / "tiny.yaml", folder / "results"
        self.path.write_text(yaml.safe_dump(values))
        self.run = load_study(self.path).runs()[0]
        self.folder = self.results / self.run.folder

    @contextmanager
    def started(self, cluster: Cluster, *words: str) -> Iterator[subprocess.Popen[str]]:
        """Start the workflow with the shipped profile, waiting less than on a busy cluster."""
        profile = yaml.safe_load((ROOT / "profiles/slurm/config.yaml").read_text())
        profile |= {"latency-wait": 5, "slurm-status-command": "squeue", "slurm-init-seconds-before-status-checks": 1}
        profile |= {"slurm-logdir": str(self.results / "logs/slurm"), "slurm-no-account": True}
        place = self.path.parent / "profile"
        place.mkdir(exist_ok=True)
        (place / "config.yaml").write_text(yaml.safe_dump(profile))
        command = (sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), *words)
        config = (f"study={self.path}", f"results={self.results}", f"python={sys.executable}")
        place = ("--directory", str(self.path.parent), "--workflow-profile", str(place))
        with (self.path.parent / "said.txt").open("a") as said:
            whole = [*command, *place, "--config", *config]
            workflow = subprocess.Popen(whole, env=cluster.environment, stdout=said, stderr=said, text=True)
        try:
            yield workflow
        finally:
            workflow.kill()
            workflow.wait()

    def said(self) -> str:
        return (self.path.parent / "said.txt").read_text()[-6000:]

    def step(self) -> int:
        """Give the last step in the log of the training."""
        path = self.folder / "log.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        try:
            return int(json.loads(lines[-1])["step"]) if lines else 0
        except ValueError:
            return 0

    def owner(self) -> str | None:
        """Give the job that trains, or None where no training has the folder."""
        try:
            return str(json.loads((self.folder / "lock.json").read_text())["job"])
        except (FileNotFoundError, ValueError):
            return None

    def alone(self) -> Path:
        """Do the same training in one process, without SLURM or interruption, and give its folder."""
        results = self.path.parent / "alone"
        words = ["--percent", "10", "--fold", "1", "--network", "mask_rcnn", "--method", "supervised"]
        for verb, chosen in (("prepare", []), ("split", words[:4]), ("train", words)):
            command = [sys.executable, "-m", "pais_bench", verb, str(self.path), "--results", str(results), *chosen]
            environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
            subprocess.run(command, check=True, capture_output=True, env=environment)
        return results / self.run.folder


def logged(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]


def read(folder: Path) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(folder / "checkpoint.pt", weights_only=True)
    return state


def wait_for(what: str, true: Callable[[], Any], workflow: subprocess.Popen[str], project: Project) -> Any:
    """Wait until something is true, while the workflow runs."""
    until = time.monotonic() + 240
    while not (found := true()):
        assert workflow.poll() is None and time.monotonic() < until, f"{what}: not seen\n{project.said()}"
        time.sleep(0.1)
    return found


def test_a_study_survives_what_a_cluster_does_to_it(cluster: Cluster, tmp_path: Path) -> None:
    project = Project(tmp_path, train={"gpus": 1, "mem_mb": MEMORY})
    cluster.run("scontrol", "update", "NodeName=localhost", "State=DRAIN", "Reason=test")
    with project.started(cluster) as workflow:
        trouble(cluster, project, workflow)
        assert workflow.wait(timeout=300) == 0, project.said()
    assert [job["JobState"] for job in cluster.jobs("report")] == ["COMPLETED"]
    assert (project.results / "reports/tiny/main_table.md").exists()
    told = json.loads((project.folder / "run.json").read_text())
    assert told["steps"] == STEPS
    assert [line["step"] for line in logged(project.folder)] == [*range(1, STEPS + 1), STEPS]
    ours, theirs = read(project.folder), read(project.alone())
    for model in ("student", "teacher"):
        assert all(torch.equal(ours[model][name], value) for name, value in theirs[model].items())


def trouble(cluster: Cluster, project: Project, workflow: subprocess.Popen[str]) -> None:
    """Do to a running study what clusters do, and wait for each to be seen."""
    # A drained node starts nothing; resumed, it does.
    waiting = wait_for("a job that waits", lambda: cluster.jobs("prepare"), workflow, project)
    assert waiting[0]["JobState"] == "PENDING"
    cluster.run("scontrol", "update", "NodeName=localhost", "State=RESUME")

    # The first attempt has too little memory, the second asks for twice as much.
    wait_for("a second attempt", lambda: len(cluster.jobs("train")) == 2, workflow, project)
    first, second = cluster.jobs("train")
    assert first["JobState"] in ("OUT_OF_MEMORY", "FAILED") and f"mem={MEMORY}M" in first["TRES"]
    assert f"mem={2 * MEMORY}M" in second["TRES"] and second["TresPerJob"] == "gres:gpu:1"

    # The signal that says that the time is up: saved, and queued again as the same job. Steps of the second attempt:
    # the first may have made some, and a process that still starts would only end.
    wait_for("the second at work", lambda: project.owner() == second["JobId"], workflow, project)
    begun = project.step()
    wait_for("ten steps", lambda: project.step() >= begun + 10, workflow, project)
    cluster.run("scancel", "--signal=TERM", second["JobId"])
    wait_for("a requeue", lambda: cluster.jobs("train")[1]["Restarts"] == "1", workflow, project)
    assert begun + 10 <= project.step() < STEPS

    # Cancelled while it trains: not queued again by itself; the next attempt goes on.
    reached = project.step()
    wait_for("further steps", lambda: project.step() >= reached + 10, workflow, project)
    cluster.run("scancel", second["JobId"])
    wait_for("a third attempt", lambda: len(cluster.jobs("train")) == 3, workflow, project)
    assert cluster.jobs("train")[1]["JobState"] == "CANCELLED"


def test_a_training_on_two_gpus_is_two_processes_that_make_the_steps_of_one(cluster: Cluster, tmp_path: Path) -> None:
    # AdamW makes a step of any gradient's last digit; of SGD's small ones no region comes or goes in the first steps.
    project = Project(
        tmp_path, {"optimizer": "sgd", "lr": 0.002}, train={"gpus": 2, "mem_mb": 3500, "max_mem_mb": 4000}
    )
    with project.started(cluster, str(project.folder / "run.json")) as workflow:
        wait_for("ten steps", lambda: project.step() >= 10, workflow, project)
        (job,) = cluster.jobs("train")
        assert job["TresPerNode"] == "gres:gpu:2" and job["NumTasks"] == "2" and job["NumCPUs"] == "2"
        assert project.owner() == job["JobId"]

        # Both processes are told that the time is up, and save once; the same job goes on with both.
        cluster.run("scancel", "--signal=TERM", job["JobId"])
        wait_for("a requeue", lambda: cluster.jobs("train")[0]["Restarts"] == "1", workflow, project)
        assert 10 <= project.step() < STEPS
        assert workflow.wait(timeout=300) == 0, project.said()
    assert len(cluster.jobs("train")) == 1
    assert json.loads((project.folder / "run.json").read_text())["hardware"]["devices"] == 2
    ours, theirs = logged(project.folder), logged(project.alone())
    assert [line["step"] for line in ours] == [line["step"] for line in theirs] == [*range(1, STEPS + 1), STEPS]
    for mine, other in zip(ours[:4], theirs[:4], strict=True):  # in single precision they part after some steps
        assert mine["loss"] == pytest.approx(other["loss"], rel=1e-4)
