"""Does a training that is killed again and again end like one that is not? Killed for real, at random moments.

python benchmarks/kills.py [STUDY] [--kills 200] [--seed 0] [--steps 400]

Trains the first run of a study twice: once undisturbed, and once killed, by SIGKILL or SIGTERM, and started again.
Every other kill waits for the moment when a checkpoint is being written. Then weights, average, optimiser, log and
predictions are compared bit for bit; the script fails where one differs. Trainings are forked from a process that has
imported torch, so that a start costs a moment.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from pais_bench import cli, engine, plugins, study_file
from pais_bench.interruption import INTERRUPTED

START = 0.2
"""Seconds of a start, in which every fourth kill falls."""
RESERVE = 5
"""Steps that are left for the end."""


def main() -> None:
    """Train twice, and print what was done to the second training and how long it took to stop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", type=Path, help="study file (default: the demo, with small data)")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=400, help="steps of the default study")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        path = given.study or shrunk(folder / "small.yaml", given.steps)
        whole, broken = Training(path, folder / "whole"), Training(path, folder / "broken")
        begun = time.monotonic()
        whole.finish()
        seconds = time.monotonic() - begun
        told = kill(broken, given.kills, seconds / broken.steps, random.Random(given.seed))
        broken.finish()
        faults = differences(whole.folder, broken.folder)
    print("; ".join(told), f"the undisturbed training took {seconds:.1f} s", sep="; ")
    if faults:
        sys.exit(f"different: {', '.join(faults)}")
    print("equal: weights, average, optimiser, log, predictions")


class Training:
    """Hold the first run of a study in a results folder of its own."""

    def __init__(self, path: Path, results: Path) -> None:
        study = study_file.load_study(path)
        run = study.runs()[0]
        plugins.load("backends", f"{run.network.backend}/{run.network.name}")  # imported once, before the forks
        of_split = ("--percent", f"{run.split.percent:g}", "--fold", str(run.split.fold))
        self.split = (str(path), "--results", str(results), *of_split)
        self.run = (*self.split, "--network", run.network.label, "--method", run.method.label)
        self.folder, self.said, self.steps = results / run.folder, results / "said.txt", run.training.steps
        results.mkdir()
        done("prepare", *self.split[:3], said=self.said)
        done("split", *self.split, said=self.said)

    def start(self) -> int:
        """Start training, and give its pid."""
        return fork("train", *self.run, said=self.said)

    def step(self) -> int:
        """Give the last step in the log, as far as it is written."""
        path = self.folder / "log.jsonl"
        whole = (path.read_text() if path.exists() else "").rpartition("\n")[0].splitlines()
        return int(json.loads(whole[-1])["step"]) if whole else 0

    def finish(self) -> None:
        """Train to the end, and predict."""
        done("train", *self.run, said=self.said)
        done("predict", *self.run, said=self.said)


def kill(training: Training, kills: int, pace: float, draw: random.Random) -> list[str]:
    """Start a training and kill it, again and again: while it starts, or in a step; pace is the seconds of one.

    What is left of its steps is divided among the kills that are left, so that the last finds it still training,
    however busy the machine is.
    """
    ends: Counter[str] = Counter()
    slowest = 0.0
    partial = training.folder / "checkpoint.tmp"
    for number in range(kills):
        partial.unlink(missing_ok=True)
        pid, left = training.start(), training.steps - RESERVE - training.step()
        if left <= 0 or draw.random() < 0.25:
            time.sleep(draw.uniform(0, START))
        else:
            due = training.step() + draw.uniform(0, 2 * left / (kills - number))
            wait_until(lambda: training.step() >= int(due) or not alive(pid))  # noqa: B023
            time.sleep(draw.uniform(0, pace))
        if number % 2 and training.step() < training.steps - RESERVE:
            wait_until(lambda: partial.exists() or not alive(pid))  # noqa: B023
        how = draw.choice((signal.SIGKILL, signal.SIGTERM))
        os.kill(pid, how)
        begun = time.monotonic()
        _, status = os.waitpid(pid, 0)
        slowest = max(slowest, time.monotonic() - begun)
        if status == 0:
            sys.exit(f"the training ended before kill {number + 1} of {kills}; give it more steps")
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) != INTERRUPTED:
            sys.exit(f"the training failed after kill {number}:\n{training.said.read_text()[-2000:]}")
        ends[how.name] += 1
        ends["torn"] += partial.exists()
    counts = f"{ends['SIGKILL']} times SIGKILL, {ends['SIGTERM']} times SIGTERM"
    return [counts, f"{ends['torn']} checkpoints torn", f"slowest end {slowest:.2f} s after the signal"]


def wait_until(true: Callable[[], bool]) -> None:
    """Wait until something is so, at most two minutes."""
    until = time.monotonic() + 120
    while not true() and time.monotonic() < until:
        time.sleep(0.0002)


def alive(pid: int) -> bool:
    """Say whether a child has not ended by itself, and leave it to be waited for."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def fork(*words: str, said: Path) -> int:
    """Run one verb in a process of its own, and give its pid."""
    pid = os.fork()
    if pid:
        return pid
    with said.open("a") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
        os.dup2(file.fileno(), sys.stdout.fileno())
    code = 1
    try:
        code = cli.main(words)
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        os._exit(code)


def done(*words: str, said: Path) -> None:
    """Run one verb to its end."""
    _, status = os.waitpid(fork(*words, said=said), 0)
    if status:
        sys.exit(f"{' '.join(words)} failed:\n{said.read_text()[-2000:]}")


def differences(one: Path, other: Path) -> list[str]:
    """Name what differs between two finished runs."""
    mine, theirs = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (one, other))
    found = [name for name in ("step", "student", "teacher", "optimizer") if not same(mine[name], theirs[name])]
    if log(one) != log(other):
        found.append("log.jsonl")
    if (one / "predictions.json").read_bytes() != (other / "predictions.json").read_bytes():
        found.append("predictions.json")
    return found


def same(mine: Any, theirs: Any) -> bool:
    """Say whether two parts of a checkpoint are equal, bit for bit."""
    if isinstance(mine, torch.Tensor):
        return torch.equal(mine, theirs)
    if isinstance(mine, dict):
        return mine.keys() == theirs.keys() and all(same(mine[key], theirs[key]) for key in mine)
    if isinstance(mine, (list, tuple)):
        return len(mine) == len(theirs) and all(same(a, b) for a, b in zip(mine, theirs, strict=True))
    return bool(mine == theirs)


def log(folder: Path) -> list[dict[str, Any]]:
    """Give the lines of a log without their times."""
    lines = [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def shrunk(path: Path, steps: int) -> Path:
    """Write the demo with small data, and a checkpoint every other step."""
    study = yaml.safe_load((study_file.STUDIES / "demo.yaml").read_text())
    study["dataset"]["options"] |= {"train": 120, "val": 8}
    study["split"]["percents"] = [10]
    often = {"steps": steps, "burn_in": 0, "log_every": 1, "checkpoint_every": 2, "evaluate_every": steps // 8}
    study["training"] |= {**often, "evaluate_images": 4, "milestones": [max(1, steps - 10)]}
    study["methods"] = {"pais": study["methods"]["pais"]}
    path.write_text(yaml.safe_dump(study))
    return path


if __name__ == "__main__":
    assert engine  # imported before the forks
    main()
