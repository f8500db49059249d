"""Time the training by two processes and by one: the same total batch, one thread each, gloo on the CPU.

python benchmarks/scaling.py [--study demo] [--steps 40] [--batch 8] [--methods supervised pais] [--times 2]

Trains a run of the study with one process and with two, in turn, and prints the median time of a step after the
first quarter (from the log, without loading and evaluation). One process on two threads is measured too, because that
is the other use of a second core.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from pais_bench.study.load import load_study

ROOT = Path(__file__).resolve().parent.parent
SETUPS = {"one process": (1, 1), "two processes": (2, 1), "one process on two threads": (1, 2)}
"""Processes, and threads of each."""


def main() -> None:
    """Train each method in each setup, and print the seconds of a step and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="demo")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=8, help="labelled images of a step, and as many unlabelled ones")
    parser.add_argument("--methods", nargs="+", default=["supervised", "pais"])
    parser.add_argument("--times", type=int, default=2)
    arguments = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} before, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        path = write_short_study(folder / "short.yaml", arguments.study, arguments.steps, arguments.batch)
        run_command("prepare", path, folder / "first")
        for method in arguments.methods:
            seconds: dict[str, list[float]] = {setup: [] for setup in SETUPS}
            for number in range(arguments.times):
                for setup, (processes, threads) in SETUPS.items():
                    results = folder / f"{method}-{number}-{processes}-{threads}"
                    results.mkdir()
                    (results / "datasets").symlink_to(folder / "first/datasets")
                    seconds[setup].append(step_seconds(path, results, method, processes, threads))
            baseline = statistics.median(seconds["one process"])
            for setup, values in seconds.items():
                median = statistics.median(values)
                print(f"{method}: {setup}: {1000 * median:.0f} ms a step, {baseline / median:.2f} times as fast as one")


def write_short_study(path: Path, base: str, steps: int, batch: int) -> Path:
    """Write a study of few steps that is evaluated once and uses pseudo-labels from the first step."""
    training = {"steps": steps, "milestones": [steps], "burn_in": 0, "log_every": 1}
    training |= {"labelled_batch_size": batch, "unlabelled_batch_size": batch, "evaluate_every": steps}
    training |= {"evaluate_images": 4, "checkpoint_every": steps}
    study = {"base": base, "name": "short", "dataset": {"options": {"val": 4}}, "training": training}
    path.write_text(yaml.safe_dump(study))
    return path


def step_seconds(path: Path, results: Path, method: str, processes: int, threads: int) -> float:
    """Train, and return the median seconds of a step after the first quarter."""
    run = next(run for run in load_study(path).runs() if run.method.label == method and run.split.percent == 10)
    options = ["--percent", "10", "--fold", str(run.split.fold)]
    run_command("split", path, results, *options)
    options += ["--network", run.network.label, "--method", method]
    options += ["--devices", str(processes), "--threads", str(threads), "--accelerator", "cpu"]
    run_command("train", path, results, *options, threads=threads)
    lines = [json.loads(text) for text in (results / run.folder / "log.jsonl").read_text().splitlines()]
    times = [line["seconds"] for line in lines if line["event"] == "step"]
    seconds = [later - earlier for earlier, later in itertools.pairwise(times)]
    return statistics.median(seconds[len(seconds) // 4 :])


def run_command(name: str, path: Path, results: Path, *options: str, threads: int = 1) -> None:
    """Run a command to its end."""
    command = [sys.executable, "-m", "pais_bench", name, str(path), "--results", str(results), *options]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


if __name__ == "__main__":
    main()
