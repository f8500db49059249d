"""Generate COCO ground truth and predictions with everything that pycocotools treats specially, from a seed."""

from __future__ import annotations

from typing import Any

import numpy as np
from pycocotools import mask as rle

Record = dict[str, Any]


def generate(seed: int, images: int = 12, classes: int = 3, crowded: bool = False) -> tuple[Record, list[Record]]:
    """Return ground truth and predictions: crowds, equal scores, empty images, all area ranges, polygons and RLEs."""
    rng = np.random.default_rng(seed)
    side = 150
    ground_truth: Record = {
        "images": [{"id": 7 * n + 3, "height": side, "width": side} for n in rng.permutation(images).tolist()],
        "categories": [{"id": 2 * n + 1, "name": f"class {n}"} for n in range(classes + 1)],
        "annotations": [],
    }
    records: list[Record] = []
    for image in ground_truth["images"]:
        boxes = []
        for _ in range(int(rng.integers(0, 7))):
            box, category, crowd = _box(rng, side), int(2 * rng.integers(classes) + 1), int(rng.random() < 0.15)
            boxes.append((box, category))
            x, y, w, h = box
            mask: Any = encode(box, side) if crowd or rng.random() < 0.5 else [[x, y, x + w, y, x + w, y + h, x, y + h]]
            annotation = {"id": len(ground_truth["annotations"]) + 1, "image_id": image["id"], "category_id": category}
            annotation |= {"iscrowd": crowd, "bbox": list(box), "area": w * h, "segmentation": mask}
            ground_truth["annotations"].append(annotation)
        for _ in range(int(rng.integers(0, 10)) + (120 if crowded and rng.random() < 0.3 else 0)):
            box, category = _box(rng, side), int(2 * rng.integers(classes) + 1)
            if boxes and rng.random() < 0.8:
                near, category = boxes[int(rng.integers(len(boxes)))]
                shift = rng.integers(-2, 3, size=4).tolist() if rng.random() < 0.7 else [0] * 4
                x, y = max(0, near[0] + shift[0]), max(0, near[1] + shift[1])
                box = (x, y, min(side - x, max(2, near[2] + shift[2])), min(side - y, max(2, near[3] + shift[3])))
            score = float(rng.integers(1, 6)) / 5 if rng.random() < 0.5 else float(rng.random())
            record = {"image_id": image["id"], "category_id": category, "score": score, "bbox": list(box)}
            records.append({**record, "segmentation": encode(box, side)})
    return ground_truth, records


def encode(box: tuple[int, int, int, int], side: int) -> Record:
    """Encode a filled box of a square image."""
    x, y, width, height = box
    mask = np.zeros((side, side), dtype=np.uint8, order="F")
    mask[y : y + height, x : x + width] = 1
    encoded = rle.encode(mask)
    return {"size": [side, side], "counts": encoded["counts"].decode()}


def _box(rng: np.random.Generator, side: int) -> tuple[int, int, int, int]:
    width, height = (int(round(value)) for value in np.exp(rng.uniform(np.log(6), np.log(140), size=2)))
    return int(rng.integers(0, side - width)), int(rng.integers(0, side - height)), width, height


def of_images(ground_truth: Record, *image_ids: int) -> Record:
    """Return a ground truth of some of its images."""
    return {
        **ground_truth,
        "images": [image for image in ground_truth["images"] if image["id"] in image_ids],
        "annotations": [one for one in ground_truth["annotations"] if one["image_id"] in image_ids],
    }
