"""How long does the workflow plan a paper's grid, and where does the time go? Real Snakemake, no training.

python benchmarks/dag.py [--percents 4] [--folds 5] [--methods 51] [--times 3] [--where]
python benchmarks/dag.py --paper [--times 3] [--where]

Writes a study of percents x folds x methods of one network (the default has 1,020 runs, 3,083 jobs), reads it, and
plans it with `snakemake --dry-run`, as a user does. --paper plans the grid that the project is for instead: COCO and
Cityscapes, each a study of four percents, five folds, five networks of three frameworks, and the nine methods that they
allow. Times are those of the whole command, its start included.
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
from pais_bench.study_file import load_study

ROOT = Path(__file__).resolve().parent.parent
PHASES = {
    "reading Snakefile and study": ("workflow.py", "include"),
    "building the graph": ("workflow.py", "_build_dag"),
    "printing each job": ("dryrun.py", "printjob"),
}
"""What of Snakemake's own functions each phase is."""
NETWORKS = {
    "mask_rcnn": {"backend": "torchvision"},
    "knet": {"backend": "torchvision"},
    "mmdet_mask_rcnn": {"backend": "mmdet", "name": "mask_rcnn"},
    "mask2former": {"backend": "mmdet"},
    "detectron2_mask_rcnn": {"backend": "detectron2", "name": "mask_rcnn"},
}
BARRED = {
    "knet": ("noisy_boundary", "soft_teacher", "unbiased_teacher"),
    "mask2former": ("noisy_boundary", "soft_teacher", "unbiased_teacher"),
    "mmdet_mask_rcnn": ("noisy_boundary", "unbiased_teacher"),
    "detectron2_mask_rcnn": ("noisy_boundary", "unbiased_teacher"),
}
"""The methods that want of a network what it does not have."""
TEACHERS = ("data_distillation", "guided_distillation", "noisy_boundary")


def main() -> None:
    """Read and plan the studies, and print what both take."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--paper", action="store_true", help="plan COCO and Cityscapes with every network and method")
    parser.add_argument("--percents", type=int, default=4)
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--methods", type=int, default=51)
    parser.add_argument("--times", type=int, default=3, help="plans, of which the fastest counts")
    parser.add_argument("--where", action="store_true", help="say where the time goes, from one more, profiled plan")
    given = parser.parse_args()
    print(f"load {os.getloadavg()[0]:.1f} before, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        studies = paper() if given.paper else [one_network(given.percents, given.folds, given.methods)]
        for values in studies:
            path = folder / f"{values['name']}.yaml"
            path.write_text(yaml.safe_dump(values))
            began = time.perf_counter()
            runs = {str(run.folder) for run in load_study(path).runs()}
            print(f"{path.stem}: {len(runs)} runs, read and expanded in {time.perf_counter() - began:.2f} s")
            wall, cpu, jobs = min(planned(folder, path) for _ in range(given.times))
            print(f"{path.stem}: {jobs} jobs planned in {wall:.1f} s, {cpu:.1f} s of CPU (fastest of {given.times})")
            if given.where:
                print(f"{path.stem}: {where(folder, path)}")


def one_network(percents: int, folds: int, methods: int) -> dict[str, Any]:
    """Give a study of one network whose methods differ in an option."""
    return {
        "name": "grid",
        "dataset": {"name": "shapes"},
        "split": {"percents": list(range(1, percents + 1)), "folds": list(range(1, folds + 1))},
        "networks": {"mask_rcnn": {"backend": "torchvision", "options": {"backbone": "small"}}},
        "methods": {f"pais_{i}": {"name": "pais", "options": {"alpha": 1.0 + i}} for i in range(methods)},
    }


def paper() -> list[dict[str, Any]]:
    """Give the two studies of the whole paper: each network with all methods but those that it cannot serve."""
    names = plugins.names("methods")
    networks = {
        label: {**network, "methods": [name for name in names if name not in BARRED.get(label, ())]}
        for label, network in NETWORKS.items()
    }
    methods = {name: {"teacher": "supervised"} if name in TEACHERS else {} for name in names}
    percents = {"coco": [1, 2, 5, 10], "cityscapes": [5, 10, 20, 30]}
    return [
        {
            "name": dataset,
            "dataset": {"name": dataset},
            "split": {"percents": asked, "folds": [1, 2, 3, 4, 5]},
            "networks": networks,
            "methods": methods,
        }
        for dataset, asked in percents.items()
    ]


def words(folder: Path, path: Path) -> list[str]:
    """Give the words of a dry-run after Python's own."""
    place = ["--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder), "--cores", "2"]
    config = [f"study={path}", f"results={folder / 'results'}", f"python={sys.executable}"]
    profile = ["--workflow-profile", str(ROOT / "profiles/local")]
    return ["-m", "snakemake", "--dry-run", "--quiet", "rules", *place, *profile, "--config", *config]


def planned(folder: Path, path: Path) -> tuple[float, float, int]:
    """Dry-run the workflow; give seconds, seconds of CPU, and the number of jobs."""
    before, began = os.times(), time.perf_counter()
    done = subprocess.run([sys.executable, *words(folder, path)], capture_output=True, text=True)
    wall, after = time.perf_counter() - began, os.times()
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    (jobs,) = re.findall(r"^total +(\d+)", done.stdout + done.stderr, re.MULTILINE)[:1]
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return wall, cpu, int(jobs)


def where(folder: Path, path: Path) -> str:
    """Give the share that each phase has of a profiled plan, and that of the code of this repository within all."""
    file = folder / "profile"
    command = [sys.executable, "-m", "cProfile", "-o", str(file), *words(folder, path)]
    subprocess.run(command, capture_output=True, text=True, check=True)
    stats: Any = pstats.Stats(str(file))
    found = {(Path(name).name, function): value[3] for (name, _, function), value in stats.stats.items()}
    shares = {phase: found[key] / stats.total_tt for phase, key in PHASES.items()}
    shares["start, checks and the rest"] = 1 - sum(shares.values())
    places = (str(ROOT / "pais_bench"), str(ROOT / "rules"), str(ROOT / "Snakefile"))
    ours = sum(value[2] for (name, *_), value in stats.stats.items() if name.startswith(places))
    told = ", ".join(f"{phase} {share:.0%}" for phase, share in shares.items())
    return f"{told}; our own functions, without what they call: {ours / stats.total_tt:.1%} of all"


if __name__ == "__main__":
    main()
