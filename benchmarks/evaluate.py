"""Compare the speed of the fast matching with pycocotools, on a dataset as large as val2017.

python benchmarks/evaluate.py COCOAPI_EVAL_FOLDER [COPIES [REPEATS]]

hotcoco and faster-coco-eval are measured too where they are installed; neither is a dependency. Every repeat measures
each evaluator once, in turn, so that the load of the machine is the same for all. Prints medians of CPU seconds, summed
over threads.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pycocotools.cocoeval import COCOeval

from pais_bench.evaluation.coco.average_precision import summarize
from pais_bench.evaluation.coco.ground_truth import GroundTruth, mask_areas
from pais_bench.evaluation.coco.matching import match
from pais_bench.evaluation.coco.pycocotools import NAMES, run, stats

Record = dict[str, Any]
Measure = Callable[[Record, list[Record]], Sequence[float]]


def replicate(folder: Path, copies: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return copies of the COCO API's example, with new ids."""
    ground_truth = json.loads((folder / "instances_val2014_100.json").read_text())
    records = json.loads((folder / "instances_val2014_fakesegm100_results.json").read_text())
    step, count = max(image["id"] for image in ground_truth["images"]) + 1, len(ground_truth["annotations"])
    images, annotations, copied_records = [], [], []
    for copy in range(copies):
        images += [{**image, "id": image["id"] + copy * step} for image in ground_truth["images"]]
        for number, annotation in enumerate(ground_truth["annotations"]):
            ids = {"id": copy * count + number + 1, "image_id": annotation["image_id"] + copy * step}
            annotations.append({**annotation, **ids})
        copied_records += [{**record, "image_id": record["image_id"] + copy * step} for record in records]
    return {**ground_truth, "images": images, "annotations": annotations}, copied_records


def pycocotools(ground_truth: Record, records: list[Record]) -> list[float]:
    """Return the twelve numbers of the reference."""
    areas = mask_areas([record["segmentation"] for record in records]).tolist()
    detections = [
        {**record, "id": n, "iscrowd": 0, "area": area}
        for n, (record, area) in enumerate(zip(records, areas, strict=True), start=1)
    ]
    return values(stats(run(COCOeval, ground_truth, detections, "segm")))


def other(package: str, evaluator: str) -> Measure:
    """Return a measure of a package that has the classes of pycocotools."""
    module = importlib.import_module(package)

    def measure(ground_truth: Record, records: list[Record]) -> list[float]:
        with contextlib.redirect_stdout(io.StringIO()):
            gt = module.COCO(ground_truth)
            evaluation = getattr(module, evaluator)(gt, gt.loadRes(records), "segm")
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        return [float(value) for value in evaluation.stats]

    return measure


def values(numbers: dict[str, float | None]) -> list[float]:
    """Return the numbers in the order of COCO, -1 where there is none."""
    return [-1.0 if numbers[name] is None else float(numbers[name] or 0) for name in NAMES]


def main(folder: Path, copies: int, repeats: int) -> None:
    """Print CPU seconds, the ratio to pycocotools, and the largest difference of the twelve numbers, for masks."""
    ground_truth, records = replicate(folder, copies)
    sizes = (len(ground_truth["images"]), len(ground_truth["annotations"]), len(records))
    print("{} images, {} annotations, {} detections".format(*sizes))
    prepared = GroundTruth.of(ground_truth)
    start = time.process_time()
    prepared.mask_areas  # noqa: B018
    print(f"rasterising the ground truth, once for all evaluations: {time.process_time() - start:.2f} s")
    evaluators: dict[str, Measure] = {
        "pycocotools": pycocotools,
        "ours, ground truth prepared": lambda _, detections: values(summarize(match(prepared, detections))),
        "ours, with the ground truth": lambda gt, detections: values(summarize(match(gt, detections))),
    }
    for package, evaluator in (("hotcoco", "COCOeval"), ("faster_coco_eval", "COCOeval_faster")):
        if importlib.util.find_spec(package):
            evaluators[package] = other(package, evaluator)
    seconds: dict[str, list[float]] = {name: [] for name in evaluators}
    differences = dict.fromkeys(evaluators, 0.0)
    for _ in range(repeats):
        expected: Sequence[float] = ()
        for name, measure in evaluators.items():
            # Copies, as some of them write into their arguments.
            gt = {**ground_truth, "annotations": [dict(annotation) for annotation in ground_truth["annotations"]]}
            detections = [dict(record) for record in records]
            start = time.process_time()
            numbers = measure(gt, detections)
            seconds[name].append(time.process_time() - start)
            expected = expected or numbers
            differences[name] = max(abs(first - second) for first, second in zip(numbers, expected, strict=True))
    for name, times in seconds.items():
        ratio = statistics.median(first / second for first, second in zip(seconds["pycocotools"], times, strict=True))
        speed = f"{statistics.median(times):.2f} s, {ratio:.1f} times as fast"
        print(f"{name}: {speed}, difference {differences[name]:.1e}")


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[2:]]
    main(Path(sys.argv[1]), *(given + [50, 5][len(given) :]))
