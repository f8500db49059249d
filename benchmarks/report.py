"""Measure the time and memory of the report of 600 runs, whose run folders are generated.

python benchmarks/report.py FOLDER [LOGGED]      LOGGED steps per run, by default 3,600 (of 180,000)
"""

from __future__ import annotations

import json
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from pais_bench import plugins
from pais_bench.reports.results import Results
from pais_bench.reports.write import write_reports
from pais_bench.study.run import Run, Training
from pais_bench.study.study import DatasetChoice, SplitGrid, Study, StudyMethod, StudyNetwork

CLASSES = [f"class {number}" for number in range(80)]
LOG_EVERY = 50


def grid(logged: int) -> Study:
    """Return a study of 2 networks x 6 methods x 5 percents x 10 folds on a dataset of COCO's size."""
    names = ("supervised", "mean_teacher", "pais", "polite_teacher", "unbiased_teacher", "strict")
    return Study(
        name="generated",
        dataset=DatasetChoice(name="coco"),
        split=SplitGrid(percents=(0.5, 1, 2, 5, 10), folds=tuple(range(1, 11))),
        training=Training(steps=logged * LOG_EVERY),
        networks={name: StudyNetwork(backend="torchvision") for name in ("mask_rcnn", "knet")},
        methods={name: StudyMethod(name="pais" if name == "strict" else name) for name in names},
    )


def generate(run: Run, root: Path, lines: list[str]) -> None:
    """Write run.json, metrics.json and log.jsonl as of a run on COCO; only the lines of the log are the same."""
    folder, rng = root / run.folder, np.random.default_rng(int(run.digest, 16))
    folder.mkdir(parents=True)
    ap = 0.1 + 0.02 * run.split.percent + 0.01 * rng.normal()
    numbers = {name: ap * factor for name, factor in {"AP": 1, "AP50": 1.6, "AP75": 0.9, "APs": 0.5}.items()}
    metrics = {"digest": run.digest, "model": "teacher", "images": 5000, "segm": numbers, "bbox": numbers}
    metrics["per_class"] = dict(zip(CLASSES, (ap + 0.1 * rng.normal(size=80)).tolist(), strict=True))
    (folder / "metrics.json").write_text(json.dumps(metrics))
    split = {"family": "soft_teacher", "percent": run.split.percent, "fold": run.split.fold, "sha256": "0" * 64}
    content = {"run": run.model_dump(mode="json"), "digest": run.digest, "commit": "0" * 40, "split": split}
    content |= {
        "versions": {"python": "3.11.7", "torch": "2.15.0"},
        "hardware": {"device": "NVIDIA H200", "devices": 8},
    }
    content |= {"wall_seconds": 9e4, "steps": run.training.steps}
    (folder / "run.json").write_text(json.dumps(content))
    if run.method.name == "supervised":
        lines = [text.partition(', "pseudo": ')[0] for text in lines]
    with (folder / "log.jsonl").open("w") as file:
        for index, line in enumerate(lines):
            step = (index + 1) * LOG_EVERY
            file.write(f'{{"event": "step", "step": {step}, "seconds": {step / 2}, {line}}}\n')
            if step % 8000 == 0 or index == len(lines) - 1:
                numbers = {"segm_AP": ap * step / run.training.steps, "segm_AP50": 0.5, "bbox_AP": 0.4}
                evaluation = {"event": "evaluation", "step": step, "seconds": step / 2, "images_seen": 12 * step}
                file.write(json.dumps({**evaluation, "student": numbers, "teacher": numbers}) + "\n")


def log_line(seed: int) -> str:
    """Return the losses and the pseudo-labels of a logged step, without its braces."""
    rng = np.random.default_rng(seed)
    bins = [[3, round(x, 4), round(x * 0.9, 4)] for x in np.arange(0.05, 1, 0.1)]
    names = ("kept_per_image", "precision", "recall", "matched_iou", "best_iou", "class_accuracy", "score", "mask_iou")
    means = {name: float(rng.random()) for name in (*names, "class_weight", "mask_weight")}
    arrays = {
        "weights": {"class_weight": [1] * 10, "mask_weight": [1] * 10},
        "score_bins": bins,
        "mask_iou_bins": bins,
        "sample": rng.random((32, 5)).round(4).tolist(),
    }
    losses = {f"{stream}/{term}": 0.123456789 for stream in ("labelled", "unlabelled") for term in "abcdef"}
    return json.dumps({"lr": 1e-4, "momentum": 0.999, "loss": losses, "pseudo": {**means, **arrays}})[1:-1]


@contextmanager
def timed(name: str, spent: dict[str, list[float]]) -> Iterator[None]:
    """Record wall and CPU seconds under a name."""
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    spent[name] = [time.perf_counter() - wall, time.process_time() - cpu]


def main(folder: Path, logged: int) -> None:
    """Generate the runs where the folder is new, report them, and print seconds and the peak of memory."""
    study, root = grid(logged), folder / "results"
    if not root.exists():
        lines = [log_line(number) for number in range(logged)]
        for run in study.runs():
            generate(run, root, lines)
    spent: dict[str, list[float]] = {}
    with timed("reading the run folders", spent):
        results = Results.of(study, root)
    for name in plugins.names("reports"):
        report = plugins.load("reports", name).Report

        def timed_write(self: object, *arguments: object, name: str = name, write: object = report.write) -> object:
            with timed(name, spent):
                return write(self, *arguments)  # type: ignore[operator]

        report.write = timed_write
    with timed("every report and the page", spent):
        write_reports(study, results, folder / "reports")
    size = sum(path.stat().st_size for path in root.rglob("*.json*")) / 2**20
    print(f"{len(results.runs)} runs, {size:.0f} MiB of JSON, {logged} logged steps per run")
    for name, (wall, cpu) in spent.items():
        print(f"{name:30} {wall:6.1f} s wall {cpu:6.1f} s CPU")
    print(f"peak of memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    print(f"report.html {(folder / 'reports' / 'report.html').stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 3600)
