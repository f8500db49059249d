"""How long does the workflow plan a full paper's grid? Real Snakemake, no training.

python benchmarks/dag.py [--percents 4] [--folds 5] [--methods 51] [--times 3] [--profile]

Writes a study of percents x folds x methods of one network (the default has 1,020 runs, 3,083 jobs), reads it, and
plans it with `snakemake --dry-run`.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from pais_bench.study_file import load_study

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Read the study and plan it, and print what both take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--percents", type=int, default=4)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--methods", type=int, default=51)
    parser.add_argument("--times", type=int, default=3, help="plans, of which the fastest counts")
    parser.add_argument("--profile", action="store_true", help="say where the time of loading the study goes")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        path = study(folder / "grid.yaml", given.percents, given.folds, given.methods)
        began = time.perf_counter()
        profile = cProfile.Profile()
        if given.profile:
            profile.enable()
        runs = [str(run.folder) for run in load_study(path).runs()]
        profile.disable()
        print(f"{len(runs)} runs: study read and expanded in {time.perf_counter() - began:.2f} s")
        if given.profile:
            pstats.Stats(profile).sort_stats("cumulative").print_stats(15)
        told = [planned(folder, path) for _ in range(given.times)]
        wall, cpu, jobs = min(told)
        print(f"{jobs} jobs planned in {wall:.1f} s, {cpu:.1f} s of CPU (fastest of {given.times})")


def study(path: Path, percents: int, folds: int, methods: int) -> Path:
    """Write a study of one network whose methods differ in an option."""
    values = {
        "name": "grid",
        "dataset": {"name": "shapes"},
        "split": {"percents": list(range(1, percents + 1)), "folds": list(range(1, folds + 1))},
        "networks": {"mask_rcnn": {"backend": "torchvision", "options": {"backbone": "small"}}},
        "methods": {f"pais_{i}": {"name": "pais", "options": {"alpha": 1.0 + i}} for i in range(methods)},
    }
    path.write_text(yaml.safe_dump(values))
    return path


def planned(folder: Path, path: Path) -> tuple[float, float, int]:
    """Dry-run the workflow; give seconds, seconds of CPU, and the number of jobs."""
    words = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder), "--scheduler", "greedy"]
    config = [f"study={path}", f"results={folder / 'results'}", f"python={sys.executable}"]
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--quiet", "rules", "--cores", "2", *words]
    before, began = os.times(), time.perf_counter()
    done = subprocess.run([*command, "--config", *config], capture_output=True, text=True)
    wall, after = time.perf_counter() - began, os.times()
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    (jobs,) = re.findall(r"^total +(\d+)", done.stdout + done.stderr, re.MULTILINE)[:1]
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu, int(jobs)


if __name__ == "__main__":
    main()
