"""Which part of a class does a run get wrong, its shape or its texture? Reads predictions on the embedded data.

python benchmarks/confusion.py results/datasets/shapes results/runs/shapes/.../predictions.json
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from pycocotools import mask as rle

from pais_bench.store import Store


def main(dataset: Path, predictions: Path) -> None:
    """Print how often the surest prediction on an object, of mask IoU at least 0.5, has its class, shape, texture."""
    store = Store.open(dataset, "val")
    names = dict(store.categories)
    found = defaultdict(list)
    for record in json.loads(predictions.read_text()):
        found[record["image_id"]].append(record)
    pairs = []
    for image_id in store.image_ids:
        records = sorted(found[image_id], key=lambda record: -record["score"])
        truths = [note for note in store.annotations(image_id) if not note["iscrowd"]]
        if not records or not truths:
            continue
        iou = rle.iou(
            [one["segmentation"] for one in records], [one["segmentation"] for one in truths], [0] * len(truths)
        )
        for column, truth in enumerate(truths):
            hits = np.flatnonzero(iou[:, column] >= 0.5)
            if len(hits):
                pairs.append((names[truth["category_id"]].split(), names[records[hits[0]]["category_id"]].split()))
    total = len(pairs)
    print(f"{total} objects found, class {np.mean([a == b for a, b in pairs]):.2f}", end=", ")
    print(f"shape {np.mean([a[1] == b[1] for a, b in pairs]):.2f}", end=", ")
    print(f"texture {np.mean([a[0] == b[0] for a, b in pairs]):.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
