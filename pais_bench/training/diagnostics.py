"""Describe a step's pseudo-labels for the log: their number, accuracy and weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pais_bench.evaluation import pseudo_labels as metric
from pais_bench.types import Batch, Targets

SAMPLE = 32
"""Number of pseudo-labels of a logged step that are written one by one."""
COLUMNS = ("score", "mask_iou", "class_weight", "mask_weight")


def describe(pseudo_labels: Sequence[Targets], batch: Batch) -> dict[str, Any]:
    """Describe the pseudo-labels of a step, which are in pixels of the weak views, one Targets an image.

    Returns the summary of evaluation/pseudo_labels.py against the held-out labels; the means of COLUMNS; weights:
    histograms of both weights; and, of the images with held-out labels, score_bins (calibration of the score as
    probability of being correct), mask_iou_bins (of the predicted mask IoU) and sample: at most SAMPLE rows of COLUMNS
    and the true mask IoU.
    """
    counts, matches, known = metric.Counts(), [], []
    columns = _columns(pseudo_labels)
    paired = zip(pseudo_labels, batch.unlabelled, strict=True)
    masks = iter(_masks([targets for targets, image in paired if image.ground_truth is not None]))
    for (labels, *values), image in zip(columns, batch.unlabelled, strict=True):
        if image.ground_truth is not None:
            found = PseudoLabels(labels.astype(np.int64), next(masks), scores=values[0])
            matches.append(metric.match(found, image.ground_truth))
            counts.add(matches[-1], len(image.ground_truth.labels))
            known.append(np.stack(values))
    every = np.concatenate([np.zeros((4, 0)), *(image[1:] for image in columns)], axis=1)
    means = {name: float(values.mean()) if len(values) else None for name, values in zip(COLUMNS, every, strict=True)}
    score, mask_iou, *weights = np.concatenate([np.zeros((4, 0)), *known], axis=1)
    correct = np.concatenate([np.zeros(0), *(match.matched_iou > 0 for match in matches)])
    best = np.concatenate([np.zeros(0), *(match.best_iou for match in matches)])
    sampled = np.linspace(0, len(best) - 1, min(SAMPLE, len(best))).astype(int)
    rows = np.stack([score, mask_iou, *weights, best], axis=1)[sampled]
    return {
        **counts.summary(),
        **means,
        "weights": {name: metric.histogram(values) for name, values in zip(COLUMNS[2:], every[2:], strict=True)},
        "score_bins": metric.calibration(score, correct),
        "mask_iou_bins": metric.calibration(mask_iou, best),
        "sample": [[round(value, 4) for value in row] for row in rows.tolist()],
    }


@dataclass(frozen=True)
class PseudoLabels:
    """Hold one image's labels i64[N], masks bool[N,H,W] and scores f64[N] for the comparison with held-out labels."""

    labels: np.ndarray
    masks: np.ndarray
    scores: np.ndarray


def _columns(pseudo_labels: Sequence[Targets]) -> list[np.ndarray]:
    """Return the label and COLUMNS of each image as f64[5,N]; all images leave the device together."""
    per_image = [
        (t.instances.labels, t.instances.scores, t.instances.mask_iou, t.class_weight, t.mask_weight)
        for t in pseudo_labels
    ]
    together = torch.stack([torch.cat(column).double() for column in zip(*per_image, strict=True)])
    ends = np.cumsum([len(targets.instances) for targets in pseudo_labels])[:-1]
    return np.split(together.detach().cpu().numpy(), ends, axis=1)


def _masks(pseudo_labels: Sequence[Targets]) -> list[np.ndarray]:
    """Return the masks bool[N,H,W] of each image; all images leave the device together."""
    if not pseudo_labels:
        return []
    masks = [targets.instances.masks for targets in pseudo_labels]
    together = torch.cat([image.flatten() for image in masks]).cpu().numpy()
    parts = np.split(together, np.cumsum([image.numel() for image in masks])[:-1])
    return [part.reshape(image.shape) for part, image in zip(parts, masks, strict=True)]
