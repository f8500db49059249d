"""Time Snakemake's planning of a paper's grid, without training.

python benchmarks/dag.py [--percents 4] [--folds 5] [--methods 51] [--times 3] [--profile]
python benchmarks/dag.py --paper [--times 3] [--profile]

Writes a study of percents x folds x methods of one network (the default has 1,020 runs, 3,083 jobs), reads it, and
plans it with `snakemake --dry-run`, as a user does. --paper plans the grid of a paper instead: COCO and Cityscapes,
each a study of four percents, five folds, five networks of three frameworks, and the nine methods that they allow.
Times are those of the whole command, including its start.
"""

from __future__ import annotations

import argparse
import os
import pstats
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from pais_bench import plugins
from pais_bench.study.load import load_study

ROOT = Path(__file__).resolve().parent.parent
PHASES = {
    "reading Snakefile and study": ("workflow.py", "include"),
    "building the graph": ("workflow.py", "_build_dag"),
    "printing each job": ("dryrun.py", "printjob"),
}
"""File and function of Snakemake of each phase."""
NETWORKS = {
    "mask_rcnn": {"backend": "torchvision"},
    "knet": {"backend": "torchvision"},
    "mmdet_mask_rcnn": {"backend": "mmdet", "name": "mask_rcnn"},
    "mask2former": {"backend": "mmdet"},
    "detectron2_mask_rcnn": {"backend": "detectron2", "name": "mask_rcnn"},
}
UNSUPPORTED = {
    "knet": ("noisy_boundary", "soft_teacher", "unbiased_teacher"),
    "mask2former": ("noisy_boundary", "soft_teacher", "unbiased_teacher"),
    "mmdet_mask_rcnn": ("noisy_boundary", "unbiased_teacher"),
    "detectron2_mask_rcnn": ("noisy_boundary", "unbiased_teacher"),
}
"""The methods that a network does not support."""
PRETRAINED_TEACHER = ("data_distillation", "guided_distillation", "noisy_boundary")


def main() -> None:
    """Read and plan the studies, and print the seconds of both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paper", action="store_true", help="plan COCO and Cityscapes with every network and method")
    parser.add_argument("--percents", type=int, default=4)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--methods", type=int, default=51)
    parser.add_argument("--times", type=int, default=3, help="repetitions, of which the fastest counts")
    parser.add_argument("--profile", action="store_true", help="also profile one plan, and print its phases")
    arguments = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} before, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        one = one_network_study(arguments.percents, arguments.folds, arguments.methods)
        studies = paper_studies() if arguments.paper else [one]
        for values in studies:
            path = folder / f"{values['name']}.yaml"
            path.write_text(yaml.safe_dump(values))
            begin = time.perf_counter()
            runs = {str(run.folder) for run in load_study(path).runs()}
            print(f"{path.stem}: {len(runs)} runs, read and expanded in {time.perf_counter() - begin:.2f} s")
            wall, cpu, jobs = min(plan(folder, path) for _ in range(arguments.times))
            print(
                f"{path.stem}: {jobs} jobs planned in {wall:.1f} s, {cpu:.1f} s of CPU (fastest of {arguments.times})"
            )
            if arguments.profile:
                print(f"{path.stem}: {profile(folder, path)}")


def one_network_study(percents: int, folds: int, methods: int) -> dict[str, Any]:
    """Return a study of one network whose methods differ in an option."""
    return {
        "name": "grid",
        "dataset": {"name": "shapes"},
        "split": {"percents": list(range(1, percents + 1)), "folds": list(range(1, folds + 1))},
        "networks": {"mask_rcnn": {"backend": "torchvision", "options": {"backbone": "small"}}},
        "methods": {f"pais_{i}": {"name": "pais", "options": {"alpha": 1.0 + i}} for i in range(methods)},
    }


def paper_studies() -> list[dict[str, Any]]:
    """Return the two studies of a paper: each network with all methods that it supports."""
    names = plugins.names("methods")
    networks = {
        label: {**network, "methods": [name for name in names if name not in UNSUPPORTED.get(label, ())]}
        for label, network in NETWORKS.items()
    }
    methods = {name: {"teacher": "supervised"} if name in PRETRAINED_TEACHER else {} for name in names}
    grids = {"coco": [1, 2, 5, 10], "cityscapes": [5, 10, 20, 30]}
    return [
        {
            "name": dataset,
            "dataset": {"name": dataset},
            "split": {"percents": percents, "folds": [1, 2, 3, 4, 5]},
            "networks": networks,
            "methods": methods,
        }
        for dataset, percents in grids.items()
    ]


def dry_run_arguments(folder: Path, path: Path) -> list[str]:
    """Return the arguments of Python for a dry-run."""
    options = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder), "--cores", "2"]
    config = [f"study={path}", f"results={folder / 'results'}", f"python={sys.executable}"]
    options += ["--workflow-profile", str(ROOT / "profiles/local")]
    return ["-m", "snakemake", "--dry-run", "--quiet", "rules", *options, "--config", *config]


def plan(folder: Path, path: Path) -> tuple[float, float, int]:
    """Dry-run the workflow, and return seconds, CPU seconds, and the number of jobs."""
    before, begin = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, *dry_run_arguments(folder, path)], capture_output=True, text=True)
    wall, after = time.perf_counter() - begin, os.times()
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    (jobs,) = re.findall(r"^total +(\d+)", done.stdout + done.stderr, re.MULTILINE)[:1]
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu, int(jobs)


def profile(folder: Path, path: Path) -> str:
    """Return the share of each phase of a profiled plan, and of the code of this repository."""
    file = folder / "profile"
    command = [sys.executable, "-m", "cProfile", "-o", str(file), *dry_run_arguments(folder, path)]
    subprocess.run(command, capture_output=True, text=True, check=True)
    stats: Any = pstats.Stats(str(file))
    seconds = {(Path(name).name, function): value[3] for (name, _, function), value in stats.stats.items()}
    shares = {phase: seconds[key] / stats.total_tt for phase, key in PHASES.items()}
    shares["start, checks and the rest"] = 1 - sum(shares.values())
    paths = (str(ROOT / "pais_bench"), str(ROOT / "rules"), str(ROOT / "Snakefile"))
    ours = sum(value[2] for (name, *_), value in stats.stats.items() if name.startswith(paths))
    phases = ", ".join(f"{phase} {share:.0%}" for phase, share in shares.items())
    return f"{phases}; our own functions, without the functions they call: {ours / stats.total_tt:.1%} of all"


if __name__ == "__main__":
    main()
