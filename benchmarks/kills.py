"""Check that a training that is killed at random moments ends like one that is not.

python benchmarks/kills.py [STUDY] [--kills 200] [--seed 0] [--steps 400]

Trains the first run of a study twice: once without interruption, and once killed by SIGKILL or SIGTERM and started
again. Every other kill waits until a checkpoint is being written. Then student, teacher, optimiser, log and predictions
are compared bit for bit; the script fails where one differs. Trainings are forked from a process that has imported
torch, so that a start is fast.
"""

from __future__ import annotations

import argparse
import importlib
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

from pais_bench import plugins
from pais_bench.cli.main import main as run_command
from pais_bench.study.load import load_study
from pais_bench.training.preemption import INTERRUPTED

START = 0.2
"""Seconds of a start; every fourth kill is within them."""
RESERVE = 5
"""Steps that are left after the last kill."""


def main() -> None:
    """Train twice, and print the kills of the second training and how long it took to stop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", nargs="?", type=Path, help="study file (default: the demo, with small data)")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, default=400, help="steps of the default study")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = arguments.study or small_demo(folder / "small.yaml", arguments.steps)
        reference, killed = Training(path, folder / "reference"), Training(path, folder / "killed")
        begin = time.monotonic()
        reference.finish()
        seconds = time.monotonic() - begin
        summary = kill(killed, arguments.kills, seconds / killed.steps, random.Random(arguments.seed))
        killed.finish()
        faults = differences(reference.folder, killed.folder)
    print(f"{summary}; the training without interruption took {seconds:.1f} s")
    if faults:
        sys.exit(f"different: {', '.join(faults)}")
    print("equal: student, teacher, optimiser, log, predictions")


class Training:
    """Hold the first run of a study in a results folder of its own."""

    def __init__(self, path: Path, results: Path) -> None:
        run = load_study(path).runs()[0]
        for module in ("pais_bench.training.trainer", "pais_bench.training.predict"):
            importlib.import_module(module)  # once, before the forks
        plugins.load("backends", f"{run.network.backend}/{run.network.name}")
        split = ("--percent", f"{run.split.percent:g}", "--fold", str(run.split.fold))
        self.split = (str(path), "--results", str(results), *split)
        self.run = (*self.split, "--network", run.network.label, "--method", run.method.label)
        self.folder, self.output, self.steps = results / run.folder, results / "output.txt", run.training.steps
        results.mkdir()
        run_forked("prepare", *self.split[:3], output=self.output)
        run_forked("split", *self.split, output=self.output)

    def start(self) -> int:
        """Start training, and return its pid."""
        return fork("train", *self.run, output=self.output)

    def step(self) -> int:
        """Return the last step in the log; a line that is being written does not count."""
        path = self.folder / "log.jsonl"
        lines = (path.read_text() if path.exists() else "").rpartition("\n")[0].splitlines()
        return int(json.loads(lines[-1])["step"]) if lines else 0

    def finish(self) -> None:
        """Train to the end, and predict."""
        run_forked("train", *self.run, output=self.output)
        run_forked("predict", *self.run, output=self.output)


def kill(training: Training, kills: int, step_seconds: float, rng: random.Random) -> str:
    """Start a training and kill it repeatedly, while it starts or in a step, and return a summary.

    The steps that are left are divided among the kills that are left, so that it still trains at the last kill however
    busy the machine is.
    """
    ends: Counter[str] = Counter()
    slowest = 0.0
    partial = training.folder / "checkpoint.tmp"
    for number in range(kills):
        partial.unlink(missing_ok=True)
        pid, left = training.start(), training.steps - RESERVE - training.step()
        if left <= 0 or rng.random() < 0.25:
            time.sleep(rng.uniform(0, START))
        else:
            due = training.step() + rng.uniform(0, 2 * left / (kills - number))
            wait_until(lambda: training.step() >= int(due) or not alive(pid), pause=0.005)  # noqa: B023
            time.sleep(rng.uniform(0, step_seconds))
        if number % 2 and training.step() < training.steps - RESERVE:
            wait_until(lambda: partial.exists() or not alive(pid))  # noqa: B023
        sent = rng.choice((signal.SIGKILL, signal.SIGTERM))
        os.kill(pid, sent)
        begin = time.monotonic()
        _, status = os.waitpid(pid, 0)
        slowest = max(slowest, time.monotonic() - begin)
        if status == 0:
            sys.exit(f"the training ended before kill {number + 1} of {kills}; give it more steps")
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) != INTERRUPTED:
            sys.exit(f"the training failed after kill {number}:\n{training.output.read_text()[-2000:]}")
        ends[sent.name] += 1
        ends["incomplete"] += partial.exists()
    return (
        f"{ends['SIGKILL']} times SIGKILL, {ends['SIGTERM']} times SIGTERM; {ends['incomplete']} checkpoints "
        f"incomplete; slowest end {slowest:.2f} s after the signal"
    )


def wait_until(condition: Callable[[], bool], pause: float = 0.0002) -> None:
    """Wait until a condition holds, at most two minutes, with pauses in s."""
    deadline = time.monotonic() + 120
    while not condition() and time.monotonic() < deadline:
        time.sleep(pause)


def alive(pid: int) -> bool:
    """Return whether a child is still running, without reaping it."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def fork(*arguments: str, output: Path) -> int:
    """Start a command in a forked process, and return its pid."""
    pid = os.fork()
    if pid:
        return pid
    with output.open("a") as file:
        os.dup2(file.fileno(), sys.stderr.fileno())
        os.dup2(file.fileno(), sys.stdout.fileno())
    code = 1
    try:
        code = run_command(arguments)
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        os._exit(code)


def run_forked(*arguments: str, output: Path) -> None:
    """Run a command in a forked process to its end."""
    _, status = os.waitpid(fork(*arguments, output=output), 0)
    if status:
        sys.exit(f"{' '.join(arguments)} failed:\n{output.read_text()[-2000:]}")


def differences(first: Path, second: Path) -> list[str]:
    """Return the names of the results that differ between two finished runs."""
    a, b = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (first, second))
    different = [name for name in ("step", "student", "teacher", "optimizer") if not equal(a[name], b[name])]
    if log(first) != log(second):
        different.append("log.jsonl")
    if (first / "predictions.json").read_bytes() != (second / "predictions.json").read_bytes():
        different.append("predictions.json")
    return different


def equal(first: Any, second: Any) -> bool:
    """Return whether two values of a checkpoint are equal, bit for bit."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    if isinstance(first, (list, tuple)):
        return len(first) == len(second) and all(equal(a, b) for a, b in zip(first, second, strict=True))
    return bool(first == second)


def log(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a log without their times."""
    lines = [json.loads(text) for text in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def small_demo(path: Path, steps: int) -> Path:
    """Write the demo with small data, and a checkpoint every other step."""
    training = {"steps": steps, "burn_in": 0, "evaluate_images": 4, "milestones": [max(1, steps - 10)]}
    training |= {"log_every": 1, "checkpoint_every": 2, "evaluate_every": steps // 8}
    study = {
        "base": "demo",
        "name": "small",
        "dataset": {"options": {"train": 120, "val": 8}},
        "split": {"percents": [10]},
        "training": training,
        "methods": dict.fromkeys(set(load_study("demo").methods) - {"pais"}),
    }
    path.write_text(yaml.safe_dump(study))
    return path


if __name__ == "__main__":
    main()
