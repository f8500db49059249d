"""Build small things that many tests share: a study that trains in seconds, and instances made by hand."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pais_bench import geometry, plugins
from pais_bench.errors import BenchError
from pais_bench.types import InstanceMaps, Instances, Size, Targets

NETWORK = {
    "backbone": "small",
    "anchor_sizes": [16, 32, 64],
    "rpn_batch_size_per_image": 16,
    "rpn_post_nms_top_n_train": 24,
    "rpn_post_nms_top_n_test": 24,
    "box_batch_size_per_image": 8,
    "box_features": 16,
    "box_convs": [16],
    "mask_layers": [16],
    "mask_iou_channels": 8,
    "box_score_thresh": 0.0,
    "box_detections_per_img": 5,
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
    "detections_per_img": 5,
}


SMALLEST: dict[str, dict[str, Any]] = {
    "torchvision/mask_rcnn": NETWORK,
    "torchvision/knet": KNET,
    "mmdet/mask_rcnn": {
        "backbone": "small",
        "mask_iou_channels": 8,
        "overrides": {
            "roi_head.bbox_head.fc_out_channels": 16,
            "train_cfg.rpn.sampler.num": 16,
            "train_cfg.rpn_proposal.max_per_img": 24,
            "train_cfg.rcnn.sampler.num": 8,
            "test_cfg.rpn.max_per_img": 24,
            "test_cfg.rcnn.score_thr": 0.0,
            "test_cfg.rcnn.max_per_img": 5,
        },
    },
    "mmdet/mask2former": {
        "backbone": "small",
        "overrides": {
            "panoptic_head.num_queries": 6,
            "train_cfg.num_points": 128,
            "test_cfg.max_per_image": 5,
        },
    },
    "detectron2/mask_rcnn": {
        "backbone": "small",
        "mask_iou_channels": 8,
        "overrides": {
            "MODEL.ROI_BOX_HEAD.FC_DIM": 16,
            "MODEL.RPN.BATCH_SIZE_PER_IMAGE": 16,
            "MODEL.RPN.POST_NMS_TOPK_TRAIN": 24,
            "MODEL.RPN.POST_NMS_TOPK_TEST": 24,
            "MODEL.ROI_HEADS.BATCH_SIZE_PER_IMAGE": 8,
            "MODEL.ROI_HEADS.SCORE_THRESH_TEST": 0.0,
            "TEST.DETECTIONS_PER_IMAGE": 5,
        },
    },
}
"""Options of every network that make it small enough for a test."""


def load_backend(name: str) -> Any:
    """Import a network, or skip with the command that installs it. What a framework warns of is its own."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return plugins.load("backends", name)
        except BenchError as error:
            pytest.skip(str(error), allow_module_level=True)


def choose(method: str, **options: Any) -> dict[str, Any]:
    """Return a method as a study names it, with what it cannot do without: a folder of SAM, a pretrained teacher."""
    required = {"sam": "sam"} if "sam" in plugins.option_names("methods", method) else {}
    teacher = {"teacher": "supervised"} if plugins.load("methods", method).Method.needs_pretrained_teacher else {}
    return {"options": required | options, **teacher}


def needs(method: str, choice: dict[str, Any], network: str) -> str:
    """Return what a method declares that it needs and a network lacks: an option, a function, or nothing."""
    plugin = plugins.load("methods", method)
    declared = plugin.Method(plugin.Options(**choice["options"]))
    if option := next(iter(sorted(declared.network_options.keys() - plugins.option_names("backends", network))), ""):
        return f"the option '{option}'"
    if declared.needs_box_scorer and plugins.lacks(network, "predict_with_scorers"):
        return "a box scorer"
    return "soft predictions" if declared.needs_soft_predictions and plugins.lacks(network, "predict_soft") else ""


def study(**changes: Any) -> dict[str, Any]:
    """Return the values of a study of 4 training steps on 40 shapes; keyword arguments replace whole keys."""
    return {
        "name": "tiny",
        "dataset": {"name": "shapes", "options": {"train": 40, "val": 6, "size": 64}},
        "split": {"percents": [10], "folds": [1]},
        "input": {"min_size_train": [56, 72], "max_size_train": 96, "min_size_test": 64, "max_size_test": 96},
        "training": {
            "steps": 4,
            "labelled_batch_size": 2,
            "unlabelled_batch_size": 2,
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
            "pais": {"options": {"score_threshold": 0.0, "mask_iou_threshold": 0.0}},
        },
        **changes,
    }


SUPERVISED_AND_PAIS = {name: study()["methods"][name] for name in ("supervised", "pais")}
"""The least that a workflow compares."""


def write_study(folder: Path, **changes: Any) -> Path:
    """Write the tiny study to a file."""
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(study(**changes), sort_keys=False))
    return path


def project(instances: Instances, matrix: torch.Tensor, size: Size) -> tuple[Instances, torch.Tensor]:
    """Return the instances that remain in another view, and their indices, which their weights carry."""
    index = torch.arange(len(instances)).float()
    (targets,) = geometry.project_targets([Targets(instances, index, index, index)], [matrix], [size])
    return targets.instances, targets.class_weight.long()


def instances(
    boxes: Sequence[Sequence[int]],
    labels: Sequence[int] | None = None,
    scores: Sequence[float] | None = None,
    mask_iou: Sequence[float] | None = None,
    size: tuple[int, int] = (64, 64),
) -> Instances:
    """Return instances whose masks fill their boxes x0 y0 x1 y1; scores and mask_iou are 1 by default."""
    masks = torch.zeros((len(boxes), *size), dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    one = torch.ones(len(boxes))
    return Instances(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        labels=torch.tensor(labels if labels is not None else [0] * len(boxes), dtype=torch.int64),
        masks=masks,
        scores=torch.tensor(scores) if scores is not None else one,
        mask_iou=torch.tensor(mask_iou) if mask_iou is not None else one,
    )


def with_soft(detections: Instances, certainty: Sequence[float] | float = 0.97, classes: int = 3) -> Instances:
    """Return detections with soft masks of 4 x 4 cells on their boxes, of one probability each, and class_probs.

    The probability of a detection's own class is its score, and the others share the rest.
    """
    number = len(detections)
    values = torch.as_tensor(certainty, dtype=torch.float32).expand(number)[:, None, None].repeat(1, 4, 4)
    probs = ((1 - detections.scores) / (classes - 1))[:, None].repeat(1, classes)
    probs[torch.arange(number), detections.labels] = detections.scores
    maps = InstanceMaps(values, detections.boxes, torch.eye(3, dtype=torch.float64))
    return replace(detections, soft_masks=maps, class_probs=probs)
