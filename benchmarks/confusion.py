"""Measure which part of a class a run confuses, shape or texture, from its predictions on the synthetic data.

python benchmarks/confusion.py results/datasets/shapes results/runs/shapes/.../predictions.json
"""

from __future__ import annotations

import json
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
from pycocotools import mask as rle

from pais_bench.annotations.store import Store


def main(dataset: Path, predictions: Path) -> None:
    """Print how often the best-scored detection of an object, of mask IoU >= 0.5, has its class, shape, texture."""
    store = Store.open(dataset, "val")
    names = dict(store.categories)
    detections = defaultdict(list)
    for record in json.loads(predictions.read_text()):
        detections[record["image_id"]].append(record)
    pairs = []
    for image_id in store.image_ids:
        records = sorted(detections[image_id], key=lambda record: -record["score"])
        objects = [annotation for annotation in store.annotations(image_id) if not annotation["iscrowd"]]
        if not records or not objects:
            continue
        masks, gt_masks = ([record["segmentation"] for record in side] for side in (records, objects))
        iou = rle.iou(masks, gt_masks, [0] * len(objects))
        for column, annotation in enumerate(objects):
            hits = np.flatnonzero(iou[:, column] >= 0.5)
            if len(hits):
                best = records[hits[0]]
                pairs.append([names[record["category_id"]].split() for record in (annotation, best)])
    print(f"{len(pairs)} objects detected, class {np.mean([gt == detected for gt, detected in pairs]):.2f}", end=", ")
    print(f"shape {np.mean([gt[1] == detected[1] for gt, detected in pairs]):.2f}", end=", ")
    print(f"texture {np.mean([gt[0] == detected[0] for gt, detected in pairs]):.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
