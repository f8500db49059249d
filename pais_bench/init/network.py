"""State the rules for the network: backbone, anchors, and how many regions and detections an image has."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pais_bench.init.device import Device
from pais_bench.init.rules import Choice
from pais_bench.init.summary import DataSummary

STRIDES = {"small": (4, 8, 16), "mobilenet_v2": (4, 8, 16, 32, 64), "resnet50": (4, 8, 16, 32, 64)}
"""Strides of each backbone's pyramid."""
ANCHOR_RATIO = 1.25
"""Least ratio of an anchor size to the one before."""
MOST_DETECTIONS = 100
"""COCO's AP counts at most so many detections of an image."""


def backbone(weights: Mapping[str, Path], device: Device) -> Choice:
    """Return backbone and weights: ResNet-50 on a GPU, MobileNetV2 on a CPU, where their weights are at hand."""
    order = ("resnet50", "mobilenet_v2") if device.gpu else ("mobilenet_v2",)
    for name in order:
        if name in weights:
            values: dict[str, Any] = {"backbone": name, "pretrained_backbone": str(weights[name])}
            if name == "mobilenet_v2":
                values["fpn_channels"] = 64
            return Choice(values, f"ImageNet weights are at hand; {'the usual one' if name == 'resnet50' else 'fast'}")
    return Choice(
        {"backbone": "small"},
        "no ImageNet weights are at hand, and a network from random weights learns little from photos. `pais-bench "
        "fetch weights` puts some where init looks; then run init --force again.",
    )


def anchors(summary: DataSummary, side: int, name: str) -> Choice:
    """Return one anchor size a level, px of a view whose shorter side is `side`.

    Level i of n has the quantile (i + 1/2) / n of the objects' sides, at least twice its stride, because its anchors
    stand one stride apart, and at least ANCHOR_RATIO times the size before.
    """
    strides = STRIDES[name]
    sizes: list[int] = []
    for level, stride in enumerate(strides):
        size = side * summary.object_side((level + 0.5) / len(strides))
        least = ANCHOR_RATIO * sizes[-1] if sizes else 0
        sizes.append(round(max(size, 2 * stride, least)))
    low, middle, high = (side * summary.object_side(quantile) for quantile in (0.1, 0.5, 0.9))
    return Choice(
        {"anchor_sizes": sizes},
        f"objects have sides of {low:.0f}, {middle:.0f} and {high:.0f} px (10, 50 and 90 %) in a view of {side} px",
    )


def regions(summary: DataSummary, device: Device) -> Choice:
    """Return how many proposals and detections an image has: twice the objects of the fullest image, 20..100.

    On a CPU the numbers of proposals and of regions in the losses are small; on a GPU they are the usual ones.
    """
    detections = min(max(20, 5 * -(-2 * summary.most_objects // 5)), MOST_DETECTIONS)
    reason = f"an image has up to {summary.most_objects} objects"
    if summary.most_objects > MOST_DETECTIONS:
        reason += f"; COCO's AP counts {MOST_DETECTIONS} detections"
    values: dict[str, Any] = {"box_detections_per_img": detections}
    if not device.gpu:
        proposals = max(100, 2 * detections)
        values |= {
            "rpn_batch_size_per_image": 64,
            "rpn_post_nms_top_n_train": 2 * proposals,
            "rpn_post_nms_top_n_test": proposals,
            "box_batch_size_per_image": 64,
        }
    return Choice(values, reason)


def heads(device: Device) -> Choice | None:
    """Return the sizes of the heads for a CPU; None on a GPU, where they are the usual ones."""
    if device.gpu:
        return None
    values = {"box_convs": [64, 64], "box_features": 256, "mask_layers": [64, 64], "mask_iou_channels": 32}
    return Choice(values, "small heads, for a CPU")
