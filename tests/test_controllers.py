"""Run Snakemakes on one results folder and in one working directory, at once and after a crash of one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from tiny import study

from pais_bench.cli.main import main
from pais_bench.study.load import load_study

ROOT = Path(__file__).parent.parent
STEPS = 30
SLOWLY = """#!/bin/sh
shift 2
exec {python} -c '
import sys, time
from pais_bench.cli.main import main
from pais_bench.training import lock, trainer
lock.BEAT = 1.0
step = trainer.train_step
trainer.train_step = lambda *arguments: time.sleep(1) or step(*arguments)
sys.exit(main(sys.argv[1:]))
' "$@"
"""
"""A Python that trains a step a second: the first still trains when the second has seen a touch, every second."""


class Controllers:
    """Hold a study of one training, a results folder, and the workflows that are started on it."""

    def __init__(self, folder: Path) -> None:
        values = study(methods={"supervised": {}})
        values["training"] |= {"steps": STEPS, "checkpoint_every": 1, "evaluate_every": STEPS, "milestones": [STEPS]}
        self.home, self.path, self.results = folder, folder / "tiny.yaml", folder / "results"
        self.path.write_text(yaml.safe_dump(values))
        self.folder = self.results / load_study(self.path).runs()[0].folder
        self.slow = folder / "slow"
        self.slow.write_text(SLOWLY.format(python=sys.executable))
        self.slow.chmod(0o755)

    @contextmanager
    def started(self, name: str, *options: str, slowly: bool = False) -> Iterator[subprocess.Popen[bytes]]:
        """Start a workflow in a working directory and a process group of its own."""
        directory = self.home / name
        directory.mkdir(exist_ok=True)
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), *options]
        command += ["--directory", str(directory), "--workflow-profile", str(ROOT / "profiles/local"), "--cores", "1"]
        python = self.slow if slowly else sys.executable
        command += ["--config", f"study={self.path}", f"results={self.results}", f"python={python}"]
        with (directory / "output.txt").open("w") as file:
            process = subprocess.Popen(command, stdout=file, stderr=file, start_new_session=True, env=environment())
        try:
            yield process
        finally:
            kill(process)

    def output(self, name: str) -> str:
        return (self.home / name / "output.txt").read_text()

    def run(self, name: str, *options: str) -> int:
        """Run a workflow to its end."""
        with self.started(name, *options) as process:
            return process.wait(timeout=300)

    def trained(self) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Return the last checkpoint and the log, without times."""
        state = torch.load(self.folder / "checkpoint.pt", weights_only=True)
        lines = [json.loads(text) for text in (self.folder / "log.jsonl").read_text().splitlines()]
        return state, [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a controller and its jobs, as a crash of the machine does."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    process.wait()


def test_of_two_controllers_one_is_refused_and_continues_after_a_crash_of_the_other(tmp_path: Path) -> None:
    controllers = Controllers(tmp_path)
    split = controllers.results / "splits/shapes/soft_teacher/10pct-fold1.json"
    assert controllers.run("first", str(split)) == 0, controllers.output("first")
    target = str(controllers.folder / "run.json")
    with (
        controllers.started("first", target, slowly=True) as first,
        controllers.started("second", target, slowly=True) as second,
    ):
        deadline = time.monotonic() + 240
        while (codes := [process.poll() for process in (first, second)]) == [None, None]:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert sorted(map(str, codes)) == ["1", "None"], controllers.output("first") + controllers.output("second")
        loser, winner = ("first", second) if codes[0] == 1 else ("second", first)
        while not (controllers.folder / "checkpoint.pt").exists():
            assert winner.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        # A third, in the working directory of the winner, is refused by Snakemake's lock.
        directory = controllers.home / ("second" if loser == "first" else "first")
        command = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "1", target]
        command += ["--directory", str(directory), "--config", f"study={controllers.path}"]
        command += [f"results={controllers.results}"]
        third = subprocess.run(command, capture_output=True, text=True, env=environment())
        assert third.returncode == 1 and "Directory cannot be locked" in third.stderr
        kill(winner)
    output = controllers.output(loser)
    (line,) = {line.strip() for line in output.splitlines() if "pais-bench train: error: " in line}
    assert "trains here, and was alive" in line and line.endswith("wait for it, or end it, and try again")
    assert "Traceback" not in output
    reached = torch.load(controllers.folder / "checkpoint.pt", weights_only=True)["step"]
    assert 0 < reached < STEPS

    # The refused controller continues, although the killed one left its lock.
    assert (controllers.folder / "lock.json").exists()
    assert controllers.run(loser, target) == 0, controllers.output(loser)
    assert f"step {reached} of {STEPS}" in controllers.output(loser)
    assert not (controllers.folder / "lock.json").exists()

    (tmp_path / "alone").mkdir()
    alone = Controllers(tmp_path / "alone")
    for name in ("datasets", "splits"):
        shutil.copytree(controllers.results / name, alone.results / name)
    run = ["--results", str(alone.results), "--percent", "10", "--fold", "1", "--network", "mask_rcnn"]
    main(["train", str(alone.path), *run, "--method", "supervised", "--threads", "1"])
    (state, log), (expected_state, expected_log) = controllers.trained(), alone.trained()
    assert log == expected_log and [line["step"] for line in log if line["event"] == "step"] == list(
        range(1, STEPS + 1)
    )
    for model in ("student", "teacher"):
        assert all(torch.equal(state[model][name], value) for name, value in expected_state[model].items())
