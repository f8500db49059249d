"""How much faster is the matching than pycocotools? A data set as large as val2017, both in this run.

python benchmarks/evaluate.py COCOAPI_EVAL_FOLDER [COPIES]
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from pathlib import Path
from typing import Any

from pais_bench.metrics import coco


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


def main(folder: Path, copies: int) -> None:
    """Print CPU seconds of both on masks, and the largest difference of the twelve numbers."""
    truth, records = replicate(folder, copies)
    print(f"{len(truth['images'])} images, {len(truth['annotations'])} annotations, {len(records)} detections")
    began = time.process_time()
    ours = coco.numbers(coco.match(truth, records))
    fast = time.process_time() - began
    began = time.process_time()
    chosen = sorted(image["id"] for image in truth["images"])
    with contextlib.redirect_stdout(io.StringIO()):
        expected = coco._index(truth, [dict(note) for note in truth["annotations"]])
        evaluation = coco._run(expected, coco._index(truth, coco._masks(records)), "segm", chosen)
    slow = time.process_time() - began
    theirs = coco._numbers(evaluation)
    apart = max(abs((ours[name] or 0) - (theirs[name] or 0)) for name in coco.NAMES)
    print(f"pycocotools {slow:.1f} s, matching {fast:.1f} s: {slow / fast:.1f} times; numbers apart by {apart:.1e}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 50)
