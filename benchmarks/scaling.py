"""How much faster do two processes train than one? The same total batch, one thread each, gloo on the CPU.

python benchmarks/scaling.py [--study demo] [--steps 40] [--batch 8] [--methods supervised pais] [--times 2]

Trains a run of the study with one process and with two, in turn, and prints the median time of a step after the
first quarter (those of a log, without loading and evaluation). One process on two threads is measured beside them,
because that is the other use of a second core.
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

from pais_bench import study_file

ROOT = Path(__file__).resolve().parent.parent
WAYS = {"one process": (1, 1), "two processes": (2, 1), "one process on two threads": (1, 2)}
"""Processes, and threads of each."""


def main() -> None:
    """Train each method in each way, and print the seconds of a step and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--study", default="demo")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=8, help="labelled images of a step, and as many unlabelled ones")
    parser.add_argument("--methods", nargs="+", default=["supervised", "pais"])
    parser.add_argument("--times", type=int, default=2)
    given = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} before, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        path = shortened(folder / "short.yaml", given.study, given.steps, given.batch)
        verb("prepare", path, folder / "first")
        for method in given.methods:
            seconds: dict[str, list[float]] = {way: [] for way in WAYS}
            for number in range(given.times):
                for way, (processes, threads) in WAYS.items():
                    results = folder / f"{method}-{number}-{processes}-{threads}"
                    results.mkdir()
                    (results / "datasets").symlink_to(folder / "first/datasets")
                    seconds[way].append(step(path, results, method, processes, threads))
            alone = statistics.median(seconds["one process"])
            for way, found in seconds.items():
                middle = statistics.median(found)
                print(f"{method}: {way}: {1000 * middle:.0f} ms a step, {alone / middle:.2f} times as fast as one")


def shortened(path: Path, name: str, steps: int, batch: int) -> Path:
    """Write a study with so many steps, evaluated once, that hears its teacher from the first step on."""
    study = yaml.safe_load((study_file.STUDIES / f"{name}.yaml").read_text())
    study["dataset"]["options"] |= {"val": 4}
    study["training"] |= {"steps": steps, "milestones": [steps], "burn_in": 0, "log_every": 1}
    study["training"] |= {"labelled_batch": batch, "unlabelled_batch": batch, "evaluate_every": steps}
    study["training"] |= {"evaluate_images": 4, "checkpoint_every": steps}
    path.write_text(yaml.safe_dump(study))
    return path


def step(path: Path, results: Path, method: str, processes: int, threads: int) -> float:
    """Train, and give the median seconds of a step after the first quarter."""
    study = study_file.load_study(path)
    run = next(one for one in study.runs() if one.method.label == method and one.split.percent == 10)
    words = ["--percent", "10", "--fold", str(run.split.fold)]
    verb("split", path, results, *words)
    words += ["--network", run.network.label, "--method", method]
    words += ["--devices", str(processes), "--threads", str(threads), "--accelerator", "cpu"]
    verb("train", path, results, *words, threads=threads)
    lines = [json.loads(text) for text in (results / run.folder / "log.jsonl").read_text().splitlines()]
    moments = [line["seconds"] for line in lines if line["event"] == "step"]
    taken = [later - earlier for earlier, later in itertools.pairwise(moments)]
    return statistics.median(taken[len(taken) // 4 :])


def verb(name: str, path: Path, results: Path, *words: str, threads: int = 1) -> None:
    """Run one verb to its end."""
    command = [sys.executable, "-m", "pais_bench", name, str(path), "--results", str(results), *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        sys.exit(done.stdout + done.stderr)


if __name__ == "__main__":
    main()
