"""What do two controllers do to each other? Real Snakemakes on one results folder, at once and after a crash."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tiny import study

from pais_bench.study_file import load_study

ROOT = Path(__file__).parent.parent
STEPS = 300
"""So many that the first still trains when the second has seen its lock touched, every 5 s."""


class Controllers:
    """Hold a study of one training, a results folder, and the workflows that are started on it."""

    def __init__(self, folder: Path) -> None:
        values = study(methods={"supervised": {}})
        values["training"] |= {"steps": STEPS, "checkpoint_every": 1, "evaluate_every": STEPS, "milestones": [STEPS]}
        self.home, self.path, self.results = folder, folder / "tiny.yaml", folder / "results"
        self.path.write_text(yaml.safe_dump(values))
        self.folder = self.results / load_study(self.path).runs()[0].folder

    @contextmanager
    def started(self, place: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
        """Start a workflow in a working directory of its own, as the leader of the processes that it starts."""
        directory = self.home / place
        directory.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), *words]
        command += ["--directory", str(directory), "--workflow-profile", str(ROOT / "profiles/local"), "--cores", "1"]
        command += ["--config", f"study={self.path}", f"results={self.results}", f"python={sys.executable}"]
        with (directory / "said.txt").open("w") as said:
            one = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True, env=environment())
        try:
            yield one
        finally:
            kill(one)

    def said(self, place: str) -> str:
        return (self.home / place / "said.txt").read_text()

    def run(self, place: str, *words: str) -> int:
        """Run a workflow to its end."""
        with self.started(place, *words) as one:
            return one.wait(timeout=300)

    def trained(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Give the last checkpoint and the log, without times."""
        state = torch.load(self.folder / "checkpoint.pt", weights_only=True)
        lines = [json.loads(text) for text in (self.folder / "log.jsonl").read_text().splitlines()]
        return state, [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def kill(one: subprocess.Popen[bytes]) -> None:
    """End a controller and all that it started, as a machine that crashes does."""
    try:
        os.killpg(one.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    one.wait()


@pytest.fixture
def controllers(tmp_path: Path) -> Controllers:
    both = Controllers(tmp_path)
    split = both.results / "splits/shapes/soft_teacher/10pct-fold1.json"
    assert both.run("first", str(split)) == 0, both.said("first")
    return both


def test_of_two_controllers_one_is_refused_and_goes_on_after_a_crash_of_the_other(
    controllers: Controllers, tmp_path: Path
) -> None:
    target = str(controllers.folder / "run.json")
    with controllers.started("first", target) as first, controllers.started("second", target) as second:
        until = time.monotonic() + 240
        while (ended := [one.poll() for one in (first, second)]) == [None, None]:
            assert time.monotonic() < until
            time.sleep(0.1)
        assert sorted(map(str, ended)) == ["1", "None"], controllers.said("first") + controllers.said("second")
        loser, winner = ("first", second) if ended[0] == 1 else ("second", first)
        kill(winner)
    said = controllers.said(loser)
    (line,) = {line.strip() for line in said.splitlines() if "pais-bench train: error: " in line}
    assert "trains here, and was alive" in line and line.endswith("wait for it, or end it, and try again")
    assert "Traceback" not in said
    reached = torch.load(controllers.folder / "checkpoint.pt", weights_only=True)["step"]
    assert 0 < reached < STEPS

    # Nothing is lost: the one that was refused goes on, also beside the lock that the dead one left.
    assert (controllers.folder / "lock.json").exists()
    assert controllers.run(loser, target) == 0, controllers.said(loser)
    assert f"step {reached} of {STEPS}" in controllers.said(loser)
    assert not (controllers.folder / "lock.json").exists()

    (tmp_path / "alone").mkdir()
    alone = Controllers(tmp_path / "alone")
    assert alone.run("only", str(alone.folder / "run.json")) == 0, alone.said("only")
    (ours, log), (theirs, other) = controllers.trained(), alone.trained()
    assert log == other and [line["step"] for line in log if line["event"] == "step"] == list(range(1, STEPS + 1))
    for model in ("student", "teacher"):
        assert all(torch.equal(ours[model][name], value) for name, value in theirs[model].items())


def test_two_controllers_in_one_working_directory_are_refused_by_its_lock(controllers: Controllers) -> None:
    target = str(controllers.folder / "run.json")
    with controllers.started("first", target):
        until = time.monotonic() + 60
        while not (controllers.folder / "log.jsonl").exists():
            assert time.monotonic() < until
            time.sleep(0.1)
        command = ["--directory", str(controllers.home / "first"), "--cores", "1", target]
        command += ["--config", f"study={controllers.path}", f"results={controllers.results}"]
        words = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), *command]
        done = subprocess.run(words, capture_output=True, text=True, env=environment())
    assert done.returncode == 1 and "Directory cannot be locked" in done.stderr
