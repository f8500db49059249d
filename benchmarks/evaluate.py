"""How much faster is the matching than pycocotools? A data set as large as val2017, all of them in this run.

python benchmarks/evaluate.py COCOAPI_EVAL_FOLDER [COPIES [REPEATS]]

Where hotcoco and faster-coco-eval are installed, they are measured too; neither is a dependency. Every repeat measures
each once, in turn, so that a busy machine is busy for all; printed are medians of CPU seconds, all threads together.
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

from pais_bench.metrics import coco
from pais_bench.metrics._pycocotools import run, stats
from pais_bench.metrics._truth import pixels

Record = dict[str, Any]
Measure = Callable[[Record, list[Record]], Sequence[float]]


def replicate(folder: Path, copies: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Give the COCO API's example so many times over, with new ids."""
    truth = json.loads((folder / "instances_val2014_100.json").read_text())
    records = json.loads((folder / "instances_val2014_fakesegm100_results.json").read_text())
    step, count = max(image["id"] for image in truth["images"]) + 1, len(truth["annotations"])
    images, notes, found = [], [], []
    for copy in range(copies):
        images += [{**image, "id": image["id"] + copy * step} for image in truth["images"]]
        for number, note in enumerate(truth["annotations"]):
            notes.append({**note, "id": copy * count + number + 1, "image_id": note["image_id"] + copy * step})
        found += [{**record, "image_id": record["image_id"] + copy * step} for record in records]
    return {**truth, "images": images, "annotations": notes}, found


def pycocotools(truth: Record, records: list[Record]) -> list[float]:
    """Give the twelve numbers of the reference."""
    chosen = sorted(image["id"] for image in truth["images"])
    found = [{**record, "id": n, "iscrowd": 0} for n, record in enumerate(records, start=1)]
    for one, area in zip(found, pixels([record["segmentation"] for record in records]).tolist(), strict=True):
        one["area"] = area
    return values(stats(run(COCOeval, truth, found, "segm", chosen)))


def another(package: str, evaluation: str) -> Measure:
    """Give the twelve numbers of a package that has the classes of pycocotools."""
    module = importlib.import_module(package)

    def measure(truth: Record, records: list[Record]) -> list[float]:
        with contextlib.redirect_stdout(io.StringIO()):
            known = module.COCO(truth)
            found = getattr(module, evaluation)(known, known.loadRes(records), "segm")
            found.evaluate()
            found.accumulate()
            found.summarize()
        return [float(value) for value in found.stats]

    return measure


def values(numbers: dict[str, float | None]) -> list[float]:
    """Give the numbers in the order of COCO, -1 where there is none."""
    return [-1.0 if numbers[name] is None else float(numbers[name] or 0) for name in coco.NAMES]


def main(folder: Path, copies: int, repeats: int) -> None:
    """Print CPU seconds, the ratio to pycocotools, and the largest difference of the twelve numbers, of masks."""
    truth, records = replicate(folder, copies)
    print(f"{len(truth['images'])} images, {len(truth['annotations'])} annotations, {len(records)} detections")
    prepared = coco.Truth.of(truth)
    began = time.process_time()
    prepared.pixels  # noqa: B018
    print(f"drawing the truth, once for all evaluations: {time.process_time() - began:.2f} s")
    measured: dict[str, Measure] = {
        "pycocotools": pycocotools,
        "ours, truth prepared": lambda _, found: values(coco.numbers(coco.match(prepared, found))),
        "ours, with the truth": lambda known, found: values(coco.numbers(coco.match(known, found))),
    }
    for package, evaluation in (("hotcoco", "COCOeval"), ("faster_coco_eval", "COCOeval_faster")):
        if importlib.util.find_spec(package):
            measured[package] = another(package, evaluation)
    seconds: dict[str, list[float]] = {name: [] for name in measured}
    apart = dict.fromkeys(measured, 0.0)
    for _ in range(repeats):
        expected: Sequence[float] = ()
        for name, ask in measured.items():
            # Copies, as some of them write into their arguments.
            known = {**truth, "annotations": [dict(note) for note in truth["annotations"]]}
            copies_of_records = [dict(record) for record in records]
            began = time.process_time()
            found = ask(known, copies_of_records)
            seconds[name].append(time.process_time() - began)
            expected = expected or found
            apart[name] = max(abs(one - two) for one, two in zip(found, expected, strict=True))
    for name, took in seconds.items():
        ratio = statistics.median(one / two for one, two in zip(seconds["pycocotools"], took, strict=True))
        print(f"{name}: {statistics.median(took):.2f} s, {ratio:.1f} times as fast, apart by {apart[name]:.1e}")


if __name__ == "__main__":
    given = [int(word) for word in sys.argv[2:]]
    main(Path(sys.argv[1]), *(given + [50, 5][len(given) :]))
