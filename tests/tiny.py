"""Give small things that many tests build on: a study that trains in seconds, and instances made by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from pais_bench.types import Instances

NETWORK = {
    "backbone": "small",
    "anchor_sizes": [16, 32, 64],
    "proposal_batch": 16,
    "proposals_train": 24,
    "proposals_test": 24,
    "roi_batch": 8,
    "box_features": 16,
    "box_convs": [16],
    "mask_layers": [16],
    "quality_channels": 8,
    "score_threshold": 0.0,
    "detections": 5,
}

KNET = {
    "backbone": "small",
    "channels": 16,
    "kernels": 6,
    "stages": 2,
    "heads": 2,
    "ffn": 16,
    "groups": 4,
    "stride": 4,
    "detections": 5,
}


def study(**changes: Any) -> dict[str, Any]:
    """Give the values of a study of 4 training steps on 40 shapes; keyword arguments replace whole keys."""
    return {
        "name": "tiny",
        "dataset": {"name": "shapes", "options": {"train": 40, "val": 6, "size": 64}},
        "split": {"percents": [10], "folds": [1]},
        "views": {"short": [56, 72], "long": 96, "test_short": 64, "test_long": 96},
        "training": {
            "steps": 4,
            "labelled_batch": 2,
            "unlabelled_batch": 2,
            "lr": 0.003,  # after 4 steps the masks are not all empty
            "warmup_steps": 2,
            "milestones": [3],
            "log_every": 1,
            "evaluate_every": 2,
            "evaluate_images": 3,
            "checkpoint_every": 2,
        },
        "networks": {"mask_rcnn": {"backend": "torchvision", "options": NETWORK}},
        "methods": {
            "supervised": {},
            "mean_teacher": {"options": {"score_threshold": 0.0}},
            "pais": {"options": {"score_threshold": 0.0, "quality_threshold": 0.0}},
        },
        **changes,
    }


def write_study(folder: Path, **changes: Any) -> Path:
    """Write the tiny study to a file."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(study(**changes), sort_keys=False))
    return path


def instances(
    boxes: Sequence[Sequence[int]],
    labels: Sequence[int] | None = None,
    scores: Sequence[float] | None = None,
    quality: Sequence[float] | None = None,
    size: tuple[int, int] = (64, 64),
) -> Instances:
    """Give instances whose masks fill their boxes x0 y0 x1 y1; scores and quality are 1 unless told."""
    masks = torch.zeros((len(boxes), *size), dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    one = torch.ones(len(boxes))
    return Instances(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels if labels is not None else [0] * len(boxes), dtype=torch.int64),
        masks=masks,
        scores=torch.tensor(scores) if scores is not None else one,
        quality=torch.tensor(quality) if quality is not None else one,
    )
